//! The `catalog` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_catalog::Args::parse();
    shop_link::run("catalog", shop_catalog::serve(args, shop_link::signalled())).await
}
