//! The `gateway` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_gateway::Args::parse();
    shop_link::run("gateway", shop_gateway::serve(args, shop_link::signalled())).await
}
