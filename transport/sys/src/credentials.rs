//! Who is at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
//!
//! The kernel takes the credentials at connect (for a listener's peer: at listen) and translates
//! them into the reader's namespaces; a uid that is hidden there reads as the overflow uid.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::LazyLock;

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

/// The uid that stands for each one that has none in the reader's user namespace, where there are such.
static HIDDEN_UID: LazyLock<Option<u32>> = LazyLock::new(|| {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid");
    hidden_uid(&overflow, &read("/proc/self/uid_map"))
});

/// Returns true if `uid` may stand for any user that this process's user namespace does not map: then it
/// tells nothing of who that is, not even where this process runs as that very uid.
#[must_use]
pub fn is_hidden_uid(uid: u32) -> bool {
    *HIDDEN_UID == Some(uid)
}

/// `uid_map` has lines of a first uid inside, one outside, and how many (user_namespaces(7)). A namespace
/// that maps all uids hides none.
fn hidden_uid(overflow: &str, uid_map: &str) -> Option<u32> {
    const DEFAULT_OVERFLOW_UID: u32 = 65_534;
    let lines = uid_map.lines();
    let lens = lines.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    // One uid stands for an error, and is nobody's.
    if lens.sum::<u64>() >= u64::from(u32::MAX) {
        return None;
    }
    Some(overflow.trim().parse().unwrap_or(DEFAULT_OVERFLOW_UID))
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
#[cfg(target_os = "linux")]
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

/// Refuses: a client whose pid is not told is none that local paths take.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn peer_credentials(_: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    Err(io::ErrorKind::Unsupported.into())
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
    fn a_uid_is_hidden_only_where_some_are_not_mapped() {
        let initial = "         0          0 4294967295\n";
        assert_eq!(hidden_uid("65534\n", initial), None);
        let rootless = "0 1000 1\n1 100000 65536\n";
        assert_eq!(hidden_uid("65534\n", rootless), Some(65_534));
        assert_eq!(hidden_uid("12\n", rootless), Some(12));
        assert_eq!(hidden_uid("", ""), Some(65_534), "nothing can be read");
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
