//! A service as its callers see it.

use std::time::{Duration, Instant};

use ringway_proto::shop::v1::Path;
use tonic::transport::Endpoint;
use tonic::{Response, Status};

use crate::{Address, Error};

/// What the shop's clients are built over.
pub type Channel = tonic::transport::Channel;

/// No call inside the shop takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Large enough that a picture never waits for credit.
const WINDOW_BYTES: u32 = 4 << 20;

/// Another service of the shop, and how it is reached.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use ringway_proto::shop::v1::{GetProductsRequest, catalog_client::CatalogClient};
///
/// let peer = shop_link::Peer::connect_lazy("catalog", &"127.0.0.1:50051".parse()?)?;
/// let mut catalog = CatalogClient::new(peer.channel());
/// let products = peer.timed(catalog.get(GetProductsRequest::default())).await?;
/// println!("{} ns", products.nanoseconds);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Peer {
    service: &'static str,
    channel: Channel,
    path: Path,
}

/// A reply, how long it took, and what carried it.
#[derive(Debug)]
pub struct Timed<T> {
    /// The reply's message.
    pub reply: T,
    /// The path that the call took.
    pub path: Path,
    /// From the call to its reply.
    pub nanoseconds: u64,
}

impl Peer {
    /// A peer that is connected to when the first call is made, and again
    /// whenever the connection was lost.
    ///
    /// # Errors
    /// [`Error::Connect`] for an address that can never be reached.
    pub fn connect_lazy(service: &'static str, address: &Address) -> Result<Self, Error> {
        let connect = |source| Error::Connect {
            service,
            address: address.to_string(),
            source,
        };
        let channel = Endpoint::from_shared(address.uri())
            .map_err(connect)?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .timeout(CALL_TIMEOUT)
            .connect_lazy();
        Ok(Self {
            service,
            channel,
            path: address.path(),
        })
    }

    /// What stubs are built over; cheap to clone.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The path that a response came by.
    #[must_use]
    pub fn path_of<T>(&self, _response: &Response<T>) -> Path {
        self.path
    }

    /// Makes a unary call and takes its time.
    ///
    /// # Errors
    /// The call's status; an `UNAVAILABLE` one names the service.
    pub async fn timed<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Timed<T>, Status> {
        let start = Instant::now();
        let response = call.await.map_err(|status| self.name(status))?;
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let path = self.path_of(&response);
        Ok(Timed {
            reply: response.into_inner(),
            path,
            nanoseconds,
        })
    }

    /// Says which service it is that can't be reached.
    #[must_use]
    pub fn name(&self, status: Status) -> Status {
        if status.code() == tonic::Code::Unavailable {
            return Status::unavailable(format!("{}: {}", self.service, status.message()));
        }
        status
    }
}
