//! A channel to a target, with the settings that suit it.

use std::sync::Arc;
use std::time::Duration;

use hyper::rt;
use tonic::transport::Endpoint;

use crate::guard::CallExecutor;
use crate::header_list::HTTP2_MAX_HEADER_LIST_BYTES;
use crate::tls::{self, ClientTlsConfig};
use crate::{
    BackoffOptions, CONNECTION_WINDOW_BYTES, ClientTuning, Error, OutlierOptions, Pool, Resolve,
    STREAM_WINDOW_BYTES, Scheme, SystemResolver, Target,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// grpc-go, gRPC's C core and grpc-java answer a third ping within five minutes of the one before with
/// GOAWAY `too_many_pings`, unless they are told otherwise. Some seconds more keep a ping that was on its
/// way for longer than the next from counting.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(310);

/// How a client connects. The defaults are those that served tonic best.
///
/// ```
/// let mut options = ringway_net::NetOptions::default();
/// options.connection_window_bytes = 64 << 20; // many streams that are read at different speeds
/// ```
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// What an attempt to connect may take at least, before it is given up for the next one: gRPC's
    /// `MIN_CONNECT_TIMEOUT`. Default: 20 s.
    pub connect_timeout: Duration,
    /// How the time between attempts to connect grows.
    pub backoff: BackoffOptions,
    /// What finds a name's addresses. Default: the system's resolver.
    pub resolver: Arc<dyn Resolve>,
    /// How often a name is resolved anew while nothing goes wrong. Default: 30 s.
    pub resolve_interval: Duration,
    /// When an instance that fails is put aside; `None` is never.
    pub outliers: Option<OutlierOptions>,
    /// HTTP/2 window of each stream. Default: 4 MiB.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of the connection. Default: 8 MiB.
    pub connection_window_bytes: u32,
    /// The largest HTTP/2 frame the peer may send; `None` leaves it to h2 (16 KiB).
    pub max_frame_bytes: Option<u32>,
    /// `TCP_NODELAY`. Default: on.
    pub tcp_nodelay: bool,
    /// Interval of HTTP/2 pings; `None` sends none. Default: 310 s, as servers of the other
    /// implementations end a connection that is pinged more often than every five minutes.
    pub keepalive_interval: Option<Duration>,
    /// How long an answer to a ping may take. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// Ping also while no call is open. Default: off, since some servers end connections for it.
    pub keepalive_while_idle: bool,
    /// TLS, for `https` targets and for those that do not say.
    pub tls: Option<ClientTlsConfig>,
    /// What tonic has beside.
    pub tuning: ClientTuning,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(20),
            backoff: BackoffOptions::default(),
            resolver: Arc::new(SystemResolver),
            resolve_interval: Duration::from_secs(30),
            outliers: Some(OutlierOptions::default()),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            max_frame_bytes: None,
            tcp_nodelay: true,
            keepalive_interval: Some(KEEPALIVE_INTERVAL),
            keepalive_timeout: Duration::from_secs(10),
            keepalive_while_idle: false,
            tls: None,
            tuning: ClientTuning::default(),
        }
    }
}

/// Makes a pool of connections to all instances of a server, each connected when the pool is first
/// used, and again after it was lost.
///
/// It must be called within a tokio runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringway_net::Error> {
/// use ringway_net::{NetOptions, connect_lazy};
///
/// let pool = connect_lazy(&"http://catalog:50051".parse()?, &NetOptions::default())?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the target and the TLS configuration contradict each other: TLS is never dropped silently.
pub fn connect_lazy(target: &Target, options: &NetOptions) -> Result<Pool, Error> {
    let endpoint = endpoint(target, options)?.executor(CallExecutor);
    Ok(Pool::new(target.clone(), endpoint, options))
}

/// Makes a pool whose calls all go through connections of the caller's own making: `connector` is asked
/// for each, by the target's URI. tonic connects again what was lost.
///
/// # Errors
/// As [`connect_lazy`].
pub fn connect_through_lazy<C>(
    target: &Target,
    options: &NetOptions,
    connector: C,
) -> Result<Pool, Error>
where
    C: tower::Service<http::Uri> + Send + 'static,
    C::Response: rt::Read + rt::Write + Send + Unpin,
    C::Future: Send,
    BoxError: From<C::Error> + Send,
{
    let endpoint = limited(endpoint(target, options)?.executor(CallExecutor), options);
    let channel = endpoint.connect_with_connector_lazy(connector);
    Ok(Pool::over(target.clone(), channel, endpoint, options))
}

/// The same, connected already.
///
/// # Errors
/// As [`connect_lazy`], and [`Error::Connect`].
pub async fn connect_through<C>(
    target: &Target,
    options: &NetOptions,
    connector: C,
) -> Result<Pool, Error>
where
    C: tower::Service<http::Uri> + Send + 'static,
    C::Response: rt::Read + rt::Write + Send + Unpin,
    C::Future: Send,
    BoxError: From<C::Error> + Send,
{
    let endpoint = limited(endpoint(target, options)?.executor(CallExecutor), options);
    let connected = endpoint.connect_with_connector(connector).await;
    let channel = connected.map_err(|source| Error::Connect {
        target: target.clone(),
        source,
    })?;
    Ok(Pool::over(target.clone(), channel, endpoint, options))
}

/// With the time that connecting may take, which a pool of our own minds by itself.
fn limited(endpoint: Endpoint, options: &NetOptions) -> Endpoint {
    endpoint.connect_timeout(options.connect_timeout)
}

fn endpoint(target: &Target, options: &NetOptions) -> Result<Endpoint, Error> {
    let uri = uri(target, options)?;
    let endpoint = Endpoint::from_shared(uri).map_err(|_| Error::InvalidTarget {
        text: target.to_string(),
        reason: "it does not form a URI",
    })?;
    let endpoint = tune(endpoint, options);
    match (&options.tls, target) {
        (Some(tls), Target::Network { .. }) => {
            tls::client(endpoint, tls).map_err(|source| Error::ClientTls {
                target: target.clone(),
                source,
            })
        }
        _ => Ok(endpoint),
    }
}

/// Settles the scheme: what the target says and what is configured have to agree.
fn uri(target: &Target, options: &NetOptions) -> Result<String, Error> {
    let with_tls = options.tls.is_some();
    let not_used = |advice| Error::TlsNotUsed {
        target: target.clone(),
        advice,
    };
    match target {
        Target::Unix(_) if with_tls => Err(not_used(
            "a Unix socket has no TLS; call the server's https address",
        )),
        Target::Unix(_) => Ok(target.to_string()),
        Target::Network {
            scheme: Some(Scheme::Http),
            ..
        } if with_tls => Err(not_used("write https:// instead of http://")),
        Target::Network {
            scheme: Some(Scheme::Https),
            ..
        } if !with_tls => Err(Error::TlsNotConfigured {
            target: target.clone(),
        }),
        Target::Network {
            scheme: Some(_), ..
        } => Ok(target.to_string()),
        Target::Network { scheme: None, .. } if with_tls => Ok(format!("https://{target}")),
        Target::Network { scheme: None, .. } => Ok(format!("http://{target}")),
    }
}

fn tune(endpoint: Endpoint, options: &NetOptions) -> Endpoint {
    let endpoint = endpoint
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.max_frame_bytes)
        .http2_max_header_list_size(HTTP2_MAX_HEADER_LIST_BYTES)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(options.keepalive_while_idle);
    let endpoint = options.tuning.apply(endpoint);
    match options.keepalive_interval {
        Some(interval) => endpoint.http2_keep_alive_interval(interval),
        None => endpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "_tls-any")]
    fn with_tls() -> NetOptions {
        NetOptions {
            tls: Some(ClientTlsConfig::new()),
            ..NetOptions::default()
        }
    }

    fn settled(text: &str, options: &NetOptions) -> Result<String, Error> {
        uri(&text.parse().unwrap(), options)
    }

    #[test]
    fn a_target_without_a_scheme_follows_the_configuration() {
        assert_eq!(
            settled("a:1", &NetOptions::default()).unwrap(),
            "http://a:1"
        );
        #[cfg(feature = "_tls-any")]
        assert_eq!(settled("a:1", &with_tls()).unwrap(), "https://a:1");
    }

    #[test]
    fn tls_is_never_dropped_silently() {
        #[cfg(feature = "_tls-any")]
        for target in ["http://a:1", "unix:/a"] {
            assert!(matches!(
                settled(target, &with_tls()),
                Err(Error::TlsNotUsed { .. })
            ));
        }
        assert!(matches!(
            settled("https://a:1", &NetOptions::default()),
            Err(Error::TlsNotConfigured { .. })
        ));
    }
}
