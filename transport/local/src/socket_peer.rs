//! Who is at the other end of a socket in tokio's terms, which other libraries' types are made of and
//! which only a socket yields.

use std::sync::Arc;

use ringway_wire::Role;
use tokio::net::UnixStream;
use tokio::net::unix::{SocketAddr, UCred};

/// The client of a server, as its socket said at the handshake.
#[derive(Debug, Clone)]
pub struct SocketPeer {
    /// The address of its socket; that of a client is unnamed.
    pub address: Option<Arc<SocketAddr>>,
    /// Its uid, gid and pid, as the kernel vouches for them.
    pub credentials: Option<UCred>,
}

impl SocketPeer {
    /// The peer of a server's `stream`; only handlers ask for it.
    pub(crate) fn of(stream: &UnixStream, role: Role) -> Option<Arc<Self>> {
        let peer = || Self {
            address: stream.peer_addr().ok().map(Arc::new),
            credentials: stream.peer_cred().ok(),
        };
        (role == Role::Server).then(|| Arc::new(peer()))
    }
}
