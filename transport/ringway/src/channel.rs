//! A client's way to a server: the best path that works, chosen anew when it breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use ringway_local::{ConnectError, Connection, Links, LocalConfig, SocketEngine};
use ringway_net::CallSettings;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::client::{self, Caller, Failure, Head};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::method::{CallOptions, Method};
use crate::path::Path;
use crate::server;

/// How long a local server that was not there is not looked for again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Connections that a call may lose before any handler saw it.
const MAX_ATTEMPTS: usize = 4;

/// Calls a server over the best path that works.
///
/// Cheap to clone; all clones share their connections. A channel that lost its local server goes
/// on over the network, keeps looking, and comes back.
///
/// ```no_run
/// # #[tokio::main] async fn main() -> Result<(), ringway::Error> {
/// let channel = ringway::Endpoint::new("catalog:50051")?.connect().await?;
/// // let mut client = CatalogClient::new(channel);
/// # drop(channel); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    /// This clone's last local connection, so that a hot call takes no lock to find it.
    cached: Option<Arc<Connection>>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    net: Option<tonic::transport::Channel>,
    local: Mutex<Local>,
    /// One task connects, the others wait for what it finds.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Local {
    connection: Option<Arc<Connection>>,
    absent_until: Option<Instant>,
    warned: bool,
}

/// Where a call goes.
pub(crate) enum Route {
    Local(Arc<Connection>),
    Net(tonic::transport::Channel),
}

impl Channel {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let needs_net = endpoint.forced.is_none_or(|path| path == Path::Grpc);
        let net = match &endpoint.target {
            Some(target) if needs_net => Some(ringway_net::connect_lazy(target, &endpoint.net)?),
            _ => None,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                endpoint,
                net,
                local: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
            }),
            cached: None,
        })
    }

    /// The path that the next call would take, as far as is known without trying.
    pub fn path(&self) -> Path {
        match &self.shared.local.lock().connection {
            Some(connection) if connection.is_open() => Path::over(connection),
            _ => self.shared.endpoint.forced.unwrap_or(Path::Grpc),
        }
    }

    /// Connects now, where that shows whether a forced local path works.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        let shared = &self.shared;
        if shared.endpoint.forced == Some(Path::Grpc) || !shared.endpoint.may_stay_local() {
            return Ok(());
        }
        match shared.find_local().await {
            Ok(_) => Ok(()),
            Err(error) if shared.endpoint.forced.is_some() => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Where the next call goes.
    pub(crate) async fn route(&mut self) -> Result<Route, Status> {
        if let Some(connection) = &self.cached
            && connection.is_open()
        {
            return Ok(Route::Local(Arc::clone(connection)));
        }
        self.cached = None;
        let route = self.shared.route().await?;
        if let Route::Local(connection) = &route {
            self.cached = Some(Arc::clone(connection));
        }
        Ok(route)
    }

    /// Lets go of a connection that took a call no further.
    pub(crate) fn forget(&mut self, connection: &Arc<Connection>) {
        self.cached = None;
        let mut local = self.shared.local.lock();
        if local
            .connection
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(held, connection))
        {
            local.connection = None;
        }
    }
}

impl Shared {
    fn local_path(&self) -> Path {
        self.endpoint.forced.unwrap_or(Path::Shm)
    }

    /// Without a forced path, a host that refuses shared memory is called over a socket.
    fn links(&self) -> Links {
        match self.endpoint.forced {
            Some(Path::Shm) => Links::Shm,
            Some(Path::Socket) => Links::Socket,
            _ => self.endpoint.local.links,
        }
    }

    async fn route(&self) -> Result<Route, Status> {
        if let Some(connection) = &self.local.lock().connection
            && connection.is_open()
        {
            return Ok(Route::Local(Arc::clone(connection)));
        }
        let may_stay_local = self.endpoint.may_stay_local();
        match self.endpoint.forced {
            Some(Path::Grpc) => self.net(),
            Some(_) => self
                .find_local()
                .await
                .map(Route::Local)
                .map_err(unavailable),
            None if !may_stay_local || self.is_known_absent() => self.net(),
            None => match self.find_local().await {
                Ok(connection) => Ok(Route::Local(connection)),
                Err(error) => {
                    self.warn_once(&error);
                    self.net()
                }
            },
        }
    }

    fn net(&self) -> Result<Route, Status> {
        self.net.clone().map(Route::Net).ok_or_else(|| {
            Status::unavailable(format!("`{}` has no network address", self.endpoint.name))
        })
    }

    fn is_known_absent(&self) -> bool {
        let local = self.local.lock();
        local
            .absent_until
            .is_some_and(|until| Instant::now() < until)
    }

    async fn find_local(&self) -> Result<Arc<Connection>, Error> {
        let _turn = self.connecting.lock().await;
        if let Some(held) = &self.local.lock().connection
            && held.takes_calls()
        {
            return Ok(Arc::clone(held));
        }
        let found = self.connect_local().await;
        let mut local = self.local.lock();
        match &found {
            Ok(connection) => {
                *local = Local {
                    connection: Some(Arc::clone(connection)),
                    ..Local::default()
                };
            }
            Err(_) => local.absent_until = Some(Instant::now() + LOOK_AGAIN_AFTER),
        }
        found
    }

    async fn connect_local(&self) -> Result<Arc<Connection>, Error> {
        let Endpoint {
            name,
            directory,
            local,
            ..
        } = &self.endpoint;
        match self.local_path() {
            Path::Inproc => server::inproc_connection(name, local).ok_or_else(|| Error::Forced {
                path: Path::Inproc,
                reason: format!("no server of this process is called `{name}`"),
            }),
            Path::Shm | Path::Socket | Path::Grpc => {
                let local = LocalConfig {
                    links: self.links(),
                    socket_engine: match self.endpoint.epoll {
                        true => SocketEngine::Epoll,
                        false => local.socket_engine,
                    },
                    ..local.clone()
                };
                Ok(ringway_local::connect(directory, name, &local).await?)
            }
        }
    }

    /// An absent server is nothing to warn of: it may well be on another host.
    fn warn_once(&self, error: &Error) {
        if matches!(error, Error::Local(ConnectError::Absent { .. })) {
            return;
        }
        if !std::mem::replace(&mut self.local.lock().warned, true) {
            tracing::warn!(server = %self.endpoint.name, %error, "no local path, going over the network");
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unavailable(error: Error) -> Status {
    Status::unavailable(error.to_string())
}

fn settings(options: &CallOptions) -> CallSettings {
    CallSettings {
        send_compression: options.send_compression,
        accept_compression: options.accept_compression.clone(),
        max_decoding_bytes: options.limits.decoding,
        max_encoding_bytes: options.limits.encoding,
    }
}

fn over_the_network<R>(mut response: Response<R>) -> Response<R> {
    response.extensions_mut().insert(Path::Grpc);
    response
}

impl Caller for Channel {
    async fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<R>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let (metadata, extensions, message) = request.into_parts();
        let mut failed = None;
        for _ in 0..MAX_ATTEMPTS {
            let connection = match self.route().await? {
                Route::Local(connection) => connection,
                Route::Net(net) => {
                    let request = Request::from_parts(metadata, extensions, message);
                    let path = PathAndQuery::from_static(method.path());
                    let answer = ringway_net::unary(net, path, &settings(options), request).await;
                    return answer.map(over_the_network);
                }
            };
            let head = Head::new(&metadata)?;
            let path = Path::over(&connection);
            match client::unary(&connection, path, method, options, &head, &message).await {
                Ok(response) => return Ok(response),
                Err(Failure::Status(status)) => return Err(status),
                Err(Failure::Elsewhere(status)) => failed = Some(status),
            }
            self.forget(&connection);
        }
        Err(failed.unwrap_or_else(|| Status::unavailable("no connection lasted long enough")))
    }

    async fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let (metadata, extensions, message) = request.into_parts();
        let mut failed = None;
        for _ in 0..MAX_ATTEMPTS {
            let connection = match self.route().await? {
                Route::Local(connection) => connection,
                Route::Net(net) => {
                    let request = Request::from_parts(metadata, extensions, message);
                    let path = PathAndQuery::from_static(method.path());
                    let settings = settings(options);
                    let answer = ringway_net::server_streaming(net, path, &settings, request).await;
                    return answer.map(over_the_network);
                }
            };
            let head = Head::new(&metadata)?;
            let path = Path::over(&connection);
            let answer =
                client::server_streaming(&connection, path, method, options, &head, &message).await;
            match answer {
                Ok(response) => return Ok(response),
                Err(Failure::Status(status)) => return Err(status),
                Err(Failure::Elsewhere(status)) => failed = Some(status),
            }
            self.forget(&connection);
        }
        Err(failed.unwrap_or_else(|| Status::unavailable("no connection lasted long enough")))
    }

    async fn client_streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<R>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        match self.route_stream().await? {
            Route::Local(connection) => {
                let (metadata, _, requests) = request.into_parts();
                let head = Head::new(&metadata)?;
                let path = Path::over(&connection);
                client::client_streaming(&connection, path, method, options, &head, requests).await
            }
            Route::Net(net) => {
                let path = PathAndQuery::from_static(method.path());
                let settings = settings(options);
                let answer = ringway_net::client_streaming(net, path, &settings, request).await;
                answer.map(over_the_network)
            }
        }
    }

    async fn streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        match self.route_stream().await? {
            Route::Local(connection) => {
                let (metadata, _, requests) = request.into_parts();
                let head = Head::new(&metadata)?;
                let path = Path::over(&connection);
                client::streaming(&connection, path, method, options, &head, requests).await
            }
            Route::Net(net) => {
                let path = PathAndQuery::from_static(method.path());
                let settings = settings(options);
                let answer = ringway_net::streaming(net, path, &settings, request).await;
                answer.map(over_the_network)
            }
        }
    }
}

impl Channel {
    /// A route for a call whose requests can be read only once, so it can't be sent again: the
    /// connection is asked whether it takes calls before the first request is read.
    pub(crate) async fn route_stream(&mut self) -> Result<Route, Status> {
        for _ in 0..MAX_ATTEMPTS {
            match self.route().await? {
                Route::Local(connection) if !connection.takes_calls() => self.forget(&connection),
                route => return Ok(route),
            }
        }
        Err(Status::unavailable("no connection lasted long enough"))
    }
}
