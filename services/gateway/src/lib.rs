//! The shop's edge: HTTP and JSON in, calls to the services out.
//!
//! | request | answer | calls |
//! | --- | --- | --- |
//! | `POST /orders` | places an order | `orders.Place` |
//! | `GET`, `DELETE /orders/ID` | what became of it; cancels it | `orders.Get`, `Cancel` |
//! | `GET /orders/ID/events` | its status as server-sent events | `orders.Track`, both ways |
//! | `GET /products?after=&limit=&search=` | a page of products | `catalog.List`, a stream |
//! | `GET /products/ID` | one, with what is left of it | `catalog.Get`, `inventory.Levels` |
//! | `GET /products/ID/picture` | its picture, passed on in pieces | `media.Download`, a stream |
//! | `PUT /products/ID/picture` | replaces it | `media.Upload`, a stream |
//! | `GET /pictures/ID` | a picture in one piece | `media.Get` |
//! | `POST /deliveries` | takes stock in | `inventory.Restock`, a stream |
//! | `GET /healthz` | `ok` | none |
#![forbid(unsafe_code)]

mod edge;
mod error;
mod json;
mod orders;
mod pictures;
mod products;
mod shop;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath};
use axum::http::{Extensions, StatusCode};
use axum::routing::{get, post};
use ringway_telemetry::Edge;
use shop_link::Address;
use tokio::net::TcpListener;

use error::Problem;
use shop::Shop;

/// Largest JSON body: an order of a hundred lines has some 5 KiB, a delivery more.
const JSON_MAX_BYTES: usize = 1 << 20;

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's edge: HTTP and JSON in, calls to the services out.")]
pub struct Args {
    /// Where to listen for HTTP.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where orders is.
    #[arg(long, default_value = "127.0.0.1:50054")]
    pub orders: Address,
    /// Where catalog is.
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub catalog: Address,
    /// Where inventory is.
    #[arg(long, default_value = "127.0.0.1:50052")]
    pub inventory: Address,
    /// Where media is.
    #[arg(long, default_value = "127.0.0.1:50053")]
    pub media: Address,
}

/// Why the gateway can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener could not be set up.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// Why it can't.
        source: io::Error,
    },
    /// The transport failed.
    #[error(transparent)]
    Link(#[from] shop_link::Error),
}

/// Serves HTTP until `until` is ready.
///
/// # Errors
/// An address that can't be listened on, or never be reached.
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let address = args.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let router = router(&args)?;
    let served = shop_link::bounded(until, |stop| edge::serve(listener, router, stop.ready()));
    // A request that is cut off after it has had its time.
    served.await.unwrap_or_default();
    Ok(())
}

/// The routes, over the services that `args` names; they may still be starting.
///
/// # Errors
/// An address that can never be reached.
pub fn router(args: &Args) -> Result<Router, Error> {
    let shop = Shop::connect_lazy(args)?;
    Ok(Router::new()
        .route("/orders", post(orders::place))
        .route("/orders/{id}", get(orders::get).delete(orders::cancel))
        .route("/orders/{id}/events", get(orders::events))
        .route("/products", get(products::list))
        .route("/products/{id}", get(products::get))
        .route(
            "/products/{id}/picture",
            get(pictures::download).put(pictures::upload),
        )
        .route("/pictures/{id}", get(pictures::get))
        .route("/deliveries", post(products::deliver))
        .route("/healthz", get(async || "ok"))
        .fallback(async || Problem::missing("no such page: see the gateway's documentation"))
        .method_not_allowed_fallback(async || {
            Problem::bad("this page has other methods: see the gateway's documentation")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .route_layer(Edge::new(route))
        .layer(DefaultBodyLimit::max(JSON_MAX_BYTES))
        .with_state(shop))
}

/// The route that a request took, as it is written above.
fn route(extensions: &Extensions) -> Option<String> {
    let matched = extensions.get::<MatchedPath>()?;
    Some(matched.as_str().to_owned())
}
