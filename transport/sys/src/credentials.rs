//! Who is at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
//!
//! The kernel takes the credentials at connect (for a listener's peer: at listen) and translates
//! them into the reader's namespaces; a uid that is hidden there reads as the overflow uid.

use std::io;
use std::os::fd::BorrowedFd;

/// The peer of a Unix socket, as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process that connected, or `None` if it is not visible from this pid namespace.
    /// Good for messages only: pids mean nothing across containers and are used again.
    pub pid: Option<u32>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Asks the kernel who is at the other end of `socket`.
///
/// # Errors
/// The socket is not a connected Unix socket.
///
/// ```
/// use std::os::{fd::AsFd, unix::net::UnixStream};
/// let (socket, _peer) = UnixStream::pair()?;
/// let peer = ringway_sys::peer_credentials(socket.as_fd())?;
/// assert_eq!(peer.pid, Some(std::process::id()));
/// # std::io::Result::Ok(())
/// ```
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let mut raw = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // Not rustix's: its `UCred` holds a non-zero pid, and the kernel answers 0 for a hidden one.
    // SAFETY: `raw` and `len` are live for the call, and `len` is the size of `raw`; any bit
    // pattern is a valid `ucred`.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut raw).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials {
        pid: u32::try_from(raw.pid).ok().filter(|pid| *pid != 0),
        uid: raw.uid,
        gid: raw.gid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_credentials(one.as_fd()).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn a_listener_has_credentials_too_and_a_pipe_has_none() {
        let directory = std::env::temp_dir().join(format!("ringway-cred-{}", std::process::id()));
        let listener = UnixListener::bind(&directory).unwrap();
        let client = UnixStream::connect(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(
            peer_credentials(server.as_fd()).unwrap(),
            peer_credentials(client.as_fd()).unwrap()
        );
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(peer_credentials(reader.as_fd()).is_err());
    }
}
