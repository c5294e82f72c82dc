//! The `payments` service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = shop_payments::Args::parse();
    shop_link::run(
        "payments",
        shop_payments::serve(args, shop_link::signalled()),
    )
    .await
}
