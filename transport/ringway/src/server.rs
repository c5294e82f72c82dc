//! One handler on every path at once.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ringway_local::{Directory, HandlerPolicy, Listener, LocalConfig, Serve, UidPolicy};
use ringway_net::tls::ServerTlsConfig;
use ringway_net::{Handler, ListenAddress, NetServer, ServerOptions};
use ringway_wire::KeepAlive;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, StdError as BoxError};
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::bridge;
use crate::dispatch::LocalService;
use crate::endpoint::LocalPolicy;
use crate::error::Error;
use crate::in_context::InContext;
use crate::inproc::Registration;
use crate::introspection::Introspect;
use crate::introspection::v1::introspection_server::IntrospectionServer;
use crate::layered::Layers;
use crate::naming;
use crate::pipe::Pipe;
use crate::services::Services;
use crate::terminated::terminated;

/// Serves handlers on every path.
///
/// ```no_run
/// # async fn serve(handler: impl Send) -> Result<(), ringway::Error> {
/// ringway::Server::builder()
///     .name("catalog:50051")          // local clients find it by this name
///     .listen("0.0.0.0:50051")?       // everybody else by this address
///     // .add_service(CatalogServer::new(handler))
///     .serve()
///     .await
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    services: Arc<Services>,
    listeners: Vec<Listener>,
    pipes: Vec<Pipe>,
    net: Option<ringway_net::BoundServer>,
    addresses: Vec<ListenAddress>,
    local: LocalConfig,
    inproc: Registration,
    drain_timeout: Option<Duration>,
}

/// What a server is to serve, and where.
#[derive(Debug)]
pub struct ServerBuilder {
    services: Services,
    routes: Routes,
    layers: Layers,
    names: Vec<String>,
    addresses: Vec<ListenAddress>,
    pipes: Vec<Pipe>,
    directory: Directory,
    local: LocalConfig,
    net: ServerOptions,
    policy: LocalPolicy,
    /// What was asked for expressly, and so holds for the local paths as well.
    keepalive_interval: Option<Duration>,
    drain_timeout: Option<Duration>,
    twice: Option<&'static str>,
}

/// How long calls in flight may go on once a server was told to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// A server of nothing yet.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            services: Services::default(),
            routes: Routes::default(),
            layers: Layers::default(),
            names: Vec::new(),
            addresses: Vec::new(),
            pipes: Vec::new(),
            directory: Directory::from_environment(),
            local: LocalConfig::default(),
            net: ServerOptions::default(),
            policy: LocalPolicy::default(),
            keepalive_interval: None,
            drain_timeout: Some(DRAIN_TIMEOUT),
            twice: None,
        }
    }

    /// The network addresses, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Serves until `shutdown` is done; then drains: names and addresses are given up, clients of
    /// every path are told to go elsewhere, and calls in flight may finish. A server that pipes
    /// alone lead to also ends when all of them have hung up.
    ///
    /// # Errors
    /// [`Error::DrainTimedOut`] if calls were still in flight after
    /// [`ServerBuilder::drain_timeout`]; they were cut off. [`Error::Net`] if an address failed;
    /// [`Error::Local`] if pipes alone lead to it, and the handshake over one failed.
    pub async fn serve_with_shutdown(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (stop, stopping) = watch::channel(false);
        let drain_timeout = self.drain_timeout;
        let serving = self.serve_all(stopping);
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return served,
            () = shutdown => stop.send_replace(true),
        };
        match drain_timeout {
            None => serving.await,
            Some(timeout) => tokio::time::timeout(timeout, serving)
                .await
                .unwrap_or(Err(Error::DrainTimedOut { timeout })),
        }
    }

    /// Serves on every path until `stopping` says so, and drains.
    async fn serve_all(self, stopping: watch::Receiver<bool>) -> Result<(), Error> {
        let by_pipes_alone = self.inproc.names.is_empty() && self.net.is_none();
        let mut local = tokio::task::JoinSet::new();
        if !by_pipes_alone {
            local.spawn(self.inproc.serve(stopped(stopping.clone())));
        }
        for listener in self.listeners {
            let service: Arc<dyn Serve> = Arc::clone(&self.services) as _;
            local.spawn(listener.serve(service, self.local.clone(), stopped(stopping.clone())));
        }
        let pipes = serve_pipes(self.pipes, self.services, self.local, stopping.clone());
        let net = async {
            match self.net {
                Some(net) => net.serve(stopped(stopping)).await,
                None => Ok(()),
            }
        };
        let (first_failure, served) = tokio::join!(pipes, net);
        while local.join_next().await.is_some() {}
        match first_failure {
            Some(error) if by_pipes_alone => Err(error),
            _ => Ok(served?),
        }
    }

    /// Serves until the process is asked to end, by SIGTERM or SIGINT; then drains as
    /// [`Self::serve_with_shutdown`] does. Orchestrators send SIGTERM and kill some time later:
    /// keep [`ServerBuilder::drain_timeout`] below that (Kubernetes: 30 s, Docker: 10 s).
    ///
    /// # Errors
    /// As [`Self::serve_with_shutdown`].
    pub async fn serve_until_terminated(self) -> Result<(), Error> {
        self.serve_with_shutdown(terminated()).await
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// As [`Self::serve_with_shutdown`].
    pub async fn serve(self) -> Result<(), Error> {
        self.serve_with_shutdown(pending()).await
    }
}

/// Serves all of `pipes` to their ends; the first failure.
async fn serve_pipes(
    pipes: Vec<Pipe>,
    services: Arc<Services>,
    config: LocalConfig,
    stopping: watch::Receiver<bool>,
) -> Option<Error> {
    let serving = pipes.into_iter().map(async |pipe| {
        let services: Arc<dyn Serve> = Arc::clone(&services) as _;
        let stopped = stopped(stopping.clone());
        let served = ringway_local::serve_pipe(pipe.0, services, &config, stopped).await;
        if let Err(error) = &served {
            tracing::warn!(%error, "a pipe led to no client");
        }
        served.err()
    });
    let ended = join_all(serving).await;
    ended.into_iter().flatten().next().map(Error::from)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender lives as long as the server does.
    let _ = stopping.wait_for(|stop| *stop).await;
}

impl ServerBuilder {
    /// A name by which local clients find the server: what they would dial, `host:port`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Listens on a network address (`host:port`) or a Unix socket (`unix:/path`), for gRPC.
    ///
    /// # Errors
    /// If `address` is none.
    pub fn listen(mut self, address: &str) -> Result<Self, Error> {
        self.addresses.push(address.parse()?);
        Ok(self)
    }

    /// Serves the client at the other end of `pipe` as well.
    #[must_use]
    pub fn pipe(mut self, pipe: Pipe) -> Self {
        self.pipes.push(pipe);
        self
    }

    /// Where local clients find it, in place of what the environment says.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Directory::at(directory);
        self
    }

    /// TLS for the network addresses. The server is found by no local client then, unless
    /// [`Self::allow_local`] says so.
    #[must_use]
    pub fn tls_config(mut self, tls: ServerTlsConfig) -> Self {
        self.net.tls = Some(tls);
        self
    }

    /// Says whether local clients may skip TLS, and which.
    #[must_use]
    pub fn allow_local(mut self, policy: LocalPolicy) -> Self {
        if let LocalPolicy::Allow(peers) = &policy {
            self.local.peers = peers.clone();
        }
        self.policy = policy;
        self
    }

    /// Which users' clients are let in on the local paths. gRPC over a Unix socket is none of them: it is open to
    /// whoever may open the socket's file.
    #[must_use]
    pub fn local_peers(mut self, peers: UidPolicy) -> Self {
        self.local.peers = peers;
        self
    }

    /// Has `request.extensions()` say who calls on the local paths as well: tonic's
    /// [`UdsConnectInfo`](tonic::transport::server::UdsConnectInfo), as over gRPC on a Unix socket, where
    /// shared memory or a socket leads to the client. That costs each call two allocations, so it is
    /// off unless asked for; [`Context::peer`](crate::Context::peer) costs nothing. Requests of HTTP
    /// types, behind [`Self::layer`] or [`Self::add_tonic_service`], always have it.
    #[must_use]
    pub fn connect_info(mut self, connect_info: bool) -> Self {
        self.services.connect_info = connect_info;
        self
    }

    /// The longest that a call may take, whatever its client allows. Set it after
    /// [`Self::local_config`] and [`Self::net_options`], which replace it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.local.wire.call_timeout = Some(timeout);
        self.net.timeout = Some(timeout);
        self
    }

    /// Where handlers run on local paths. By default quick ones are polled where their request was read, and all
    /// others run as tasks, learnt a method at a time.
    #[must_use]
    pub fn handler_policy(mut self, policy: HandlerPolicy) -> Self {
        self.services.policies.default = policy;
        self
    }

    /// Where the handlers of one method run, named by its path (`/package.Service/Method`); takes precedence
    /// over [`Self::handler_policy`].
    #[must_use]
    pub fn handler_policy_of(mut self, path: impl Into<String>, policy: HandlerPolicy) -> Self {
        self.services
            .policies
            .of_methods
            .insert(path.into(), policy);
        self
    }

    /// Settings of the local paths.
    #[must_use]
    pub fn local_config(mut self, config: LocalConfig) -> Self {
        self.local = config;
        self
    }

    /// Settings of the network path.
    #[must_use]
    pub fn net_options(mut self, options: ServerOptions) -> Self {
        self.drain_timeout = options.drain_timeout;
        self.net = ServerOptions {
            tls: self.net.tls.take().or(options.tls.clone()),
            ..options
        };
        self
    }

    /// Pings clients that say nothing for so long, on every path, and gives up those that do not
    /// answer: a process that is stopped, or a host that is cut off. Default: 20 s on the network
    /// path, and not at all on the local ones, where the end of a process is noticed at once.
    #[must_use]
    pub fn http2_keepalive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keepalive_interval = interval.into();
        self.net.keepalive_interval = self.keepalive_interval;
        self
    }

    /// How long a client's answer to a ping may take. Default: 10 s.
    #[must_use]
    pub fn http2_keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.net.keepalive_timeout = timeout;
        self
    }

    /// Handles so many calls of one connection at once; one more ends `RESOURCE_EXHAUSTED`, as with
    /// tonic's `load_shed`. A call counts until it is over on a local path, and until its response
    /// begins on the network path. Default: 16,384 on a local path, and as many as there are
    /// streams on the network path.
    #[must_use]
    pub fn concurrency_limit_per_connection(mut self, limit: usize) -> Self {
        self.local.wire.max_concurrent_calls = limit.try_into().unwrap_or(u32::MAX);
        self.net.max_concurrent_calls = Some(limit);
        self
    }

    /// Streams that a client may have open on a network connection; beyond them it waits. Default: no
    /// limit.
    #[must_use]
    pub fn max_concurrent_streams(mut self, limit: impl Into<Option<u32>>) -> Self {
        self.net.max_concurrent_streams = limit.into();
        self
    }

    /// Connections held at once: for each name on the local paths, and over all addresses on the
    /// network path. Further clients are turned away, and find it `UNAVAILABLE`. Default: 4,096 on the
    /// local paths, no limit on the network path.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.local.max_connections = limit;
        self.net.max_connections = Some(limit);
        self
    }

    /// The same for each user on the local paths and, over all of them, on Unix sockets for gRPC, so that
    /// one who floods the server takes no other's place. Default: 2,048 on the local paths, no limit on
    /// Unix sockets.
    #[must_use]
    pub fn max_connections_per_uid(mut self, limit: usize) -> Self {
        self.local.max_connections_per_uid = limit;
        self.net.max_connections_per_uid = Some(limit);
        self
    }

    /// How long calls in flight may go on once the server was told to end, on every path; then they
    /// are cut off. `None` is for ever. Default: 30 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.drain_timeout = timeout.into();
        self
    }

    /// Serves a generated service on every path.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: LocalService
            + NamedService
            + Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.note_twice::<S>();
        self.routes = self.routes.add_service(InContext(service.clone()));
        self.services.add(Arc::new(service));
        self
    }

    /// Offers the service that `ringway top` asks: this process's connections by path, what they have
    /// done, and how long calls take; the latter is recorded only while somebody watches. Whoever can
    /// call the server can ask it.
    #[must_use]
    pub fn introspection(self) -> Self {
        self.add_service(IntrospectionServer::new(Introspect))
    }

    /// Serves any tonic service on every path, through HTTP types also on the local ones: health,
    /// reflection, stubs of tonic's own, services behind an interceptor or a layer.
    #[must_use]
    pub fn add_tonic_service<S, B>(mut self, service: S) -> Self
    where
        S: NamedService
            + Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.note_twice::<S>();
        self.services
            .add_http(S::NAME, bridge::HttpService::new(service.clone()));
        self.routes = self.routes.add_service(InContext(service));
        self
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

    /// All services, behind all layers.
    fn handler(&self) -> Handler {
        self.layers
            .around(Handler::new(self.routes.clone().prepare()))
    }

    fn note_twice<S: NamedService>(&mut self) {
        if self.services.has(S::NAME) {
            self.twice = Some(S::NAME);
        }
    }

    /// Binds all addresses and names.
    ///
    /// # Errors
    /// Whatever keeps the server from being reached, and what to do about it.
    pub async fn bind(mut self) -> Result<Server, Error> {
        if let Some(interval) = self.keepalive_interval {
            self.local.wire.keepalive = Some(KeepAlive {
                interval,
                timeout: self.net.keepalive_timeout,
                while_idle: true,
            });
        }
        if !self.layers.is_empty() {
            self.services.layered = Some(bridge::HttpService::new(self.handler()));
        }
        if let Some(name) = self.twice {
            return Err(Error::ServiceTwice(name));
        }
        if self.names.is_empty() && self.addresses.is_empty() && self.pipes.is_empty() {
            return Err(Error::Unreachable);
        }
        let listeners = self.bind_local()?;
        let net = self.bind_net().await?;
        let addresses = net
            .as_ref()
            .map_or_else(Vec::new, |net| net.addresses().to_vec());
        if self.serves_locally() {
            naming::tell(&self.names, &addresses);
        }
        let services = Arc::new(self.services);
        Ok(Server {
            inproc: Registration::new(&self.names, &services, &self.local),
            services,
            listeners,
            pipes: self.pipes,
            net,
            addresses,
            local: self.local,
            drain_timeout: self.drain_timeout,
        })
    }

    fn serves_locally(&self) -> bool {
        match self.policy {
            LocalPolicy::Never => false,
            LocalPolicy::Allow(_) => true,
            LocalPolicy::UnlessTls => self.net.tls.is_none(),
        }
    }

    fn bind_local(&self) -> Result<Vec<Listener>, Error> {
        if !self.serves_locally() {
            return Ok(Vec::new());
        }
        let mut listeners = Vec::new();
        for name in &self.names {
            match Listener::bind(&self.directory, name, &self.local.peers) {
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

    async fn bind_net(&self) -> Result<Option<ringway_net::BoundServer>, Error> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        // One time for all paths, which this server keeps.
        let options = ServerOptions {
            drain_timeout: None,
            ..self.net.clone()
        };
        let server = NetServer::of(self.handler()).options(options);
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
    /// As [`Pipe::from_parent`], [`Self::bind`] and [`Server::serve_with_shutdown`].
    pub async fn serve_pipe(self) -> Result<(), Error> {
        self.pipe(Pipe::from_parent()?).serve().await
    }

    /// Binds, and serves until `shutdown` is done.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`Server::serve_with_shutdown`].
    pub async fn serve_with_shutdown(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        self.bind().await?.serve_with_shutdown(shutdown).await
    }

    /// Binds, and serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`Server::serve_until_terminated`].
    pub async fn serve_until_terminated(self) -> Result<(), Error> {
        // Listened for before there is anything to leave behind.
        let terminated = terminated();
        self.bind().await?.serve_with_shutdown(terminated).await
    }

    /// Binds, and serves for ever.
    ///
    /// # Errors
    /// As [`Self::bind`] and [`Server::serve_with_shutdown`].
    pub async fn serve(self) -> Result<(), Error> {
        self.serve_with_shutdown(pending()).await
    }
}
