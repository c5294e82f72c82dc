//! The shop as processes: started, awaited, ended.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shop_link::{Address, Peer};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Error;
use crate::paths::{DemoPath, free_port};
use crate::traced::Tracing;

/// How long a service may take to come up, seconds.
const START_S: u64 = 20;
/// How long a service may take to end once its stdin is closed: its drain and more.
const END: Duration = Duration::from_secs(5);
/// Units of each product, so that no run sells out.
const STOCK: &str = "1000000000";

/// The running services. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    pub(crate) gateway: Option<SocketAddr>,
    orders: Address,
    tracing: Option<Tracing>,
    // Declared last: removed when the services are gone.
    scratch: TempDir,
}

#[derive(Debug)]
struct Member {
    service: &'static str,
    child: Child,
}

/// Starts one service after the other, each once those it calls are there.
struct Launch<'a> {
    path: DemoPath,
    scratch: &'a TempDir,
    tracing: Option<&'a Tracing>,
    members: Vec<Member>,
}

impl Fleet {
    /// Starts the shop on `path`; without the gateway if `direct`; its calls are recorded where
    /// `tracing` says how.
    pub(crate) async fn start(
        path: DemoPath,
        direct: bool,
        tracing: Option<Tracing>,
    ) -> Result<Self, Error> {
        let scratch = tempfile::Builder::new()
            .prefix("shop-demo-")
            .tempdir()
            .map_err(Error::Prepare)?;
        let mut launch = Launch {
            path,
            scratch: &scratch,
            tracing: tracing.as_ref(),
            members: Vec::new(),
        };
        let catalog = launch.service("catalog", &[]).await?;
        let inventory = launch.service("inventory", &[("--stock", STOCK)]).await?;
        let media = launch.service("media", &[]).await?;
        let payments = launch.service("payments", &[]).await?;
        let peers = [
            ("--catalog", &catalog[..]),
            ("--inventory", &inventory),
            ("--media", &media),
        ];
        let mut all = peers.to_vec();
        all.push(("--payments", &payments));
        let orders = launch.service("orders", &all).await?;
        let gateway = match direct {
            true => None,
            false => Some(launch.gateway(&orders, &peers).await?),
        };
        let members = launch.members;
        Ok(Self {
            members,
            gateway,
            orders: orders.parse()?,
            tracing,
            scratch,
        })
    }

    /// The `orders` service, for a load that leaves HTTP out.
    pub(crate) fn orders(&self) -> Result<Peer, Error> {
        let directory = self.scratch.path();
        Ok(Peer::connect_lazy_in(directory, "orders", &self.orders)?)
    }

    /// Has a customer, who is a process too, place `orders`.
    pub(crate) async fn customer(&self, orders: u64) -> Result<(), Error> {
        let service = "customer";
        let start = |source| Error::Start { service, source };
        let mut command = Command::new(std::env::current_exe().map_err(start)?);
        command.args([service, "--orders", &orders.to_string()]);
        match self.gateway {
            Some(gateway) => command.args(["--gateway", &gateway.to_string()]),
            None => command
                .args(["--address", &self.orders.to_string(), "--directory"])
                .arg(self.scratch.path()),
        };
        record(&mut command, "shopper", self.tracing.as_ref());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let status = command.status().await.map_err(start)?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Ended { service, status }),
        }
    }

    /// The services' process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter_map(|member| member.child.id())
            .collect()
    }

    /// The error of a service that ended too early, or `otherwise`.
    pub(crate) fn culprit(&mut self, otherwise: Error) -> Error {
        let ended = self.members.iter_mut().find_map(Member::ended);
        ended.unwrap_or(otherwise)
    }

    /// Ends all services, at the same time.
    pub(crate) async fn end(mut self) {
        for member in &mut self.members {
            drop(member.child.stdin.take());
        }
        for member in &mut self.members {
            if tokio::time::timeout(END, member.child.wait())
                .await
                .is_err()
            {
                let _ = member.child.kill().await;
            }
        }
    }
}

/// Whether the calls of a process are recorded, whatever the demo's own environment says: what is
/// timed must not be.
fn record(command: &mut Command, service: &str, tracing: Option<&Tracing>) {
    match tracing {
        Some(tracing) => command.envs(tracing.environment(service)),
        None => command.env("OTEL_SDK_DISABLED", "true"),
    };
}

impl Member {
    fn ended(&mut self) -> Option<Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(Error::Ended {
            service: self.service,
            status,
        })
    }
}

impl Launch<'_> {
    async fn service(
        &mut self,
        service: &'static str,
        options: &[(&str, &str)],
    ) -> Result<String, Error> {
        let address = self
            .path
            .address(self.scratch.path(), service)
            .map_err(Error::Prepare)?;
        self.spawn(service, &address.to_string(), options)?;
        self.wait(service, &address).await?;
        Ok(address.to_string())
    }

    async fn gateway(&mut self, orders: &str, peers: &[(&str, &str)]) -> Result<SocketAddr, Error> {
        let address = free_port().map_err(Error::Prepare)?;
        let mut options = peers.to_vec();
        options.push(("--orders", orders));
        self.spawn("gateway", &address.to_string(), &options)?;
        self.wait("gateway", &Address::Tcp(address.to_string()))
            .await?;
        Ok(address)
    }

    fn spawn(
        &mut self,
        service: &'static str,
        listen: &str,
        options: &[(&str, &str)],
    ) -> Result<(), Error> {
        let start = |source| Error::Start { service, source };
        let mut command = Command::new(std::env::current_exe().map_err(start)?);
        command
            .arg("service")
            .arg("--scratch")
            .arg(self.scratch.path())
            .args([service, "--listen", listen])
            .args(options.iter().flat_map(|(name, value)| [name, value]))
            .env("RINGWAY_DIR", self.scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        record(&mut command, service, self.tracing);
        let child = command.spawn().map_err(start)?;
        self.members.push(Member { service, child });
        Ok(())
    }

    async fn wait(&mut self, service: &'static str, address: &Address) -> Result<(), Error> {
        let start = Instant::now();
        while !shop_link::answers(self.scratch.path(), address).await {
            if let Some(ended) = self.members.last_mut().and_then(Member::ended) {
                return Err(ended);
            }
            if start.elapsed() > Duration::from_secs(START_S) {
                let address = address.to_string();
                return Err(Error::Silent {
                    service,
                    address,
                    seconds: START_S,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
