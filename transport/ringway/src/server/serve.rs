//! Where a server is served: its names, addresses and pipes, and the connections that are handed to it.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ringway_local::{Listener, LocalConfig, UidPolicy};
use ringway_net::{NetServer, ServerOptions};
use ringway_wire::KeepAlive;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::codegen::StdError as BoxError;
use tonic::transport::server::Connected;

use super::Server;
use super::bound::{BoundServer, stopped};
use crate::bridge;
use crate::endpoint::LocalPolicy;
use crate::error::Error;
use crate::in_context::InContext;
use crate::inproc::Registration;
use crate::limit::Limited;
use crate::naming;
use crate::pipe::Pipe;
use crate::stats;
#[cfg(feature = "signal")]
use crate::terminated::terminated;

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

    /// Boxed here, so that this crate holds its machine code, and not once more each program that binds a server.
    fn bind_all(self, pipes: Vec<Pipe>) -> BoxFuture<'static, Result<BoundServer, Error>> {
        Box::pin(self.bind_everything(pipes))
    }

    async fn bind_everything(mut self, pipes: Vec<Pipe>) -> Result<BoundServer, Error> {
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
        let net = self.bind_net().await?;
        let addresses = net
            .as_ref()
            .map_or_else(Vec::new, |net| net.addresses().to_vec());
        // The port of a name may be one that the kernel has just chosen.
        self.names = naming::settled(&self.names, self.name_from_listen, &addresses)?;
        let listeners = self.bind_local(&local)?;
        if self.may_serve_locally() {
            naming::tell(&self.names, &addresses);
        }
        let drain_timeout = self.drain_timeout_settled();
        let services = Arc::new(self.services);
        stats::add_server(&services);
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

    pub(super) fn drain_timeout_settled(&self) -> Option<Duration> {
        self.drain_timeout.unwrap_or(self.net.drain_timeout)
    }

    fn take_pipes(&self) -> Vec<Pipe> {
        let pipes = self.pipes.iter();
        pipes.filter_map(|pipe| pipe.lock().take()).collect()
    }

    /// The settings of the local paths, with what holds for all paths.
    pub(super) fn local_settings(&self) -> LocalConfig {
        let mut local = self.local.clone_settled();
        if let Some(interval) = self.keepalive_interval {
            local.wire.keepalive = Some(KeepAlive {
                interval,
                timeout: self.net.keepalive_timeout,
                while_idle: true,
            });
        }
        if self.limit.is_some() {
            local.lets_clients_hold_several = false;
        }
        match (&self.policy, &self.peers) {
            (LocalPolicy::Allow(policy), Some(peers)) => local.peers = both(policy, peers),
            (LocalPolicy::Allow(peers), None) | (_, Some(peers)) => local.peers = peers.clone(),
            (LocalPolicy::UnlessTls | LocalPolicy::Never, None) => {}
        }
        local
    }

    /// Whether TLS, or the lack of permission, keeps local clients out.
    pub(super) fn may_serve_locally(&self) -> bool {
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
