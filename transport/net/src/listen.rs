//! Where a server listens: addresses, and the streams of connections that come of them.

use std::{
    convert::Infallible, fmt, future::Future, io, net::SocketAddr, path::PathBuf, str::FromStr,
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    Error, TcpKeepalive,
    accepted::Accepted,
    held::{Held, Register},
    socket_file::SocketFile,
    target::unix_path,
};

/// Pause after an accept that failed for want of descriptors or memory: trying again at once would
/// take a whole core and free nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address to listen on, or listened on.
///
/// ```
/// use ringway_net::ListenAddress;
///
/// let tcp: ListenAddress = "0.0.0.0:50051".parse()?;
/// let unix: ListenAddress = "unix:/run/shop/catalog.sock".parse()?;
/// assert_eq!(tcp.to_string(), "0.0.0.0:50051");
/// assert_eq!(unix.to_string(), "unix:/run/shop/catalog.sock");
/// # Ok::<(), ringway_net::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP socket; port 0 lets the kernel choose one.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        ListenAddress::Tcp(address)
    }
}

impl FromStr for ListenAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidListenAddress {
            text: text.to_owned(),
            reason,
        };
        match text.strip_prefix("unix:") {
            Some(rest) => unix_path(rest)?
                .map(ListenAddress::Unix)
                .ok_or_else(|| invalid("it has no usable path")),
            None => text
                .parse()
                .map(ListenAddress::Tcp)
                .map_err(|_| invalid("it is not an IP address and a port")),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket, not yet served.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(SocketFile),
}

impl Listener {
    pub(crate) async fn bind(address: &ListenAddress) -> Result<Self, Error> {
        match address {
            ListenAddress::Tcp(tcp) => {
                TcpListener::bind(tcp)
                    .await
                    .map(Listener::Tcp)
                    .map_err(|source| Error::Bind {
                        address: address.clone(),
                        source,
                    })
            }
            ListenAddress::Unix(path) => SocketFile::bind(path).await.map(Listener::Unix),
        }
    }

    /// Where it really listens: with the port that the kernel chose.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Listener::Unix(file) => Ok(ListenAddress::Unix(file.path().to_owned())),
        }
    }
}

/// How a TCP connection is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpSettings {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: TcpKeepalive,
}

impl Listener {
    /// Accepts the next connection, and tells as which user its client runs, where that is known.
    async fn accept(&self, settings: TcpSettings) -> (Accepted, Option<u32>) {
        match self {
            Self::Tcp(listener) => (Accepted::Tcp(accept_tcp(listener, settings).await), None),
            Self::Unix(file) => {
                let (connection, _) = accept(|| file.listener().accept()).await;
                let uid = connection.peer_cred().ok().map(|peer| peer.uid());
                (Accepted::Unix(connection), uid)
            }
        }
    }
}

/// Connections of either kind. Dropping the stream closes the listening socket, and removes its file.
pub(crate) fn connections(
    listener: Listener,
    settings: TcpSettings,
    register: Register,
) -> impl Stream<Item = Result<Held<Accepted>, Infallible>> + Send {
    stream::unfold(
        (listener, register),
        move |(listener, register)| async move {
            loop {
                let (connection, uid) = listener.accept(settings).await;
                if let Some(held) = register.hold(connection, uid) {
                    return Some((Ok(held), (listener, register)));
                }
            }
        },
    )
}

/// Connections over TCP alone: handlers behind TLS find their caller by the type of the connection.
#[cfg(feature = "_tls-any")]
pub(crate) fn tcp_connections(
    listener: TcpListener,
    settings: TcpSettings,
    register: Register,
) -> impl Stream<Item = Result<Held<TcpStream>, Infallible>> + Send {
    stream::unfold(
        (listener, register),
        move |(listener, register)| async move {
            loop {
                let connection = accept_tcp(&listener, settings).await;
                if let Some(held) = register.hold(connection, None) {
                    return Some((Ok(held), (listener, register)));
                }
            }
        },
    )
}

async fn accept_tcp(listener: &TcpListener, settings: TcpSettings) -> TcpStream {
    let (connection, _) = accept(|| listener.accept()).await;
    let set = connection.set_nodelay(settings.nodelay);
    if let Err(error) = set.and_then(|()| settings.keepalive.apply(&connection)) {
        tracing::debug!(%error, "could not set up a TCP connection");
    }
    connection
}

/// Accepts until it works: an error of one connection is skipped, any other waited out.
async fn accept<T, F>(mut try_accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match try_accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that accept(2) passes on from the connection it took off the queue.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_cannot_be_listened_on_is_refused_by_name() {
        for text in ["", "catalog:1", "127.0.0.1", "unix:", "http://127.0.0.1:1"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_skipped_and_a_shortage_waited_out() {
        let mut results = vec![
            Ok("accepted"),
            Err(io::Error::other("too many open files")),
            Err(io::ErrorKind::ConnectionAborted.into()),
        ];
        let begin = Instant::now();
        let accepted = accept(|| std::future::ready(results.pop().unwrap())).await;
        assert_eq!(accepted, "accepted");
        assert!(begin.elapsed() >= ACCEPT_PAUSE);
    }
}
