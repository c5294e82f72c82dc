//! Why the demo fails.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the demo fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path with a wrong number of orders or connections.
    #[error("--orders and --in-flight must be at least 1")]
    NothingToDo,
    /// No place for the sockets, no free port.
    #[error("can't prepare the services: {0}")]
    Prepare(io::Error),
    /// The binary can't be started again.
    #[error("can't start {service}: {source}")]
    Start {
        /// Which service.
        service: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A service was there and is not any more.
    #[error("{service} ended with {status}: its own words are above")]
    Ended {
        /// Which service.
        service: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// A service did not come up.
    #[error("{service} does not answer at {address} after {seconds} s")]
    Silent {
        /// Which service.
        service: &'static str,
        /// Where it should.
        address: String,
        /// How long it was given.
        seconds: u64,
    },
    /// Nobody takes connections there.
    #[error("can't connect to {address}: {source}")]
    Unreachable {
        /// Where somebody should.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A service that is probed is not well.
    #[error(transparent)]
    Unhealthy(#[from] shop_link::Unhealthy),
    /// A page that is probed does not answer as it should.
    #[error("{page} answers with HTTP {status}")]
    Page {
        /// What was asked for.
        page: http::Uri,
        /// What came.
        status: http::StatusCode,
    },
    /// A page that is probed does not answer.
    #[error("{0} does not answer within {1} s")]
    PageSilent(http::Uri, u64),
    /// Orders that were placed at a steady rate and failed.
    #[error("{failed} of {orders} orders failed")]
    Failed {
        /// How many.
        failed: u64,
        /// Of how many.
        orders: u64,
    },
    /// The connection to the gateway broke.
    #[error("the gateway's connection failed: {0}")]
    Http(#[from] hyper::Error),
    /// The gateway's answer can't be read.
    #[error("the gateway's answer is no order: {0}")]
    Json(#[from] serde_json::Error),
    /// The gateway refused the order.
    #[error("an order failed with HTTP {status}: {body}")]
    Refused {
        /// HTTP's status.
        status: http::StatusCode,
        /// What the gateway says.
        body: String,
    },
    /// `orders` refused the order.
    #[error("an order failed: {0}")]
    Order(#[from] Box<tonic::Status>),
    /// An order came back in another state.
    #[error("an order was not confirmed but is {0}")]
    NotConfirmed(String),
    /// A hop went elsewhere.
    #[error("{count} hops took {taken} where all should have taken {expected}")]
    WrongPath {
        /// How many.
        count: u64,
        /// The path taken.
        taken: String,
        /// The path chosen.
        expected: String,
    },
    /// The transport can't be set up.
    #[error(transparent)]
    Link(#[from] shop_link::Error),
    /// Nobody takes the spans that `--otlp` is to send.
    #[error("no OTLP collector answers at {url}: start one, or leave --otlp out; {why}")]
    NoCollector {
        /// Where it should.
        url: String,
        /// Why not.
        why: String,
    },
    /// The report can't be written.
    #[error("can't write {path}: {source}")]
    Report {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of the load died.
    #[error("a part of the load failed: {0}")]
    Load(#[from] tokio::task::JoinError),
    /// Somebody pressed ctrl-c.
    #[error("interrupted")]
    Interrupted,
}
