//! The `media` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_media::Args::parse();
    shop_link::run("media", shop_media::serve(args, shop_link::signalled())).await
}
