//! The `orders` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_orders::Args::parse();
    shop_link::run("orders", shop_orders::serve(args, shop_link::signalled())).await
}
