//! One handler on every path at once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `settings.rs`, `http2.rs` | what is asked of a server |
//! | `bound.rs` | one whose names and addresses are taken, serving |

mod bound;
mod http2;
mod settings;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum_core::response::IntoResponse;
use parking_lot::Mutex;
use ringway_local::{Directory, Listener, LocalConfig, UidPolicy};
use ringway_net::{Handler, ListenAddress, NetServer, ServerOptions};
use ringway_wire::KeepAlive;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::{Service, StdError as BoxError};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::Connected;

pub use self::bound::BoundServer;
use self::bound::stopped;
use crate::answering::Answering;
use crate::bridge;
use crate::endpoint::LocalPolicy;
use crate::error::Error;
use crate::in_context::InContext;
use crate::inproc::Registration;
#[cfg(feature = "introspection")]
use crate::introspection::Introspect;
#[cfg(feature = "introspection")]
use crate::introspection::v1::introspection_server::IntrospectionServer;
use crate::layered::{Layers, TraceFn};
use crate::limit::Limited;
use crate::naming;
use crate::pipe::Pipe;
use crate::probe;
use crate::services::{Services, Spare};
use crate::settings::Settings;
#[cfg(feature = "signal")]
use crate::terminated::terminated;

/// What a server is to serve, and where: on every path at once.
///
/// ```no_run
/// # async fn serve(handler: impl Send) -> Result<(), ringway::Error> {
/// ringway::Server::builder()
///     .name("catalog:50051") // local clients find it by this name
///     // .add_service(CatalogServer::new(handler))
///     .serve(([0, 0, 0, 0], 50051).into()) // all others by this address
///     .await
/// # }
/// ```
///
/// Settings hold in whatever order they are made: one by one they are stronger than the options that
/// come as a whole, and of two for one thing the later holds. Layers alone have an order.
#[derive(Debug, Clone)]
pub struct Server {
    services: Services,
    routes: Routes,
    /// What answers calls for all other services.
    others: Option<Routes>,
    layers: Layers,
    traced: Option<TraceFn>,
    names: Vec<String>,
    addresses: Vec<ListenAddress>,
    /// Shared with clones: the first that is bound has them.
    pipes: Vec<Arc<Mutex<Option<Pipe>>>>,
    directory: Directory,
    local: Settings<LocalConfig>,
    net: Settings<ServerOptions>,
    policy: LocalPolicy,
    peers: Option<UidPolicy>,
    /// What was asked for expressly, and so holds for the local paths as well.
    keepalive_interval: Option<Duration>,
    drain_timeout: Option<Option<Duration>>,
    /// Calls of one connection that are handled at once.
    limit: Option<usize>,
    /// One more is refused, instead of waiting.
    load_shed: bool,
    twice: Option<&'static str>,
}

/// The name that [`Server`] had.
pub type ServerBuilder = Server;

impl Default for Server {
    fn default() -> Self {
        Self {
            services: Services::default(),
            routes: Routes::default(),
            others: None,
            layers: Layers::default(),
            traced: None,
            names: Vec::new(),
            addresses: Vec::new(),
            pipes: Vec::new(),
            directory: Directory::from_environment(),
            local: LocalConfig::default().into(),
            net: ServerOptions::default().into(),
            policy: LocalPolicy::default(),
            peers: None,
            keepalive_interval: None,
            drain_timeout: None,
            limit: None,
            load_shed: false,
            twice: None,
        }
    }
}

/// What is served.
impl Server {
    /// A server of nothing yet.
    pub fn builder() -> Self {
        Self::default()
    }

    /// Serves a service on every path.
    ///
    /// A generated one takes calls without HTTP types on local paths. Any other goes through them, which
    /// adds about two microseconds to a local call: tonic's own (health, reflection), and generated ones
    /// behind an interceptor or a layer. A second service of a name is an error of [`Self::bind`].
    #[must_use]
    pub fn add_service<S>(&self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        let mut with = self.clone();
        if with.services.has(S::NAME) {
            with.twice = Some(S::NAME);
            return with;
        }
        let local = probe::local_service(&service);
        let service = Answering(service);
        match local {
            Some(local) => with.services.add(S::NAME, local),
            None => {
                let service = bridge::HttpService::new(service.clone());
                with.services.add_http(S::NAME, service);
            }
        }
        with.routes = with.routes.add_service(InContext(service));
        with
    }

    /// The same where there is one; a server without services answers `UNIMPLEMENTED`.
    #[must_use]
    pub fn add_optional_service<S>(&self, service: Option<S>) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        match service {
            Some(service) => self.add_service(service),
            None => self.clone(),
        }
    }

    /// Has `routes` answer the calls for all services that were not added by themselves, on every path
    /// and through HTTP types. Of two, the later holds.
    #[must_use]
    pub fn add_routes(&self, routes: Routes) -> Self {
        let mut with = self.clone();
        with.others = Some(routes);
        with
    }

    /// The name that [`Self::add_service`] had for services of tonic's.
    #[deprecated(note = "add_service takes all services")]
    #[must_use]
    pub fn add_tonic_service<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.add_service(service)
    }

    /// Offers the service that `ringway top` asks: this process's connections by path, what they have
    /// done, and how long calls take; the latter is recorded only while somebody watches. Whoever can
    /// call the server can ask it.
    #[cfg(feature = "introspection")]
    #[must_use]
    pub fn introspection(self) -> Self {
        self.add_service(IntrospectionServer::new(Introspect))
    }

    /// Puts a tower layer around all services, on every path. The first one added is the outermost.
    ///
    /// It sees HTTP types, so with a layer every call goes through them: that adds about two
    /// microseconds to one on a local path.
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: tower::Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.layers.add(layer);
        self
    }

    /// Has each call handled in the span that `f` makes of its head, on every path. As with
    /// [`Self::layer`], every call goes through HTTP types then.
    #[must_use]
    pub fn trace_fn<F>(mut self, f: F) -> Self
    where
        F: Fn(&http::Request<()>) -> tracing::Span + Send + Sync + 'static,
    {
        self.traced = Some(TraceFn::by(f));
        self
    }

    /// All services, behind all layers.
    fn handler(&self) -> Handler {
        let own = self.routes.clone().prepare();
        let handler = match &self.others {
            None => Handler::new(own),
            Some(others) => {
                let others = InContext(others.clone().prepare());
                Handler::new(Spare::new(self.services.names(), own, others))
            }
        };
        let handler = self.layers.around(handler);
        match &self.traced {
            Some(traced) => traced.around(handler),
            None => handler,
        }
    }
}

/// Where it is served.
impl Server {
    /// Binds all addresses and names.
    ///
    /// # Errors
    /// Whatever keeps the server from being reached, and what to do about it.
    pub async fn bind(self) -> Result<BoundServer, Error> {
        let pipes = self.take_pipes();
        if self.names.is_empty() && self.addresses.is_empty() && pipes.is_empty() {
            return Err(Error::Unreachable);
        }
        self.bind_all(pipes).await
    }

    async fn bind_all(mut self, pipes: Vec<Pipe>) -> Result<BoundServer, Error> {
        if let Some(name) = self.twice {
            return Err(Error::ServiceTwice(name));
        }
        let local = self.local_settings();
        if !self.layers.is_empty() || self.traced.is_some() {
            self.services.layered = Some(Arc::new(bridge::HttpService::new(self.handler())));
        } else if let Some(others) = &self.others {
            let others = InContext(others.clone().prepare());
            self.services.others = Some(Arc::new(bridge::HttpService::new(others)));
        }
        if let Some(limit) = self.limit {
            let limited = Limited::new(self.services.clone(), limit, self.load_shed);
            self.services.limited = Some(Arc::new(limited));
        }
        let listeners = self.bind_local(&local)?;
        let net = self.bind_net().await?;
        let addresses = net
            .as_ref()
            .map_or_else(Vec::new, |net| net.addresses().to_vec());
        if self.may_serve_locally() {
            naming::tell(&self.names, &addresses);
        }
        let drain_timeout = self.drain_timeout_settled();
        let services = Arc::new(self.services);
        Ok(BoundServer {
            inproc: Registration::new(&self.names, &services, &local),
            services,
            listeners,
            pipes,
            net,
            addresses,
            local,
            drain_timeout,
        })
    }

    fn drain_timeout_settled(&self) -> Option<Duration> {
        self.drain_timeout.unwrap_or(self.net.drain_timeout)
    }

    fn take_pipes(&self) -> Vec<Pipe> {
        let pipes = self.pipes.iter();
        pipes.filter_map(|pipe| pipe.lock().take()).collect()
    }

    /// The settings of the local paths, with what holds for all paths.
    fn local_settings(&self) -> LocalConfig {
        let mut local = self.local.clone_settled();
        if let Some(interval) = self.keepalive_interval {
            local.wire.keepalive = Some(KeepAlive {
                interval,
                timeout: self.net.keepalive_timeout,
                while_idle: true,
            });
        }
        match (&self.policy, &self.peers) {
            (LocalPolicy::Allow(policy), Some(peers)) => local.peers = both(policy, peers),
            (LocalPolicy::Allow(peers), None) | (_, Some(peers)) => local.peers = peers.clone(),
            (LocalPolicy::UnlessTls | LocalPolicy::Never, None) => {}
        }
        local
    }

    /// Whether TLS, or the lack of permission, keeps local clients out.
    fn may_serve_locally(&self) -> bool {
        match self.policy {
            LocalPolicy::Never => false,
            LocalPolicy::Allow(_) => true,
            LocalPolicy::UnlessTls => self.net.tls.is_none(),
        }
    }

    fn bind_local(&self, local: &LocalConfig) -> Result<Vec<Listener>, Error> {
        // Other systems have no path between processes but the network.
        if !self.may_serve_locally() || cfg!(not(target_os = "linux")) {
            return Ok(Vec::new());
        }
        let mut listeners = Vec::new();
        for name in &self.names {
            match Listener::bind(&self.directory, name, &local.peers) {
                Ok(listener) => listeners.push(listener),
                // Reachable all the same: the network path is the answer to a refusal.
                Err(error) if !self.addresses.is_empty() => {
                    tracing::warn!(%name, %error, "no local path, clients come over the network");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(listeners)
    }

    /// One time for all paths, which the bound server keeps.
    fn net_settings(&self) -> ServerOptions {
        ServerOptions {
            drain_timeout: None,
            ..self.net.clone_settled()
        }
    }

    async fn bind_net(&self) -> Result<Option<ringway_net::BoundServer>, Error> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        let server = NetServer::of(self.handler()).options(self.net_settings());
        let addresses = self.addresses.iter().cloned();
        let server = addresses.fold(server, NetServer::listen);
        Ok(Some(server.bind().await?))
    }

    /// Serves the parent that started this process as its [`Child`](crate::Child), until it hangs
    /// up or is gone: the whole `main` of a plugin. To be called early; see [`Pipe::from_parent`].
    ///
    /// ```no_run
    /// # async fn plugin() -> Result<(), ringway::Error> {
    /// ringway::Server::builder()
    ///     // .add_service(GreeterServer::new(handler))
    ///     .serve_pipe()
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pipe::from_parent`], [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn serve_pipe(self) -> Result<(), Error> {
        self.pipe(Pipe::from_parent()?).run().await
    }

    /// Listens at `address` for gRPC, beside what [`Self::listen`] and [`Self::name`] say, and serves for
    /// ever.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn serve(self, address: SocketAddr) -> Result<(), Error> {
        self.serve_with_shutdown(address, pending()).await
    }

    /// The same until `shutdown` is done; then drains.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn serve_with_shutdown(
        mut self,
        address: SocketAddr,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        self.addresses.push(address.into());
        self.run_until(shutdown).await
    }

    /// Serves the connections that `incoming` gives, by gRPC, beside what [`Self::listen`] and
    /// [`Self::name`] say: of a listener that was bound before, or handed over by the service manager.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn serve_with_incoming<I, C, E>(self, incoming: I) -> Result<(), Error>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<BoxError>,
    {
        self.serve_incoming(incoming, None::<std::future::Pending<()>>)
            .await
    }

    /// The same until `shutdown` is done; then drains.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn serve_with_incoming_shutdown<I, C, E, F>(
        self,
        incoming: I,
        shutdown: F,
    ) -> Result<(), Error>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<BoxError>,
        F: Future<Output = ()>,
    {
        self.serve_incoming(incoming, Some(shutdown)).await
    }

    async fn serve_incoming<I, C, E, F>(self, incoming: I, shutdown: Option<F>) -> Result<(), Error>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<BoxError>,
        F: Future<Output = ()>,
    {
        let server = NetServer::of(self.handler()).options(self.net_settings());
        let server = server.incoming()?.outlives_incoming(shutdown.is_none());
        let pipes = self.take_pipes();
        let alone = self.names.is_empty() && self.addresses.is_empty() && pipes.is_empty();
        let bound = self.bind_all(pipes).await?;
        // The stream may end: a server that nothing else leads to is done then.
        let (end, ended) = tokio::sync::oneshot::channel();
        let shutdown = async {
            let asked = async {
                match shutdown {
                    Some(shutdown) => shutdown.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = asked => {}
                Ok(()) = ended, if alone => {}
            }
        };
        let beside = async |stopping| {
            let served = server.serve(incoming, stopped(stopping)).await;
            // The server may be draining, and ask no more.
            let _ = end.send(());
            served
        };
        bound.serve_beside(shutdown, beside).await
    }

    /// Binds, and serves for ever.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(pending()).await
    }

    /// Binds, and serves until `shutdown` is done; then drains.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_with_shutdown`].
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.bind().await?.serve_with_shutdown(shutdown).await
    }

    /// Binds, and serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`BoundServer::serve_until_terminated`].
    #[cfg(feature = "signal")]
    pub async fn serve_until_terminated(self) -> Result<(), Error> {
        // Listened for before there is anything to leave behind.
        let terminated = terminated();
        self.bind().await?.serve_with_shutdown(terminated).await
    }
}

/// The users that both policies let in.
fn both(one: &UidPolicy, other: &UidPolicy) -> UidPolicy {
    match (one, other) {
        (UidPolicy::Anyone, peers) | (peers, UidPolicy::Anyone) => peers.clone(),
        (UidPolicy::Only(uids), peers) | (peers, UidPolicy::Only(uids)) => {
            let uids = uids.iter().copied().filter(|uid| peers.allows(*uid));
            UidPolicy::Only(uids.collect())
        }
        (UidPolicy::SameUser, UidPolicy::SameUser) => UidPolicy::SameUser,
    }
}

#[cfg(test)]
mod tests {
    use ringway_net::tls::ServerTlsConfig;

    use super::*;
    use crate::settings::in_every_order;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each sets one thing of the network path or of the local ones, or all of either.
    const SETTERS: [fn(Server) -> Server; 8] = [
        |server| {
            server.net_options(ServerOptions {
                tls: Some(ServerTlsConfig::new()),
                timeout: Some(9 * SECOND),
                drain_timeout: Some(9 * SECOND),
                stream_window_bytes: 1,
                ..ServerOptions::default()
            })
        },
        |server| {
            server.local_config(LocalConfig {
                peers: UidPolicy::Anyone,
                max_connections: 7,
                handshake_timeout: SECOND,
                ..LocalConfig::default()
            })
        },
        |server| server.timeout(SECOND),
        |server| server.drain_timeout(2 * SECOND),
        |server| server.max_connections(3),
        |server| {
            server
                .http2_keepalive_interval(SECOND)
                .http2_keepalive_timeout(3 * SECOND)
        },
        |server| server.allow_local(LocalPolicy::Allow(UidPolicy::Only([7, 8].into()))),
        |server| server.local_peers(UidPolicy::Only([8, 9].into())),
    ];

    #[test]
    fn setters_hold_in_every_order() {
        in_every_order(&SETTERS, Server::builder, &mut |server, order| {
            let local = server.local_settings();
            assert_eq!(server.net.timeout, Some(SECOND), "{order:?}");
            assert_eq!(local.wire.call_timeout, Some(SECOND), "{order:?}");
            assert_eq!(
                server.drain_timeout_settled(),
                Some(2 * SECOND),
                "{order:?}"
            );
            assert_eq!(server.net.max_connections, Some(3), "{order:?}");
            assert_eq!(local.max_connections, 3, "{order:?}");
            assert_eq!(local.wire.keepalive.map(|ping| ping.interval), Some(SECOND));
            assert_eq!(
                local.wire.keepalive.map(|ping| ping.timeout),
                Some(3 * SECOND)
            );
            // What nothing else sets is as the whole has it.
            assert_eq!(server.net.stream_window_bytes, 1, "{order:?}");
            assert_eq!(local.handshake_timeout, SECOND, "{order:?}");
            // In by either policy is in by none.
            assert_eq!(local.peers, UidPolicy::Only([8].into()), "{order:?}");
        });
    }

    #[cfg(feature = "introspection")]
    #[tokio::test]
    async fn a_second_service_of_a_name_is_an_error() {
        let server = Server::builder().introspection().introspection();
        let error = server.name("catalog:1").bind().await.unwrap_err();
        assert!(matches!(error, Error::ServiceTwice(name) if name.contains("introspection")));
    }

    #[test]
    fn tls_is_lost_in_no_order() {
        let setters: [fn(Server) -> Server; 5] = [
            SETTERS[0],
            |server| server.net_options(ServerOptions::default()),
            SETTERS[1],
            SETTERS[2],
            SETTERS[7],
        ];
        in_every_order(&setters, Server::builder, &mut |server, order| {
            assert!(server.net.tls.is_some(), "{order:?}");
            assert!(!server.may_serve_locally(), "{order:?}");
        });
    }
}
