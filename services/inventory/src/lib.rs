//! The shop's stock: reserved, sold and given back, never oversold.
//!
//! `rules` says what may happen, `memory` and `disk` keep the figures, `ledger`
//! is the door to either.
#![forbid(unsafe_code)]

mod disk;
mod ledger;
mod memory;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringway_proto::shop::v1::inventory_server::{Inventory as Contract, InventoryServer};
use ringway_proto::shop::v1::{
    CommitReply, CommitRequest, LevelsReply, LevelsRequest, Line as LineMessage, ReleaseReply,
    ReleaseRequest, ReserveReply, ReserveRequest, RestockReply,
};
use shop_link::Address;
use tonic::{Request, Response, Status, Streaming};

pub use disk::DiskError;
pub use ledger::Failure;
use ledger::{Action, Ledger};
pub use rules::Refusal;

/// Products in one `Levels`.
const BATCH_MAX: usize = 100;
/// Lines of one delivery.
const DELIVERY_MAX: usize = 100_000;
/// How often expired holds are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's stock: reserved, sold and given back, never oversold.")]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:50052")]
    pub listen: Address,
    /// By what else it is found.
    #[command(flatten)]
    pub names: shop_link::Names,
    /// How many products are stocked at first.
    #[arg(long, default_value_t = 1000)]
    pub products: u32,
    /// How many units of each.
    #[arg(long, default_value_t = 1000)]
    pub stock: u32,
    /// Keeps the stock in this directory, in place of memory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Why the inventory can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is no use.
    #[error(transparent)]
    Data(#[from] DiskError),
    /// The first stock can't be taken in.
    #[error(transparent)]
    Stock(#[from] Failure),
    /// The transport failed.
    #[error(transparent)]
    Link(#[from] shop_link::Error),
}

/// Serves the inventory until `until` is ready.
///
/// # Errors
/// An unusable data directory, and those of [`shop_link::serve`].
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let inventory = Inventory::open(&args).await?;
    let sweeper = tokio::spawn(sweep(Arc::clone(&inventory.ledger)));
    let served = shop_link::serve(
        &args.listen,
        &args.names,
        InventoryServer::new(inventory),
        until,
    )
    .await;
    sweeper.abort();
    Ok(served?)
}

async fn sweep(ledger: Arc<Ledger>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        if let Err(failure) = ledger.apply(Action::Sweep).await {
            tracing::warn!("expired reservations stay for now: {failure}");
        }
    }
}

/// The handler.
#[derive(Clone, Debug)]
pub struct Inventory {
    ledger: Arc<Ledger>,
}

impl Inventory {
    /// Opens what `args` says; a new one gets its first stock.
    ///
    /// # Errors
    /// An unusable data directory.
    pub async fn open(args: &Args) -> Result<Self, Error> {
        let (ledger, new) = match &args.data {
            Some(directory) => Ledger::on_disk(directory)?,
            None => (Ledger::in_memory(), true),
        };
        if new {
            let lines = (1..=args.products)
                .map(|product| (product, args.stock))
                .collect();
            ledger.apply(Action::Restock { lines }).await?;
        }
        Ok(Self {
            ledger: Arc::new(ledger),
        })
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Refused(refusal) => match refusal {
                Refusal::BadLines | Refusal::TooMany(_) => Self::invalid_argument(text),
                Refusal::UnknownProduct(_) | Refusal::UnknownOrder(_) => Self::not_found(text),
                Refusal::SoldOut { .. } | Refusal::Released(_) => Self::failed_precondition(text),
                Refusal::OtherLines(_) => Self::already_exists(text),
            },
            Failure::Busy => Self::unavailable(text),
            Failure::Disk(_) => Self::internal(text),
        }
    }
}

#[tonic::async_trait]
impl Contract for Inventory {
    async fn reserve(
        &self,
        request: Request<ReserveRequest>,
    ) -> Result<Response<ReserveReply>, Status> {
        let ReserveRequest { order, lines } = request.into_inner();
        let lines = rules::normalise(lines.iter().map(|line| (line.product, line.quantity)))
            .map_err(Failure::from)?;
        self.ledger.apply(Action::Reserve { order, lines }).await?;
        Ok(Response::new(ReserveReply {}))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitReply>, Status> {
        let order = request.get_ref().order;
        self.ledger.apply(Action::Commit { order }).await?;
        Ok(Response::new(CommitReply {}))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseReply>, Status> {
        let order = request.get_ref().order;
        self.ledger.apply(Action::Release { order }).await?;
        Ok(Response::new(ReleaseReply {}))
    }

    async fn levels(
        &self,
        request: Request<LevelsRequest>,
    ) -> Result<Response<LevelsReply>, Status> {
        let products = request.into_inner().products;
        if products.len() > BATCH_MAX {
            return Err(Status::invalid_argument(format!(
                "at most {BATCH_MAX} products at a time"
            )));
        }
        let levels = self.ledger.levels(&products)?;
        let line = |(product, level): (u32, Option<u32>)| {
            let quantity = level.ok_or(Failure::Refused(Refusal::UnknownProduct(product)))?;
            Ok::<_, Status>(LineMessage { product, quantity })
        };
        let available = products
            .into_iter()
            .zip(levels)
            .map(line)
            .collect::<Result<_, _>>()?;
        Ok(Response::new(LevelsReply { available }))
    }

    async fn restock(
        &self,
        request: Request<Streaming<LineMessage>>,
    ) -> Result<Response<RestockReply>, Status> {
        let mut delivery = request.into_inner();
        let mut lines = Vec::new();
        while let Some(line) = delivery.message().await? {
            if lines.len() == DELIVERY_MAX {
                return Err(Status::invalid_argument(format!(
                    "a delivery has at most {DELIVERY_MAX} lines: send two"
                )));
            }
            lines.push((line.product, line.quantity));
        }
        let units = lines.iter().map(|&(_, quantity)| u64::from(quantity)).sum();
        let reply = RestockReply {
            lines: u32::try_from(lines.len()).unwrap_or(u32::MAX),
            units,
        };
        self.ledger.apply(Action::Restock { lines }).await?;
        Ok(Response::new(reply))
    }
}
