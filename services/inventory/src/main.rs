//! The `inventory` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_inventory::Args::parse();
    shop_link::run(
        "inventory",
        shop_inventory::serve(args, shop_link::signalled()),
    )
    .await
}
