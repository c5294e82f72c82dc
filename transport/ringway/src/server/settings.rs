//! What is asked of a server on every path.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_local::{Directory, HandlerPolicy, LocalConfig, UidPolicy, WaitPolicy};
use ringway_net::ServerOptions;
use ringway_net::tls::{self, ServerTlsConfig};

use super::Server;
use crate::endpoint::LocalPolicy;
use crate::error::Error;
use crate::pipe::Pipe;

/// What is asked of it.
impl Server {
    /// A name by which local clients find the server: what they would dial, `host:port`. Port 0 is the one that
    /// [`Self::listen`] has bound, of several addresses the first.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Names the server as clients of this host dial its TCP addresses: one that listens on `0.0.0.0:50051`
    /// is `localhost:50051` and `127.0.0.1:50051`, beside the names that [`Self::name`] gives.
    #[must_use]
    pub fn name_from_listen(mut self) -> Self {
        self.name_from_listen = true;
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
        self.pipes.push(Arc::new(Mutex::new(Some(pipe))));
        self
    }

    /// Where local clients find it, in place of what the environment says.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Directory::at(directory);
        self
    }

    /// TLS for the network addresses. The server is found by no local client then, unless
    /// [`Self::allow_local`] says so. No other setting takes it back.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub fn tls_config(mut self, tls: ServerTlsConfig) -> Result<Self, Error> {
        tls::server(tonic::transport::Server::builder(), &tls)
            .map_err(|source| ringway_net::Error::ServerTls { source })?;
        let tls = Some(tls);
        self.net.ask(move |net| net.tls.clone_from(&tls));
        Ok(self)
    }

    /// Says whether local clients may skip TLS, and which.
    #[must_use]
    pub fn allow_local(mut self, policy: LocalPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Which users' clients are let in on the local paths; with [`Self::allow_local`], those that both let
    /// in. gRPC over a Unix socket is no local path: it is open to whoever may open the socket's file.
    #[must_use]
    pub fn local_peers(mut self, peers: UidPolicy) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Has requests on the local paths say of their clients what they say over HTTP: `request.extensions()` has
    /// tonic's [`UdsConnectInfo`](tonic::transport::server::UdsConnectInfo), as over gRPC on a Unix socket, where
    /// shared memory or a socket leads to the client; the metadata has `user-agent` and, of a call that belongs to
    /// a trace, `traceparent`. That costs each call some allocations, so it is off unless asked for;
    /// [`Context::peer`](crate::Context::peer) costs nothing. Requests of HTTP types, behind [`Self::layer`] or
    /// of services that are not generated ones, always have all of it.
    #[must_use]
    pub fn connect_info(mut self, connect_info: bool) -> Self {
        self.services.connect_info = connect_info;
        self
    }

    /// The longest that a call may take, whatever its client allows.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.local
            .ask(move |local| local.wire.call_timeout = Some(timeout));
        self.net.ask(move |net| net.timeout = Some(timeout));
        self
    }

    /// How the server waits for local clients: polls, parks, or learns which pays. Default: what `RINGWAY_WAIT`
    /// says (`adaptive`, `park`, `spin:20us`), else adaptive.
    #[must_use]
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.local.ask(move |local| local.wait_policy = policy);
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
    ///
    /// ```
    /// use ringway::{HandlerPolicy, Server};
    ///
    /// let server = Server::builder()
    ///     .name("catalog:50051")
    ///     // It computes: other calls are not to wait behind it.
    ///     .handler_policy_of("/shop.v1.Catalog/Search", HandlerPolicy::Spawn);
    /// ```
    #[must_use]
    pub fn handler_policy_of(mut self, path: impl Into<String>, policy: HandlerPolicy) -> Self {
        self.services
            .policies
            .of_methods
            .insert(path.into(), policy);
        self
    }

    /// Settings of the local paths as a whole; those that were made one by one are stronger.
    #[must_use]
    pub fn local_config(mut self, config: LocalConfig) -> Self {
        self.local.replace(config);
        self
    }

    /// Settings of the network path as a whole; those that were made one by one are stronger. Options
    /// without TLS take none away.
    #[must_use]
    pub fn net_options(mut self, mut options: ServerOptions) -> Self {
        options.tls = options.tls.or_else(|| self.net.tls.clone());
        self.net.replace(options);
        self
    }

    /// Pings clients that say nothing for so long, on every path, and gives up those that do not
    /// answer: a process that is stopped, or a host that is cut off. Default: 20 s on the network
    /// path, and not at all on the local ones, where the end of a process is noticed at once.
    #[must_use]
    pub fn http2_keepalive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        self.keepalive_interval = interval;
        self.net.ask(move |net| net.keepalive_interval = interval);
        self
    }

    /// How long a client's answer to a ping may take; `None` changes nothing. Default: 10 s.
    #[must_use]
    pub fn http2_keepalive_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        if let Some(timeout) = timeout.into() {
            self.net.ask(move |net| net.keepalive_timeout = timeout);
        }
        self
    }

    /// Handles so many calls of one connection at once, on every path; a call counts until its response
    /// begins. One more waits, with its deadline running, or ends `RESOURCE_EXHAUSTED` with
    /// [`Self::load_shed`]. Default: no limit but 16,384 calls of a local connection, beyond which each
    /// ends `RESOURCE_EXHAUSTED`.
    #[must_use]
    pub fn concurrency_limit_per_connection(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self.net
            .ask(move |net| net.max_concurrent_calls = Some(limit));
        self
    }

    /// Whether a call above [`Self::concurrency_limit_per_connection`] ends `RESOURCE_EXHAUSTED`, instead
    /// of waiting. Default: no.
    #[must_use]
    pub fn load_shed(mut self, load_shed: bool) -> Self {
        self.load_shed = load_shed;
        self.net.ask(move |net| net.tuning.load_shed = load_shed);
        self
    }

    /// Connections held at once: for each name on the local paths, and over all addresses on the
    /// network path. Further clients are turned away, and find it `UNAVAILABLE`. Default: 4,096 on the
    /// local paths, no limit on the network path.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.local.ask(move |local| local.max_connections = limit);
        self.net.ask(move |net| net.max_connections = Some(limit));
        self
    }

    /// The same for each user on the local paths and, over all of them, on Unix sockets for gRPC, so that
    /// one who floods the server takes no other's place. Default: 2,048 on the local paths, no limit on
    /// Unix sockets.
    #[must_use]
    pub fn max_connections_per_uid(mut self, limit: usize) -> Self {
        self.local
            .ask(move |local| local.max_connections_per_uid = limit);
        self.net
            .ask(move |net| net.max_connections_per_uid = Some(limit));
        self
    }

    /// Bytes that the clients of each user may take up on the local paths, in all of their connections: shared memory
    /// that this process makes for them and they have not given back, and messages of theirs that nobody has read.
    /// Calls that need more end `RESOURCE_EXHAUSTED`, new connections take a socket. Default, and at most: half of the memory that the
    /// process may use, a quarter where other users are let in.
    #[must_use]
    pub fn max_memory_per_uid(mut self, bytes: usize) -> Self {
        self.local
            .ask(move |local| local.max_memory_per_uid = bytes);
        self
    }

    /// How long calls in flight may go on once the server was told to end, on every path; then they
    /// are cut off. `None` is for ever. Default: 30 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.drain_timeout = Some(timeout.into());
        self
    }
}
