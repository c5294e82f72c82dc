//! A server's listening socket in the rendezvous directory: bound, kept where clients look for it, and
//! rid of what dead instances left beside it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ringway_sys::{NotInChildren, peer_credentials};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use tokio::net::UnixListener;

use crate::config::UidPolicy;
use crate::directory::{Directory, Identity, OpenDirectory};
use crate::error::DirectoryError;
use crate::namesakes;
use crate::server::instance_number;
use crate::system::SOCKET_FLAGS;

/// Clients that have connected and were not accepted yet, at most; the kernel may allow fewer.
const BACKLOG: i32 = 4096;
/// A socket that refuses clients is taken for abandoned when it is older: a younger one may be bound and
/// about to listen.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// A listening socket, and the file that leads to it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    directory: OpenDirectory,
    file: String,
    identity: Identity,
    /// Before the listener, so that it is dropped first.
    not_in_children: NotInChildren,
    listener: UnixListener,
}

impl SocketFile {
    /// Listens as `name` where `peers` can reach it, after removing what instances that have gone left
    /// there. It waits for none of the others: any may be stopped.
    pub(crate) fn bind(
        directory: &Directory,
        name: &str,
        peers: &UidPolicy,
    ) -> Result<Self, DirectoryError> {
        let opened = directory.create_for(name, peers)?;
        namesakes::tell(name, &remove_stale_sockets(&opened));
        let file = fresh_name();
        let failed = |error| DirectoryError::Create {
            path: opened.path().join(&file),
            error,
        };
        let bound = listen(&opened, &file, peers.allows_others());
        let (listener, identity) = bound.map_err(failed)?;
        Ok(Self {
            directory: opened,
            file,
            identity,
            not_in_children: NotInChildren::note(&listener),
            listener,
        })
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The path that leads to it, unless it was taken away.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join(&self.file)
    }

    /// Whether clients still find it.
    pub(crate) fn is_in_place(&self) -> bool {
        self.directory.still_leads_to(&self.file, self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.not_in_children.is_inherited() {
            // The server is the parent, and goes on.
            return;
        }
        // Another server removes it later otherwise: nothing depends on this.
        let _ = fs::remove_file(self.directory.short_path(&self.file));
    }
}

/// Binds, lets others in, and listens, in this order: a client that comes too early is refused, as one
/// that came before all of it is.
fn listen(
    directory: &OpenDirectory,
    file: &str,
    others: bool,
) -> io::Result<(UnixListener, Identity)> {
    let socket = new_socket()?;
    rustix::net::bind(&socket, &directory.address_of(file)?)?;
    let listening = || {
        if others {
            directory.open_to_others(file)?;
        }
        let identity = directory.identity_of(file)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(identity)
    };
    let identity = listening().inspect_err(|_: &io::Error| {
        // It is of no use to anybody.
        let _ = fs::remove_file(directory.short_path(file));
    })?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
    Ok((listener, identity))
}

fn new_socket() -> io::Result<OwnedFd> {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SOCKET_FLAGS, None)?;
    Ok(socket)
}

/// Removes what nobody listens on any more; the processes that listen on the others.
fn remove_stale_sockets(directory: &OpenDirectory) -> Vec<u32> {
    let mut living = Vec::new();
    for socket in directory.sockets().unwrap_or_default() {
        let path = directory.short_path(&socket);
        match listener_of(&path) {
            // Another server may have been quicker.
            Ok(None) if is_old(&path) => drop(fs::remove_file(path)),
            Ok(Some(pid)) => living.push(pid),
            Ok(None) | Err(_) => {}
        }
    }
    living.sort_unstable();
    living.dedup();
    living
}

fn is_old(path: &Path) -> bool {
    let made = fs::symlink_metadata(path).and_then(|found| found.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    age.is_ok_and(|age| age >= STALE_AFTER)
}

/// The process that listens on the socket at `path`; `None` if its owner has gone. One that is there and accepts
/// nothing has a full queue sooner or later: to connect then takes until it goes on, unless the kernel is told not
/// to wait.
fn listener_of(path: &Path) -> io::Result<Option<u32>> {
    let socket = new_socket()?;
    let address = SocketAddrUnix::new(path)?;
    match rustix::net::connect(socket.as_fd(), &address) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let peer = peer_credentials(socket.as_fd()).map_err(io::Error::other)?;
    peer.pid
        .map(Some)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A name that no other instance takes, in whatever container it runs: there each process is likely
/// to be number 1. The number is for people who look into the directory.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (pid, instance) = (std::process::id(), instance_number() >> 64);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{pid}-{instance:016x}-{number}.sock")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;
    use std::time::Instant;

    use super::*;

    const NAME: &str = "catalog:1";

    fn bind(directory: &Path) -> SocketFile {
        SocketFile::bind(&Directory::at(directory), NAME, &UidPolicy::SameUser).unwrap()
    }

    fn made_long_ago(path: &Path) {
        let long_ago = SystemTime::now() - 2 * STALE_AFTER;
        let times = rustix::fs::Timestamps {
            last_access: since_epoch(long_ago),
            last_modification: since_epoch(long_ago),
        };
        let (at, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        rustix::fs::utimensat(at, path, &times, flags).unwrap();
    }

    fn since_epoch(time: SystemTime) -> rustix::fs::Timespec {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        rustix::fs::Timespec {
            tv_sec: since.as_secs().try_into().unwrap(),
            tv_nsec: 0,
        }
    }

    #[tokio::test]
    async fn the_kernel_knows_it_by_its_own_path() {
        let scratch = tempfile::tempdir().unwrap();
        let socket = bind(scratch.path());
        let known = fs::read_to_string("/proc/net/unix").unwrap();
        let path = socket.path();
        assert!(known.contains(path.to_str().unwrap()), "{}", path.display());
    }

    #[tokio::test]
    async fn a_path_that_fits_into_no_address_is_bound_all_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let deep = scratch.path().join("x".repeat(100)).join("y".repeat(100));
        let socket = bind(&deep);
        assert!(socket.is_in_place());
    }

    /// A socket that is bound and does not listen yet refuses clients as one that was left behind does.
    #[tokio::test]
    async fn what_refuses_is_removed_once_it_is_old() {
        let scratch = tempfile::tempdir().unwrap();
        let first = bind(scratch.path());
        let beside = |file: &str| first.path().with_file_name(file);
        let (young, old) = (beside("young.sock"), beside("old.sock"));
        for path in [&young, &old] {
            drop(StdListener::bind(path).unwrap());
        }
        made_long_ago(&old);
        made_long_ago(&first.path());
        let _second = bind(scratch.path());
        assert!(young.exists() && !old.exists() && first.is_in_place());
    }

    /// Of an instance that is stopped, the queue of clients is full sooner or later.
    #[tokio::test]
    async fn an_instance_that_accepts_nothing_is_not_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let first = bind(scratch.path());
        let stopped = first.path().with_file_name("0-stopped.sock");
        let socket = new_socket().unwrap();
        let address = SocketAddrUnix::new(&stopped).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        made_long_ago(&stopped);
        let mut clients = Vec::new();
        loop {
            let client = new_socket().unwrap();
            match rustix::net::connect(&client, &address) {
                Ok(()) => clients.push(client),
                Err(errno) => break assert_eq!(errno, Errno::AGAIN),
            }
        }
        let began = Instant::now();
        let _second = bind(scratch.path());
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(stopped.exists());
    }
}
