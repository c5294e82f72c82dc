//! A listening Unix socket and the file that names it: taken over if nobody accepts on it any more,
//! and removed at the end.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::net::{UnixListener, UnixStream};

use crate::{Error, ListenAddress};

const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A listening socket that owns its file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    identity: Option<Identity>,
}

/// Device and inode: the path alone may have become somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl SocketFile {
    /// Binds the path, after removing a file that a dead server left there.
    ///
    /// The directory is locked meanwhile: of two servers that find the same stale file, the second
    /// would otherwise remove the socket that the first has just bound. Whoever may open the directory can keep
    /// the lock, so it is waited for, and not needed.
    pub(crate) async fn bind(path: &Path) -> Result<Self, Error> {
        let _lock = lock_directory(path).await?;
        remove_if_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(|source| bind_error(path, source))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: identity_of(path),
        })
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    /// Removes the file before the listener closes, so that nobody takes it for a stale one.
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity_of(&self.path) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the socket file");
        }
    }
}

fn identity_of(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(Identity(metadata.dev(), metadata.ino()))
}

/// The lock on the directory of `path`; `None` where another process keeps it.
async fn lock_directory(path: &Path) -> Result<Option<File>, Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = File::open(directory).map_err(|source| bind_error(path, source))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(source)) => return Err(bind_error(path, source)),
            Err(TryLockError::WouldBlock) if begin.elapsed() > LOCK_WAIT => {
                tracing::warn!(
                    directory = %directory.display(),
                    "another process keeps this directory locked: listening in it all the same"
                );
                return Ok(None);
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
        }
    }
}

async fn remove_if_stale(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(bind_error(path, source)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| bind_error(path, source))
        }
        // A full queue of connections means that somebody listens, if slowly.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(bind_error(path, error)),
        _ => Err(Error::SocketInUse {
            path: path.to_owned(),
        }),
    }
}

fn bind_error(path: &Path, source: io::Error) -> Error {
    Error::Bind {
        address: ListenAddress::Unix(path.to_owned()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn a_stale_file_is_taken_over_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(
            path.exists(),
            "std leaves its file behind, as a killed server does"
        );

        let file = SocketFile::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_is_served_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _first = SocketFile::bind(&path).await.unwrap();
        assert!(matches!(
            SocketFile::bind(&path).await,
            Err(Error::SocketInUse { .. })
        ));
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(
            SocketFile::bind(&path).await,
            Err(Error::NotASocket { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn of_two_racing_servers_one_wins_and_can_be_called() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(StdListener::bind(&path).unwrap());

        let (one, two) = tokio::join!(SocketFile::bind(&path), SocketFile::bind(&path));
        assert!(one.is_ok() != two.is_ok());
        UnixStream::connect(&path).await.unwrap();
    }

    /// Anybody may lock what anybody may open.
    #[tokio::test]
    async fn a_lock_that_is_kept_keeps_no_server_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let kept = File::open(dir.path()).unwrap();
        kept.lock().unwrap();
        let _bound = SocketFile::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_successors_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = SocketFile::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _second = SocketFile::bind(&path).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
    }
}
