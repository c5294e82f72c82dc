//! A server whose names and addresses are taken.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ringway_local::{Listener, LocalConfig, Serve};
use ringway_net::{ListenAddress, Task};
use tokio::sync::watch;

use crate::error::Error;
use crate::inproc::Registration;
use crate::pipe::Pipe;
use crate::services::Services;
#[cfg(feature = "signal")]
use crate::terminated::terminated;

/// A server whose names and addresses are taken: clients may connect, and are answered once it serves.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), ringway::Error> {
/// let server = ringway::Server::builder()
///     .listen("127.0.0.1:0")? // a port that the kernel chooses
///     .bind()
///     .await?;
/// println!("listens on {}", server.addresses()[0]);
/// // Ends at once; a real program waits for its reason to end.
/// server.serve_with_shutdown(async {}).await
/// # }
/// ```
#[derive(Debug)]
pub struct BoundServer {
    pub(super) services: Arc<Services>,
    pub(super) listeners: Vec<Listener>,
    pub(super) pipes: Vec<Pipe>,
    pub(super) net: Option<ringway_net::BoundServer>,
    pub(super) addresses: Vec<ListenAddress>,
    pub(super) local: LocalConfig,
    pub(super) inproc: Registration,
    pub(super) drain_timeout: Option<Duration>,
}

impl BoundServer {
    /// The network addresses, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// The names by which local clients find it, with their ports.
    pub fn names(&self) -> &[String] {
        &self.inproc.names
    }

    /// Serves until `shutdown` is done; then drains: names and addresses are given up, clients of
    /// every path are told to go elsewhere, and calls in flight may finish. A server that pipes
    /// alone lead to also ends when all of them have hung up.
    ///
    /// # Errors
    /// [`Error::DrainTimedOut`] if calls were still in flight after
    /// [`Server::drain_timeout`](crate::Server::drain_timeout); they were cut off. [`Error::Net`] if an
    /// address failed; [`Error::Local`] if pipes alone lead to it, and the handshake over one failed.
    pub async fn serve_with_shutdown(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        self.serve_beside(shutdown, async |_| Ok(())).await
    }

    /// Serves until the process is asked to end, by SIGTERM or SIGINT; then drains as
    /// [`Self::serve_with_shutdown`] does. Orchestrators send SIGTERM and kill some time later:
    /// keep [`Server::drain_timeout`](crate::Server::drain_timeout) below that (Kubernetes: 30 s, Docker:
    /// 10 s).
    ///
    /// # Errors
    /// As [`Self::serve_with_shutdown`].
    #[cfg(feature = "signal")]
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

    /// Serves, and `beside` it what else leads to the services, until it is told to stop.
    pub(super) async fn serve_beside<B>(
        self,
        shutdown: impl Future<Output = ()>,
        beside: B,
    ) -> Result<(), Error>
    where
        B: AsyncFnOnce(watch::Receiver<bool>) -> Result<(), ringway_net::Error>,
    {
        let (stop, stopping) = watch::channel(false);
        let drain_timeout = self.drain_timeout;
        let serving = async {
            let others = self.serve_all(stopping.clone());
            let (others, beside) = tokio::join!(others, beside(stopping));
            others?;
            Ok(beside?)
        };
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

    /// Serves on every path until `stopping` says so, and drains. Boxed here, so that this crate holds its machine
    /// code, and not once more each program that serves.
    fn serve_all(self, stopping: watch::Receiver<bool>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(self.serve_everything(stopping))
    }

    async fn serve_everything(self, stopping: watch::Receiver<bool>) -> Result<(), Error> {
        let by_pipes_alone = self.inproc.names.is_empty() && self.net.is_none();
        let mut local = tokio::task::JoinSet::new();
        if !by_pipes_alone {
            let serving: Task = Box::pin(self.inproc.serve(stopped(stopping.clone())));
            local.spawn(serving);
        }
        for listener in self.listeners {
            let service: Arc<dyn Serve> = Arc::clone(&self.services) as _;
            let stopped = stopped(stopping.clone());
            let serving: Task = Box::pin(listener.serve(service, self.local.clone(), stopped));
            local.spawn(serving);
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

/// Waits until it is time to stop.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender lives as long as the server does.
    let _ = stopping.wait_for(|stop| *stop).await;
}
