//! A customer as a process of its own, who places some orders, one after the other: so that its
//! part of a trace bears a name of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use shop_link::{Address, Peer};

use crate::Error;
use crate::shopper::Shopper;

/// What to order, and where.
#[derive(clap::Args, Debug)]
pub struct Customer {
    /// So many orders.
    #[arg(long)]
    orders: u64,
    /// Through HTTP at this gateway.
    #[arg(long, required_unless_present = "address")]
    gateway: Option<SocketAddr>,
    /// Straight at `orders`, at this address.
    #[arg(long, conflicts_with = "gateway", requires = "directory")]
    address: Option<Address>,
    /// Where services of this host are found.
    #[arg(long)]
    directory: Option<PathBuf>,
}

impl Customer {
    /// Orders as the whole process.
    pub async fn run(self) -> ExitCode {
        shop_link::run("shopper", self.order()).await
    }

    async fn order(self) -> Result<(), Error> {
        let mut shopper = self.shopper().await?;
        let mut hops = Vec::new();
        for n in 0..self.orders {
            shopper.order(n, &mut hops).await?;
        }
        Ok(())
    }

    async fn shopper(&self) -> Result<Shopper, Error> {
        match (self.gateway, &self.address, &self.directory) {
            (_, Some(address), Some(directory)) => {
                let peer = Peer::connect_lazy_in(directory, "orders", address)?;
                Ok(Shopper::direct(&peer))
            }
            (Some(gateway), ..) => Shopper::http(&gateway.to_string()).await,
            // clap has refused it.
            (None, ..) => Err(Error::NothingToDo),
        }
    }
}
