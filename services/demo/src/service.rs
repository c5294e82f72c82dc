//! The shop's services, by their names.

use std::process::ExitCode;

/// Which service to be, with its own arguments.
#[derive(clap::Subcommand, Debug)]
#[allow(
    missing_docs,
    reason = "clap shows each with what its own crate says of it"
)]
pub enum Service {
    Catalog(shop_catalog::Args),
    Gateway(shop_gateway::Args),
    Inventory(shop_inventory::Args),
    Media(shop_media::Args),
    Orders(shop_orders::Args),
    Payments(shop_payments::Args),
}

impl Service {
    /// Is this service as the whole process, until `until` is ready.
    pub async fn run(self, until: impl Future<Output = ()> + Send) -> ExitCode {
        use shop_link::run;
        match self {
            Self::Catalog(args) => run("catalog", shop_catalog::serve(args, until)).await,
            Self::Gateway(args) => run("gateway", shop_gateway::serve(args, until)).await,
            Self::Inventory(args) => run("inventory", shop_inventory::serve(args, until)).await,
            Self::Media(args) => run("media", shop_media::serve(args, until)).await,
            Self::Orders(args) => run("orders", shop_orders::serve(args, until)).await,
            Self::Payments(args) => run("payments", shop_payments::serve(args, until)).await,
        }
    }
}
