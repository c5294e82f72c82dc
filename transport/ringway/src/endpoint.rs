//! What a client asks for: a server's name, and which paths may lead there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ringway_local::{Directory, LocalConfig, UidPolicy};
use ringway_net::tls::ClientTlsConfig;
use ringway_net::{BackoffOptions, NetOptions, OutlierOptions, Resolve, Target};
use ringway_wire::KeepAlive;

use crate::channel::Channel;
use crate::error::Error;
use crate::path::{Path, UnknownPath};
use crate::pipe::WayByPipe;
use crate::retry::{RetryPolicy, RetrySettings, RetryThrottling};

/// Forces a path for every channel whose address does not name one.
const PATH_VARIABLE: &str = "RINGWAY_PATH";

/// The name of a socket without io_uring.
const EPOLL: &str = "socket+epoll";

/// Whether calls may stay on the host although TLS is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LocalPolicy {
    /// Not where TLS is asked for: a local path proves a uid, not a certificate.
    #[default]
    UnlessTls,
    /// Yes, with peers that these uids run as.
    Allow(UidPolicy),
    /// Never.
    Never,
}

/// A server to call.
///
/// | address | path |
/// | --- | --- |
/// | `catalog:50051` | the best that works: shared memory, else a socket, else gRPC |
/// | `http://catalog:50051` | the same |
/// | `shm://catalog:50051` | shared memory |
/// | `socket://catalog:50051` | a Unix socket, driven by io_uring where the kernel allows it |
/// | `socket+epoll://catalog:50051` | the same without io_uring |
/// | `inproc://catalog:50051` | a server of this process |
/// | `grpc://catalog:50051` | gRPC without TLS |
/// | `https://catalog:50051` | gRPC with TLS, unless a [`LocalPolicy`] allows more |
/// | `unix:/run/catalog.sock` | gRPC over a Unix socket |
///
/// `RINGWAY_PATH` forces a path for addresses that name none; `auto` or nothing leaves the choice
/// open. The path [`Path::Pipe`] has no addresses: see [`Child`](crate::Child) and [`Pipe`](crate::Pipe).
///
/// ```
/// use ringway::{Endpoint, Path};
///
/// # #[tokio::main] async fn main() -> Result<(), ringway::Error> {
/// let channel = Endpoint::new("catalog:50051")?.path(Path::Grpc).connect_lazy()?;
/// # drop(channel); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) name: String,
    pub(crate) target: Option<Target>,
    pub(crate) forced: Option<Path>,
    /// A socket is wanted without io_uring.
    pub(crate) epoll: bool,
    pub(crate) directory: Directory,
    pub(crate) local: LocalConfig,
    pub(crate) net: NetOptions,
    pub(crate) policy: LocalPolicy,
    /// What was asked for expressly, and so holds for the local paths as well.
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) retry: RetrySettings,
    pub(crate) retry_buffer_bytes: usize,
    /// Two pipes lead to the server, and nothing else does.
    pub(crate) pipe: Option<Arc<WayByPipe>>,
    /// The longest that a call may take.
    pub(crate) timeout: Option<Duration>,
}

/// What a stream of requests keeps for a further attempt, as in grpc-go.
const RETRY_BUFFER_BYTES: usize = 256 * 1024;

impl Endpoint {
    /// The server at `address`.
    ///
    /// # Errors
    /// [`Error::Address`], or [`Error::Environment`] where `RINGWAY_PATH` names no path.
    pub fn new(address: impl AsRef<str>) -> Result<Self, Error> {
        address.as_ref().parse()
    }

    /// Takes this path or none.
    #[must_use]
    pub fn path(mut self, path: Path) -> Self {
        self.forced = Some(path);
        self
    }

    /// Looks for local servers in `directory` instead of where the environment says.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Directory::at(directory);
        self
    }

    /// Uses TLS on the network path; no local path is taken then unless [`Self::allow_local`]
    /// says so.
    #[must_use]
    pub fn tls_config(mut self, tls: ClientTlsConfig) -> Self {
        self.net.tls = Some(tls);
        self
    }

    /// Says whether calls may stay on the host.
    #[must_use]
    pub fn allow_local(mut self, policy: LocalPolicy) -> Self {
        if let LocalPolicy::Allow(peers) = &policy {
            self.local.peers = peers.clone();
        }
        self.policy = policy;
        self
    }

    /// The longest that a call may take, where the call itself does not say less.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
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
    pub fn net_options(mut self, options: NetOptions) -> Self {
        self.net = options;
        self
    }

    /// Pings a server that says nothing for so long while calls are in flight, on every path, and
    /// gives it up if it does not answer: its calls end `UNAVAILABLE`. Default: 310 s on the network
    /// path, since many servers end connections that are pinged more often than every five minutes, and
    /// not at all on the local ones, where the end of a process is noticed at once.
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = Some(interval);
        self.net.keepalive_interval = Some(interval);
        self
    }

    /// How long a server's answer to a ping may take. Default: 10 s.
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.net.keepalive_timeout = timeout;
        self
    }

    /// Whether to ping while no call is in flight, too. Default: no, since some servers end
    /// connections for it.
    #[must_use]
    pub fn keep_alive_while_idle(mut self, enabled: bool) -> Self {
        self.net.keepalive_while_idle = enabled;
        self
    }

    /// The settings of the local paths, with what holds for all paths.
    pub(crate) fn local_settings(&self) -> LocalConfig {
        let mut local = self.local.clone();
        if let Some(interval) = self.keep_alive_interval {
            local.wire.keepalive = Some(KeepAlive {
                interval,
                timeout: self.net.keepalive_timeout,
                while_idle: self.net.keepalive_while_idle,
            });
        }
        local
    }

    /// Makes calls again that ended with certain codes, unless [`Self::retry_policy_for`] says
    /// otherwise for them.
    #[must_use]
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry.general = Some(Arc::new(policy));
        self
    }

    /// The same for the calls of a service (`shop.v1.Catalog`) or of a method
    /// (`shop.v1.Catalog/Get`); a method's policy is stronger than its service's.
    #[must_use]
    pub fn retry_policy_for(mut self, name: impl Into<String>, policy: RetryPolicy) -> Self {
        self.retry.named.push((name.into(), Arc::new(policy)));
        self
    }

    /// Retries nothing while most of what is sent fails. Default: not throttled.
    #[must_use]
    pub fn retry_throttling(mut self, throttling: RetryThrottling) -> Self {
        self.retry.throttling = Some(throttling);
        self
    }

    /// How much of a stream's requests is kept, in bytes, in case the call has to be sent again: by
    /// a policy, or because its connection was lost before the server saw it. A stream that sends
    /// more before it is answered is not sent again. Default: 256 KiB.
    #[must_use]
    pub fn retry_buffer_bytes(mut self, bytes: usize) -> Self {
        self.retry_buffer_bytes = bytes;
        self
    }

    /// Whether calls wait while no server can be reached, instead of failing at once with
    /// `UNAVAILABLE`. A [`crate::WaitForReady`] in a request's extensions is stronger. Default: no.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.retry.wait_for_ready = wait;
        self
    }

    /// What finds the addresses of the server's instances on the network, in place of the system's
    /// resolver. Calls go to all of them in turn.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.net.resolver = Arc::new(resolver);
        self
    }

    /// How the time between attempts to connect over the network grows. Default: gRPC's, from 1 s to
    /// 120 s, and no more than 500 ms while calls come.
    #[must_use]
    pub fn backoff(mut self, backoff: BackoffOptions) -> Self {
        self.net.backoff = backoff;
        self
    }

    /// When an instance that fails calls again and again is put aside, while there are others;
    /// `None` is never.
    #[must_use]
    pub fn outliers(mut self, outliers: impl Into<Option<OutlierOptions>>) -> Self {
        self.net.outliers = outliers.into();
        self
    }

    /// A channel that is connected already.
    ///
    /// # Errors
    /// Why no path leads to the server, of each path that may be taken. A program that starts before its
    /// server asks again, or takes [`Self::connect_lazy`].
    pub async fn connect(&self) -> Result<Channel, Error> {
        let channel = self.connect_lazy()?;
        channel.connect().await?;
        Ok(channel)
    }

    /// A channel that connects with its first call. Within a tokio runtime.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn connect_lazy(&self) -> Result<Channel, Error> {
        if self.forced == Some(Path::Pipe) && self.pipe.is_none() {
            return Err(no_pipe(&self.name));
        }
        if let Some(path) = self.forced
            && path.is_local()
            && !self.may_stay_local()
        {
            return Err(Error::Forced {
                path,
                reason: "TLS is configured: say allow_local() to go without it on this host".into(),
            });
        }
        Channel::new(self.clone())
    }

    /// The server at the other end of two pipes.
    pub(crate) fn over(pipe: WayByPipe) -> Self {
        Self {
            name: "pipe".to_owned(),
            target: None,
            forced: Some(Path::Pipe),
            epoll: false,
            directory: Directory::from_environment(),
            local: LocalConfig::default(),
            net: NetOptions::default(),
            policy: LocalPolicy::default(),
            keep_alive_interval: None,
            retry: RetrySettings::default(),
            retry_buffer_bytes: RETRY_BUFFER_BYTES,
            pipe: Some(Arc::new(pipe)),
            timeout: None,
        }
    }

    /// Whether TLS, or the lack of permission, keeps calls off the local paths.
    pub(crate) fn may_stay_local(&self) -> bool {
        let tls = self.net.tls.is_some() || self.target.as_ref().is_some_and(Target::asks_for_tls);
        match self.policy {
            LocalPolicy::Never => false,
            LocalPolicy::Allow(_) => true,
            LocalPolicy::UnlessTls => !tls,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forced {
            Some(Path::Socket) if self.epoll => write!(formatter, "{EPOLL}://{}", self.name),
            Some(path) => write!(formatter, "{path}://{}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(address: &str) -> Result<Self, Error> {
        let (forced, rest) = split_scheme(address);
        let forced = match forced {
            Some(forced) => Some(forced),
            None => forced_by_environment()?,
        };
        let epoll = forced.is_some_and(|forced| forced.epoll);
        let forced = forced.map(|forced| forced.path);
        if forced == Some(Path::Pipe) {
            return Err(no_pipe(rest));
        }
        let target = match forced {
            Some(Path::Shm | Path::Socket | Path::Inproc) => rest.parse().ok(),
            _ => Some(
                rest.parse()
                    .map_err(|error: ringway_net::Error| Error::Address {
                        address: address.to_owned(),
                        reason: error.to_string(),
                    })?,
            ),
        };
        Ok(Self {
            name: local_name(rest, target.as_ref()),
            target,
            forced,
            epoll,
            directory: Directory::from_environment(),
            local: LocalConfig::default(),
            net: NetOptions::default(),
            policy: LocalPolicy::default(),
            keep_alive_interval: None,
            retry: RetrySettings::default(),
            retry_buffer_bytes: RETRY_BUFFER_BYTES,
            pipe: None,
            timeout: None,
        })
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = Error;

    fn try_from(address: &str) -> Result<Self, Error> {
        address.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(address: String) -> Result<Self, Error> {
        address.parse()
    }
}

/// What a scheme or the environment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forced {
    path: Path,
    epoll: bool,
}

impl From<Path> for Forced {
    fn from(path: Path) -> Self {
        Self { path, epoll: false }
    }
}

impl FromStr for Forced {
    type Err = UnknownPath;

    fn from_str(name: &str) -> Result<Self, UnknownPath> {
        if name == EPOLL {
            return Ok(Self {
                path: Path::Socket,
                epoll: true,
            });
        }
        name.parse().map(Path::into)
    }
}

fn split_scheme(address: &str) -> (Option<Forced>, &str) {
    let forced = address
        .split_once("://")
        .and_then(|(scheme, rest)| Some((Some(scheme.parse().ok()?), rest)));
    match forced {
        Some(found) => found,
        // A Unix socket or a certificate is asked for: only the network path has them.
        None if address.starts_with("unix:") => (Some(Path::Grpc.into()), address),
        None => (None, address),
    }
}

fn forced_by_environment() -> Result<Option<Forced>, Error> {
    match std::env::var(PATH_VARIABLE) {
        Ok(value) if value.is_empty() || value == "auto" => Ok(None),
        Ok(value) => value
            .parse()
            .map(Some)
            .map_err(|error: UnknownPath| Error::Environment {
                variable: PATH_VARIABLE,
                value,
                reason: error.to_string(),
            }),
        Err(_) => Ok(None),
    }
}

fn no_pipe(address: &str) -> Error {
    Error::Forced {
        path: Path::Pipe,
        reason: format!(
            "pipes lead to a child process, not to an address like `{address}`: start the server with ringway::Child::spawn"
        ),
    }
}

/// The name under which the server listens on its own host.
fn local_name(rest: &str, target: Option<&Target>) -> String {
    match target {
        Some(Target::Network { host, port, .. }) => format!("{host}:{port}"),
        _ => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_forces_its_path() {
        for (address, path) in [
            ("shm://catalog:1", Path::Shm),
            ("socket://catalog:1", Path::Socket),
            ("socket+epoll://catalog:1", Path::Socket),
            ("inproc://catalog:1", Path::Inproc),
            ("grpc://catalog:1", Path::Grpc),
        ] {
            let endpoint = Endpoint::new(address).unwrap();
            assert_eq!(endpoint.forced, Some(path), "{address}");
            assert_eq!(endpoint.name, "catalog:1");
            assert_eq!(endpoint.epoll, address.contains("epoll"));
            assert!(endpoint.to_string().starts_with(&address[..5]));
        }
        assert_eq!(Endpoint::new("catalog:1").unwrap().forced, None);
        assert_eq!(Endpoint::new("http://catalog:1").unwrap().name, "catalog:1");
    }

    #[test]
    fn a_pipe_leads_to_no_address() {
        let by_code = Endpoint::new("catalog:1").unwrap().path(Path::Pipe);
        for refused in [
            Endpoint::new("pipe://catalog:1").map(drop),
            by_code.connect_lazy().map(drop),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(
                error.contains("`catalog:1`") && error.contains("Child"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        let error = Endpoint::new("catalog").unwrap_err();
        assert!(error.to_string().contains("host:port"), "{error}");
    }

    #[tokio::test]
    async fn tls_keeps_calls_off_the_local_paths_unless_allowed() {
        let endpoint = Endpoint::new("https://catalog:1").unwrap();
        assert!(!endpoint.may_stay_local());
        assert!(matches!(
            endpoint.clone().path(Path::Shm).connect_lazy(),
            Err(Error::Forced { .. })
        ));
        let allowed = endpoint.allow_local(LocalPolicy::Allow(UidPolicy::SameUser));
        assert!(allowed.may_stay_local());
    }
}
