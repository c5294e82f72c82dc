//! The shop's orders: one call fans out over the other services.
//!
//! `place` is the saga, `services` the calls it makes, `book` what became of the
//! orders, `track` who follows them.
#![forbid(unsafe_code)]

mod book;
mod place;
mod services;
mod track;

use std::pin::Pin;
use std::sync::Arc;

use ringway_proto::shop::v1::orders_server::{Orders as Contract, OrdersServer};
use ringway_proto::shop::v1::{
    CancelOrderRequest, GetOrderRequest, Order, OrderEvent, OrderStatus, PlaceOrderRequest,
    TrackRequest,
};
use shop_link::{Address, Error};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use place::Desk;
use services::Services;

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's orders: one call fans out over the other services.")]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:50054")]
    pub listen: Address,
    /// By what else it is found.
    #[command(flatten)]
    pub names: shop_link::Names,
    /// Where catalog is.
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub catalog: Address,
    /// Where inventory is.
    #[arg(long, default_value = "127.0.0.1:50052")]
    pub inventory: Address,
    /// Where media is.
    #[arg(long, default_value = "127.0.0.1:50053")]
    pub media: Address,
    /// Where payments is.
    #[arg(long, default_value = "127.0.0.1:50055")]
    pub payments: Address,
}

/// Serves orders until `until` is ready.
///
/// # Errors
/// Those of [`shop_link::serve`].
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let orders = Orders::connect_lazy(&args)?;
    shop_link::serve(&args.listen, &args.names, OrdersServer::new(orders), until).await
}

/// The handler.
#[derive(Clone, Debug)]
pub struct Orders {
    desk: Arc<Desk>,
}

impl Orders {
    /// Orders over the services that `args` names; they may still be starting.
    ///
    /// # Errors
    /// An address that can never be reached.
    pub fn connect_lazy(args: &Args) -> Result<Self, Error> {
        let services = Services::connect_lazy(args)?;
        Ok(Self {
            desk: Arc::new(Desk::new(services)),
        })
    }

    async fn undo(&self, order: u64) -> Result<Order, Status> {
        let known = self.desk.book.get(order)?;
        match known.status() {
            OrderStatus::Cancelled => Ok(known),
            OrderStatus::Confirmed => {
                self.desk.services.give_back(order).await?;
                self.desk.book.cancel(order)
            }
            OrderStatus::Pending => Err(book::busy(order)),
            OrderStatus::Rejected | OrderStatus::Unspecified => Err(Status::failed_precondition(
                "the order was rejected: there is nothing to cancel",
            )),
        }
    }
}

#[tonic::async_trait]
impl Contract for Orders {
    type TrackStream = Pin<Box<dyn Stream<Item = Result<OrderEvent, Status>> + Send>>;

    async fn place(&self, request: Request<PlaceOrderRequest>) -> Result<Response<Order>, Status> {
        Ok(Response::new(self.desk.place(request.into_inner()).await?))
    }

    async fn get(&self, request: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        Ok(Response::new(self.desk.book.get(request.get_ref().order)?))
    }

    async fn cancel(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<Order>, Status> {
        Ok(Response::new(self.undo(request.get_ref().order).await?))
    }

    async fn track(
        &self,
        request: Request<Streaming<TrackRequest>>,
    ) -> Result<Response<Self::TrackStream>, Status> {
        let events = track::follow(Arc::clone(&self.desk), request.into_inner());
        Ok(Response::new(Box::pin(events)))
    }
}
