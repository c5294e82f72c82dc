//! A server on several addresses at once, with the settings that suit tonic best.

use std::{convert::Infallible, future::Future, pin::Pin, time::Duration};

use futures_util::future::ready;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
};
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::Connected},
};
use tower::util::BoxCloneSyncService;

#[cfg(feature = "_tls-any")]
use crate::listen::tcp_connections;
use crate::{
    CONNECTION_WINDOW_BYTES, Error, ListenAddress, STREAM_WINDOW_BYTES, ServerTuning,
    guard::Served,
    header_list::HTTP2_MAX_HEADER_LIST_BYTES,
    held::{Hold, Register},
    listen::{Listener, TcpSettings, connections},
    tls::{self, ServerTlsConfig},
};

/// How a server serves.
///
/// ```
/// let mut options = ringway_net::ServerOptions::default();
/// options.max_concurrent_streams = Some(100);
/// ```
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// HTTP/2 window of each stream. Default: 4 MiB.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of each connection. Default: 8 MiB.
    pub connection_window_bytes: u32,
    /// The largest HTTP/2 frame the peer may send; `None` leaves it to h2 (16 KiB).
    pub max_frame_bytes: Option<u32>,
    /// Calls in flight on one connection, beyond which its client waits; `None` is no limit. Default:
    /// `None`, as tonic's: streams that stay open would shut out every other call of their connection.
    pub max_concurrent_streams: Option<u32>,
    /// Calls that are handled at once on one connection, until their response begins; one more waits, or
    /// ends `RESOURCE_EXHAUSTED` with [`ServerTuning::load_shed`]. `None` is no limit but that of the
    /// streams. Default: `None`.
    pub max_concurrent_calls: Option<usize>,
    /// Connections held at once, over all addresses; further ones are closed. Never more than three quarters of
    /// the descriptors that the process may have. Default: those.
    pub max_connections: Option<usize>,
    /// The same for each user, over Unix sockets, which tell who that is. Default: no limit.
    pub max_connections_per_uid: Option<usize>,
    /// `TCP_NODELAY`. Default: on.
    pub tcp_nodelay: bool,
    /// Interval of HTTP/2 pings; `None` sends none. Default: 20 s.
    pub keepalive_interval: Option<Duration>,
    /// How long an answer to a ping may take. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// The longest that a call may take, whatever its caller allows; `None` leaves it to the caller.
    pub timeout: Option<Duration>,
    /// How long calls may go on after shutdown began; `None` is for ever. Default: 30 s.
    pub drain_timeout: Option<Duration>,
    /// TLS for the TCP addresses.
    pub tls: Option<ServerTlsConfig>,
    /// Whether a server with TLS may also listen on Unix sockets, which go without. Default: no.
    pub plain_unix: bool,
    /// What tonic has beside.
    pub tuning: ServerTuning,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            max_frame_bytes: None,
            max_concurrent_streams: None,
            max_concurrent_calls: None,
            max_connections: None,
            max_connections_per_uid: None,
            tcp_nodelay: true,
            keepalive_interval: Some(Duration::from_secs(20)),
            keepalive_timeout: Duration::from_secs(10),
            timeout: None,
            drain_timeout: Some(Duration::from_secs(30)),
            tls: None,
            plain_unix: false,
            tuning: ServerTuning::default(),
        }
    }
}

/// What answers calls.
pub type Handler = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// tonic's routes on any number of TCP addresses and Unix sockets.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringway_net::Error> {
/// use ringway_net::{ListenAddress, NetServer};
/// use tonic::service::Routes;
///
/// let server = NetServer::new(Routes::default())
///     .listen("127.0.0.1:0".parse()?)
///     .bind()
///     .await?;
/// assert!(matches!(server.addresses(), [ListenAddress::Tcp(bound)] if bound.port() != 0));
///
/// server.serve(async { /* returns when it is time to stop */ }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NetServer {
    handler: Handler,
    options: ServerOptions,
    addresses: Vec<ListenAddress>,
}

impl NetServer {
    /// A server of these routes, with the default options, listening nowhere yet.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self::of(Handler::new(routes.prepare()))
    }

    /// The same of anything that answers calls, such as routes behind layers.
    #[must_use]
    pub fn of(handler: Handler) -> Self {
        Self {
            handler,
            options: ServerOptions::default(),
            addresses: Vec::new(),
        }
    }

    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn listen(mut self, address: ListenAddress) -> Self {
        self.addresses.push(address);
        self
    }

    /// Binds every address, or none.
    ///
    /// # Errors
    /// When an address can't be had, or the TLS configuration can't be used or would be bypassed.
    pub async fn bind(self) -> Result<BoundServer, Error> {
        if self.addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        self.refuse_plain_unix()?;
        let plain = tuned_server(&self.options);
        #[cfg(feature = "_tls-any")]
        let tcp = with_tls(plain.clone(), &self.options)?;
        let (listeners, addresses) = bind_all(&self.addresses).await?;
        Ok(BoundServer {
            handler: self.handler,
            options: self.options,
            #[cfg(feature = "_tls-any")]
            tcp,
            plain,
            listeners,
            addresses,
        })
    }

    /// A server of connections that are handed to it, by another way than an address.
    ///
    /// # Errors
    /// The TLS configuration can't be used.
    pub fn incoming(self) -> Result<IncomingServer, Error> {
        let server = with_tls(tuned_server(&self.options), &self.options)?;
        Ok(IncomingServer {
            server,
            handler: self.handler,
            options: self.options,
            outlives_incoming: false,
        })
    }

    fn refuse_plain_unix(&self) -> Result<(), Error> {
        if self.options.tls.is_none() || self.options.plain_unix {
            return Ok(());
        }
        self.addresses.iter().try_for_each(|address| match address {
            ListenAddress::Tcp(_) => Ok(()),
            ListenAddress::Unix(path) => Err(Error::UnixWithoutTls { path: path.clone() }),
        })
    }
}

/// A server whose addresses are bound: clients may connect, and are answered once it serves.
#[derive(Debug)]
pub struct BoundServer {
    handler: Handler,
    options: ServerOptions,
    #[cfg(feature = "_tls-any")]
    tcp: Server,
    plain: Server,
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddress>,
}

impl BoundServer {
    /// The addresses in the order in which they were added, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Serves until `shutdown` completes, then stops accepting and lets the calls in flight finish.
    /// Dropped, it cuts every connection off.
    ///
    /// # Errors
    /// When calls are still in flight after [`ServerOptions::drain_timeout`]: they are cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let drain_timeout = self.options.drain_timeout;
        let (stop, stopping) = watch::channel(false);
        // Dropped last: what is still connected when this returns, or is dropped, is cut off.
        let hold = Hold::new(
            Some(max_connections(self.options.max_connections)),
            self.options.max_connections_per_uid,
        );
        let mut serving = self.spawn(&stopping, &hold.register());
        tokio::select! {
            () = shutdown => {}
            Some(ended) = serving.join_next() => flatten(ended)?,
        }
        stop.send_replace(true);
        match drain_timeout {
            None => drain(&mut serving).await,
            Some(timeout) => tokio::time::timeout(timeout, drain(&mut serving))
                .await
                .unwrap_or(Err(Error::DrainTimedOut { timeout })),
        }
    }

    /// One task an address.
    fn spawn(
        self,
        stopping: &watch::Receiver<bool>,
        register: &Register,
    ) -> JoinSet<Result<(), Error>> {
        let mut serving = JoinSet::new();
        let settings = TcpSettings {
            nodelay: self.options.tcp_nodelay,
            keepalive: self.options.tuning.tcp_keepalive,
        };
        for (listener, address) in self.listeners.into_iter().zip(self.addresses) {
            let served = Address {
                address,
                routes: Served::new(self.handler.clone(), self.options.timeout),
                stopping: stopping.clone(),
            };
            let register = register.clone();
            let task: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = match listener {
                #[cfg(feature = "_tls-any")]
                Listener::Tcp(tcp) if self.options.tls.is_some() => {
                    let connections = tcp_connections(tcp, settings, register);
                    Box::pin(served.serve(self.tcp.clone(), connections))
                }
                listener => {
                    let connections = connections(listener, settings, register);
                    Box::pin(served.serve(self.plain.clone(), connections))
                }
            };
            serving.spawn(task);
        }
        serving
    }
}

/// A server of connections that are handed to it.
#[derive(Debug)]
pub struct IncomingServer {
    server: Server,
    handler: Handler,
    options: ServerOptions,
    outlives_incoming: bool,
}

impl IncomingServer {
    /// Has connections stay when the stream of them has ended, and the server with them. tonic does so where it is
    /// given no signal to shut down: a test's one connection is a whole stream.
    #[must_use]
    pub fn outlives_incoming(mut self, stays: bool) -> Self {
        self.outlives_incoming = stays;
        self
    }

    /// Serves them until `shutdown` completes, or the stream ends; then lets the calls in flight finish.
    /// Dropped, it cuts every connection off.
    ///
    /// # Errors
    /// A connection that the stream failed to give.
    pub async fn serve<I, C, E>(
        self,
        incoming: I,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let hold = Hold::new(
            Some(max_connections(self.options.max_connections)),
            self.options.max_connections_per_uid,
        );
        let (register, gone) = hold.register_until_gone();
        let held = incoming.filter_map(move |connection| {
            ready(match connection {
                Ok(connection) => register.hold(connection, None).map(Ok),
                Err(error) => Some(Err(error)),
            })
        });
        let last = async move {
            if self.outlives_incoming {
                gone.await;
            }
        };
        let held = held.chain(stream::once(last).filter_map(|()| ready(None)));
        let routes = Served::new(self.handler, self.options.timeout);
        self.server
            .serve_with_incoming_shutdown(routes, held, shutdown)
            .await
            .map_err(|source| Error::ServeIncoming { source })
    }
}

/// As many connections as were set, or as there are descriptors for, but for a quarter: at their end a process
/// fails wherever it asks for the next one.
fn max_connections(set: Option<usize>) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let usable = descriptors.map_or(u64::MAX, |descriptors| descriptors - descriptors / 4);
    let usable = usize::try_from(usable).unwrap_or(usize::MAX);
    set.map_or(usable, |set| set.min(usable))
        .clamp(1, tokio::sync::Semaphore::MAX_PERMITS)
}

async fn bind_all(wanted: &[ListenAddress]) -> Result<(Vec<Listener>, Vec<ListenAddress>), Error> {
    let mut listeners = Vec::with_capacity(wanted.len());
    let mut addresses = Vec::with_capacity(wanted.len());
    for address in wanted {
        let listener = Listener::bind(address).await?;
        let bound = listener.address().map_err(|source| Error::Bind {
            address: address.clone(),
            source,
        })?;
        listeners.push(listener);
        addresses.push(bound);
    }
    Ok((listeners, addresses))
}

fn with_tls(server: Server, options: &ServerOptions) -> Result<Server, Error> {
    match &options.tls {
        None => Ok(server),
        Some(tls) => tls::server(server, tls).map_err(|source| Error::ServerTls { source }),
    }
}

fn tuned_server(options: &ServerOptions) -> Server {
    let server = Server::builder()
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.max_frame_bytes)
        .http2_max_header_list_size(HTTP2_MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(options.max_concurrent_streams)
        .http2_keepalive_interval(options.keepalive_interval)
        .http2_keepalive_timeout(Some(options.keepalive_timeout));
    let server = options.tuning.apply(server);
    match options.max_concurrent_calls {
        Some(limit) => server.concurrency_limit_per_connection(limit),
        None => server,
    }
}

/// One of a server's addresses.
struct Address {
    address: ListenAddress,
    routes: Served<Handler>,
    stopping: watch::Receiver<bool>,
}

impl Address {
    /// Serves `connections` until it is time to stop, and lets their calls finish.
    async fn serve<C, E>(
        mut self,
        server: Server,
        connections: impl Stream<Item = Result<C, E>> + Send,
    ) -> Result<(), Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // An error means that the sender is gone, and with it the task that wanted the server.
        let stopped = async move { drop(self.stopping.wait_for(|stop| *stop).await) };
        server
            .serve_with_incoming_shutdown(self.routes, connections, stopped)
            .await
            .map_err(|source| Error::Serve {
                address: self.address,
                source,
            })
    }
}

async fn drain(serving: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    while let Some(ended) = serving.join_next().await {
        flatten(ended)?;
    }
    Ok(())
}

/// A panic while serving is a bug of ours or of tonic's: it goes on in whoever waits.
fn flatten(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_cancelled) => Ok(()),
    }
}
