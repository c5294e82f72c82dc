//! A service as its callers see it.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use ringway::Endpoint;
use ringway_proto::shop::v1::Path;
use tokio::net::{TcpStream, UnixStream};
use tonic::{Request, Response, Status};

use crate::{Address, Error};

/// What the shop's clients are built over.
pub type Channel = ringway::Channel;

/// No unary call inside the shop takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that is stopped, or cut off, is given up after so long without a word, and as long again
/// for its answer to a ping.
const SILENCE: Duration = Duration::from_secs(2);

/// A unary call's request: it ends after 10 s at the latest. A stream lives as long as somebody
/// wants it and has no such end.
pub fn unary<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Whether somebody listens at `address`; local names are looked up in `directory`.
pub async fn answers(directory: &FilePath, address: &Address) -> bool {
    match address {
        Address::Auto(authority) | Address::Tcp(authority) => {
            TcpStream::connect(authority).await.is_ok()
        }
        Address::Unix(path) => UnixStream::connect(path).await.is_ok(),
        Address::Shm(_) | Address::Socket(_) => match Endpoint::new(address.to_string()) {
            Ok(endpoint) => endpoint.directory(directory).connect().await.is_ok(),
            Err(_) => false,
        },
    }
}

/// Another service of the shop, and how it is reached.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use ringway_proto::shop::v1::{GetProductsRequest, catalog_client::CatalogClient};
///
/// let peer = shop_link::Peer::connect_lazy("catalog", &"127.0.0.1:50051".parse()?)?;
/// let mut catalog = CatalogClient::new(peer.channel());
/// let request = shop_link::unary(GetProductsRequest::default());
/// let products = peer.timed(catalog.get(request)).await?;
/// println!("{} ns", products.nanoseconds);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Peer {
    service: &'static str,
    channel: Channel,
    /// Which of the two kinds of gRPC a call takes that takes gRPC.
    grpc: Path,
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
        Self::over(service, address, |endpoint| endpoint)
    }

    /// The same, but a local service is looked for in `directory`, in place of where the
    /// environment says.
    ///
    /// # Errors
    /// [`Error::Connect`] for an address that can never be reached.
    pub fn connect_lazy_in(
        directory: &FilePath,
        service: &'static str,
        address: &Address,
    ) -> Result<Self, Error> {
        Self::over(service, address, |endpoint| endpoint.directory(directory))
    }

    fn over(
        service: &'static str,
        address: &Address,
        with: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Self, Error> {
        let channel = Endpoint::new(address.to_string())
            .map(|endpoint| endpoint.http2_keep_alive_interval(SILENCE))
            .map(|endpoint| endpoint.keep_alive_timeout(SILENCE))
            .map(|endpoint| with(endpoint).connect_lazy())
            .map_err(|source| Error::Connect {
                service,
                address: address.to_string(),
                source,
            })?;
        let grpc = match address {
            Address::Unix(_) => Path::GrpcUnix,
            _ => Path::GrpcTcp,
        };
        Ok(Self {
            service,
            channel,
            grpc,
        })
    }

    /// What stubs are built over; cheap to clone.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The path that a response came by.
    #[must_use]
    pub fn path_of<T>(&self, response: &Response<T>) -> Path {
        match ringway::Path::of(response) {
            Some(ringway::Path::Shm) => Path::Shm,
            Some(ringway::Path::Socket) => Path::Socket,
            Some(ringway::Path::Inproc) => Path::Inproc,
            Some(ringway::Path::Grpc) => self.grpc,
            _ => Path::Unspecified,
        }
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
