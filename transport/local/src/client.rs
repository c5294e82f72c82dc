//! The client's way to a local server.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ringway_sys::peer_credentials;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::config::{LocalConfig, UidPolicy};
use crate::connection::Connection;
use crate::directory::Directory;
use crate::error::ConnectError;
use crate::rendezvous::Rendezvous;
use crate::server::instance_number;

/// The longest pause before an instance whose queue was full is tried again.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// The instances of the server called `name` that are found in `directory`, in the order in which
/// to try them; some may have gone. Only directories of this user, of root and of `peers` count.
///
/// # Errors
/// A [`ConnectError`] that says what to do; [`ConnectError::is_absence`] where there are none.
pub fn instances(
    directory: &Directory,
    name: &str,
    peers: &UidPolicy,
) -> Result<Vec<String>, ConnectError> {
    // Other systems have no path between processes but the network.
    if cfg!(not(target_os = "linux")) {
        return Err(absent(directory, name));
    }
    let open = directory
        .open(name, peers)?
        .ok_or_else(|| absent(directory, name))?;
    let sockets = open.sockets().map_err(|error| io_error(name, error))?;
    match sockets.is_empty() {
        true => Err(absent(directory, name)),
        false => Ok(sockets),
    }
}

/// Connects to one of the [`instances`] of the server called `name`.
///
/// # Errors
/// A [`ConnectError`] that says what to do; [`ConnectError::Absent`] if it has gone, and
/// [`ConnectError::Stale`] if it left its socket behind.
pub fn connect<'a>(
    directory: &'a Directory,
    name: &'a str,
    instance: &'a str,
    config: &'a LocalConfig,
) -> BoxFuture<'a, Result<Arc<Connection>, ConnectError>> {
    // Boxed here, so that this crate holds its machine code, and not once more each that connects.
    Box::pin(dial(directory, name, instance, config))
}

async fn dial(
    directory: &Directory,
    name: &str,
    instance: &str,
    config: &LocalConfig,
) -> Result<Arc<Connection>, ConnectError> {
    let open = directory
        .open(name, &config.peers)?
        .ok_or_else(|| absent(directory, name))?;
    let path = open.short_path(instance);
    let stream = match timeout(config.handshake_timeout, connect_to(&path)).await {
        Ok(Ok(stream)) => stream,
        Err(_) => return Err(too_late(name, config)),
        Ok(Err(error)) => {
            return Err(match error.kind() {
                ErrorKind::NotFound => absent(directory, name),
                ErrorKind::ConnectionRefused => ConnectError::Stale {
                    name: name.to_owned(),
                    path: open.path().join(instance),
                },
                _ => io_error(name, error),
            });
        }
    };
    meet(stream, name, config).await
}

/// Connects, waiting while the instance's queue of clients is full: for a socket of this kind the kernel
/// has no event for its end.
async fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                sleep(pause).await;
                pause = (2 * pause).min(QUEUE_PAUSE);
            }
            connected => return connected,
        }
    }
}

fn absent(directory: &Directory, name: &str) -> ConnectError {
    let (name, directory) = (name.to_owned(), directory.root().to_owned());
    match directory.try_exists() {
        Ok(false) => ConnectError::NoDirectory { name, directory },
        _ => ConnectError::Absent { name, directory },
    }
}

/// Makes the acquaintance of whoever is at the other end.
async fn meet(
    stream: UnixStream,
    name: &str,
    config: &LocalConfig,
) -> Result<Arc<Connection>, ConnectError> {
    let peer = peer_credentials(stream.as_fd()).map_err(|error| io_error(name, error))?;
    if !config.peers.allows(peer.uid) {
        return Err(ConnectError::PeerUid {
            name: name.to_owned(),
            uid: peer.uid,
        });
    }
    let rendezvous = Rendezvous {
        stream,
        config,
        name,
        instance: instance_number(),
        peer,
    };
    match timeout(config.handshake_timeout, rendezvous.call()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(reason)) => Err(ConnectError::Handshake {
            name: name.to_owned(),
            reason,
        }),
        Err(_) => Err(too_late(name, config)),
    }
}

fn too_late(name: &str, config: &LocalConfig) -> ConnectError {
    ConnectError::HandshakeTimeout {
        name: name.to_owned(),
        seconds: config.handshake_timeout.as_secs(),
    }
}

fn io_error(name: &str, error: io::Error) -> ConnectError {
    ConnectError::Io {
        name: name.to_owned(),
        error,
    }
}
