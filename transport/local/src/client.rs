//! The client's way to a local server.

use std::sync::Arc;

use ringway_sys::peer_credentials;
use std::os::fd::AsFd;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::config::{LocalConfig, UidPolicy};
use crate::connection::Connection;
use crate::directory::{Directory, OpenDirectory};
use crate::error::ConnectError;
use crate::rendezvous::Rendezvous;
use crate::server::instance_number;

/// The instances of the server called `name` that are found in `directory`, in the order in which
/// to try them; some may have gone. Only directories of this user, of root and of `peers` count.
///
/// # Errors
/// A [`ConnectError`] that says what to do; [`ConnectError::Absent`] where there are none.
pub fn instances(
    directory: &Directory,
    name: &str,
    peers: &UidPolicy,
) -> Result<Vec<String>, ConnectError> {
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
/// A [`ConnectError`] that says what to do; [`ConnectError::Absent`] if it has gone.
pub async fn connect(
    directory: &Directory,
    name: &str,
    instance: &str,
    config: &LocalConfig,
) -> Result<Arc<Connection>, ConnectError> {
    let open = directory
        .open(name, &config.peers)?
        .ok_or_else(|| absent(directory, name))?;
    let met = meet(&open, instance, name, config).await;
    met.map_err(|refused| refused.unwrap_or_else(|| absent(directory, name)))
}

fn absent(directory: &Directory, name: &str) -> ConnectError {
    ConnectError::Absent {
        name: name.to_owned(),
        directory: directory.root().to_owned(),
    }
}

/// Meets one instance; an error of `None` means that nobody listens there any more.
async fn meet(
    directory: &OpenDirectory,
    socket: &str,
    name: &str,
    config: &LocalConfig,
) -> Result<Arc<Connection>, Option<ConnectError>> {
    let stream = match UnixStream::connect(directory.short_path(socket)).await {
        Ok(stream) => stream,
        Err(error) if is_stale(&error) => return Err(None),
        Err(error) => return Err(Some(io_error(name, error))),
    };
    let peer = peer_credentials(stream.as_fd()).map_err(|error| Some(io_error(name, error)))?;
    if !config.peers.allows(peer.uid) {
        return Err(Some(ConnectError::PeerUid {
            name: name.to_owned(),
            uid: peer.uid,
        }));
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
        Ok(Err(reason)) => Err(Some(ConnectError::Handshake {
            name: name.to_owned(),
            reason,
        })),
        Err(_) => Err(Some(ConnectError::HandshakeTimeout {
            name: name.to_owned(),
            seconds: config.handshake_timeout.as_secs(),
        })),
    }
}

/// Whether the socket's owner has gone: a restarted server leaves its old socket behind.
pub(crate) fn is_stale(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound
    )
}

fn io_error(name: &str, error: std::io::Error) -> ConnectError {
    ConnectError::Io {
        name: name.to_owned(),
        error,
    }
}
