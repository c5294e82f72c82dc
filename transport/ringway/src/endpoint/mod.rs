//! What a client asks for: a server's name, and which paths may lead there.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `settings.rs`, `http2.rs` | what is asked for beside the name |
//! | `connect.rs` | channels |

mod connect;
mod http2;
mod settings;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use ringway_local::{Directory, LocalConfig, UidPolicy};
use ringway_net::{NetOptions, Target};
use ringway_wire::KeepAlive;
use tonic::codegen::StdError;

use crate::error::Error;
use crate::path::{Path, UnknownPath};
use crate::pipe::WayByPipe;
use crate::pooling::MAX_CONNECTIONS;
use crate::retry::RetrySettings;
use crate::settings::Settings;

/// Forces a path for every channel whose address does not name one.
const PATH_VARIABLE: &str = "RINGWAY_PATH";

/// The name of a socket without io_uring.
const EPOLL: &str = "socket+epoll";

/// Permits calls to stay on the host although TLS is asked for, or forbids it.
///
/// ```
/// use ringway::{Endpoint, LocalPolicy, UidPolicy};
///
/// # fn main() -> Result<(), ringway::Error> {
/// // A server that runs as user 1000, or as root, needs no certificate to be called over memory.
/// let trusted = LocalPolicy::Allow(UidPolicy::Only([0, 1000].into()));
/// let endpoint = Endpoint::new("catalog:50051")?.allow_local(trusted);
/// # drop(endpoint); Ok(()) }
/// ```
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
/// let channel = Endpoint::new("catalog:50051")?.path(Path::Grpc).connect_lazy();
/// # drop(channel); Ok(()) }
/// ```
///
/// Settings hold in whatever order they are made: one by one they are stronger than the options that
/// come as a whole, and of two for one thing the later holds. What contradicts itself is told by
/// [`Self::connect`], and fails each call of a channel that connects lazily.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) name: String,
    pub(crate) target: Option<Target>,
    pub(crate) forced: Option<Path>,
    /// A socket is wanted without io_uring.
    pub(crate) epoll: bool,
    pub(crate) directory: Directory,
    pub(crate) local: Settings<LocalConfig>,
    pub(crate) net: Settings<NetOptions>,
    pub(crate) policy: LocalPolicy,
    /// What was asked for expressly, and so holds for the local paths as well.
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) retry: RetrySettings,
    pub(crate) retry_buffer_bytes: usize,
    /// Two pipes lead to the server, and nothing else does.
    pub(crate) pipe: Option<Arc<WayByPipe>>,
    /// The longest that a call may take.
    pub(crate) timeout: Option<Duration>,
    /// Calls that may be on their way at once.
    pub(crate) concurrency_limit: Option<usize>,
    /// Local connections to one instance.
    pub(crate) max_connections: usize,
    /// Calls that may begin within a time.
    pub(crate) rate_limit: Option<(u64, Duration)>,
    uri: Uri,
    /// An address that is none, in the words of the caller who can't be told at once.
    refused: Option<String>,
}

/// What a stream of requests keeps for a further attempt, as in grpc-go.
const RETRY_BUFFER_BYTES: usize = 256 * 1024;

impl Endpoint {
    /// The server at `address`: a text, a [`Uri`], or an endpoint.
    ///
    /// # Errors
    /// [`Error::Address`], or [`Error::Environment`] where `RINGWAY_PATH` names no path.
    pub fn new<D>(address: D) -> Result<Self, Error>
    where
        D: TryInto<Self>,
        D::Error: Into<StdError>,
    {
        address
            .try_into()
            .map_err(|error| Error::from_boxed(error.into()))
    }

    /// The server at `address`. One that is no address fails [`Self::connect`] and each call.
    pub fn from_static(address: &'static str) -> Self {
        Self::of(address)
    }

    /// The server at `address`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_shared(address: impl Into<Bytes>) -> Result<Self, Error> {
        address.into().try_into()
    }

    /// The server at `address`, if it is one.
    fn of(address: &str) -> Self {
        address.parse().unwrap_or_else(|_| Self {
            refused: Some(address.to_owned()),
            ..Self::bare(address.to_owned(), None)
        })
    }

    /// What stands for the endpoints of a channel that has several.
    pub(crate) fn of_several() -> Self {
        Self::bare("several endpoints".to_owned(), None)
    }

    /// With no settings yet.
    fn bare(name: String, target: Option<Target>) -> Self {
        Self {
            name,
            target,
            forced: None,
            epoll: false,
            directory: Directory::from_environment(),
            local: LocalConfig::default().into(),
            net: NetOptions::default().into(),
            policy: LocalPolicy::default(),
            keep_alive_interval: None,
            retry: RetrySettings::default(),
            retry_buffer_bytes: RETRY_BUFFER_BYTES,
            pipe: None,
            timeout: None,
            concurrency_limit: None,
            max_connections: MAX_CONNECTIONS,
            rate_limit: None,
            uri: Uri::default(),
            refused: None,
        }
    }

    /// The address as a URI; `/` for a Unix socket, which has none.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The server at the other end of two pipes.
    pub(crate) fn over(pipe: WayByPipe) -> Self {
        Self {
            forced: Some(Path::Pipe),
            pipe: Some(Arc::new(pipe)),
            ..Self::bare("pipe".to_owned(), None)
        }
    }

    /// The settings of the local paths, with what holds for all paths.
    pub(crate) fn local_settings(&self) -> LocalConfig {
        let mut local = self.local.clone_settled();
        if let Some(interval) = self.keep_alive_interval {
            local.wire.keepalive = Some(KeepAlive {
                interval,
                timeout: self.net.keepalive_timeout,
                while_idle: self.net.keepalive_while_idle,
            });
        }
        local
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
            forced,
            epoll,
            uri: address.parse().unwrap_or_default(),
            ..Self::bare(local_name(rest, target.as_ref()), target)
        })
    }
}

impl From<Uri> for Endpoint {
    fn from(address: Uri) -> Self {
        Self::of(&address.to_string())
    }
}

impl TryFrom<Bytes> for Endpoint {
    type Error = Error;

    fn try_from(address: Bytes) -> Result<Self, Error> {
        match std::str::from_utf8(&address) {
            Ok(address) => address.parse(),
            Err(error) => Err(Error::Address {
                address: String::from_utf8_lossy(&address).into_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = Error;

    fn try_from(address: &String) -> Result<Self, Error> {
        address.parse()
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

// They ask for TLS.
#[cfg(all(test, feature = "_tls-any"))]
mod tests {
    use std::time::Duration;

    use ringway_net::tls::ClientTlsConfig;
    use tower::ServiceExt;

    use super::*;
    use crate::settings::in_every_order;

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

    #[tokio::test]
    async fn a_pipe_leads_to_no_address() {
        let by_code = Endpoint::new("catalog:1").unwrap().path(Path::Pipe);
        for refused in [
            Endpoint::new("pipe://catalog:1").map(drop),
            by_code.connect().await.map(drop),
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
            endpoint.clone().path(Path::Shm).connect().await,
            Err(Error::Forced { .. })
        ));
        let allowed = endpoint.allow_local(LocalPolicy::Allow(UidPolicy::SameUser));
        assert!(allowed.may_stay_local());
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Each sets one thing of the network path or of the local ones, or all of either.
    const SETTERS: [fn(Endpoint) -> Endpoint; 7] = [
        |endpoint| endpoint.tls_config(ClientTlsConfig::new()).unwrap(),
        |endpoint| {
            endpoint.net_options(NetOptions {
                tcp_nodelay: true,
                stream_window_bytes: 1,
                keepalive_timeout: SECOND,
                ..NetOptions::default()
            })
        },
        |endpoint| {
            endpoint.local_config(LocalConfig {
                peers: UidPolicy::Anyone,
                max_connections: 7,
                ..LocalConfig::default()
            })
        },
        |endpoint| endpoint.tcp_nodelay(false).connect_timeout(SECOND),
        |endpoint| endpoint.keep_alive_timeout(3 * SECOND),
        |endpoint| endpoint.http2_keep_alive_interval(2 * SECOND),
        |endpoint| endpoint.allow_local(LocalPolicy::Allow(UidPolicy::Only([7].into()))),
    ];

    #[test]
    fn setters_hold_in_every_order() {
        let fresh = || Endpoint::new("catalog:1").unwrap();
        in_every_order(&SETTERS, fresh, &mut |endpoint, order| {
            let (net, local) = (&endpoint.net, endpoint.local_settings());
            assert!(net.tls.is_some(), "{order:?}");
            assert!(!net.tcp_nodelay, "{order:?}");
            assert_eq!(net.connect_timeout, SECOND, "{order:?}");
            // What nothing else sets is as the whole has it.
            assert_eq!(net.stream_window_bytes, 1, "{order:?}");
            assert_eq!(local.max_connections, 7, "{order:?}");
            assert_eq!(local.peers, UidPolicy::Only([7].into()), "{order:?}");
            let keepalive = local.wire.keepalive.unwrap();
            assert_eq!(keepalive.interval, 2 * SECOND, "{order:?}");
            assert_eq!(keepalive.timeout, 3 * SECOND, "{order:?}");
        });
    }

    #[tokio::test]
    async fn tls_is_lost_in_no_order() {
        let setters = &SETTERS[..6];
        for address in [
            "catalog:1",
            "http://catalog:1",
            "https://catalog:1",
            "unix:/catalog",
        ] {
            let fresh = || Endpoint::new(address).unwrap();
            in_every_order(setters, fresh, &mut |endpoint, order| {
                assert!(!endpoint.may_stay_local(), "{address} {order:?}");
                // An address that goes without TLS contradicts it.
                let goes_without = address.starts_with("http:") || address.starts_with("unix:");
                assert_eq!(
                    endpoint.pool().is_err(),
                    goes_without,
                    "{address} {order:?}"
                );
                let forced = endpoint.path(Path::Shm);
                assert!(forced.check().is_err(), "{address} {order:?}");
            });
        }
    }

    #[test]
    fn of_two_for_one_thing_the_later_holds() {
        let endpoint = Endpoint::from_static("catalog:1")
            .connect_timeout(SECOND)
            .connect_timeout(2 * SECOND)
            .net_options(NetOptions {
                stream_window_bytes: 1,
                ..NetOptions::default()
            })
            .net_options(NetOptions {
                stream_window_bytes: 2,
                ..NetOptions::default()
            });
        assert_eq!(endpoint.get_connect_timeout(), Some(2 * SECOND));
        assert_eq!(endpoint.net.stream_window_bytes, 2);
    }

    #[tokio::test]
    async fn what_contradicts_itself_fails_each_call_of_a_lazy_channel() {
        let with_tls = |address| {
            Endpoint::from_static(address)
                .tls_config(ClientTlsConfig::new())
                .unwrap()
        };
        for (endpoint, says) in [
            (with_tls("http://catalog:1"), "TLS"),
            (with_tls("unix:/catalog"), "TLS"),
            (with_tls("shm://catalog:1"), "allow_local"),
            (Endpoint::from_static("https://catalog:1"), "TLS"),
            (Endpoint::from_static("catalog"), "host:port"),
            (Endpoint::from_static("pipe://catalog:1"), "Child"),
        ] {
            let error = endpoint.connect().await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            let service = endpoint.connect_lazy();
            let request = http::Request::new(tonic::body::Body::empty());
            let status = service.oneshot(request).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);
            assert!(status.message().contains(says), "{status}");
        }
    }
}
