//! `shop`: any of the shop's services by its name, a load for them, and a probe; what a container's
//! image holds.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use shop_demo::{Error, Probe, Service, Steady};

/// Is one of the shop's services, its load, or its probe.
#[derive(Parser)]
enum Shop {
    #[command(flatten)]
    Service(Service),
    /// Places orders at a steady rate.
    Load(Steady),
    /// Asks whether a service is well: exit status 0 if so.
    Probe(Probe),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Listened for at once: a container may be told to end as soon as it runs.
    let ends = shop_link::signalled();
    match Shop::parse() {
        Shop::Service(service) => service.run(ends).await,
        Shop::Load(load) => said(load.run(ends).await),
        Shop::Probe(probe) => said(probe.ask().await),
    }
}

fn said(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}
