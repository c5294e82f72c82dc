//! Where servers are found: `$RINGWAY_DIR/<name>/<instance>.sock`.
//!
//! A directory is trusted only if it belongs to this user, to root or to a user that is let in, and
//! nobody else may write to it. Loopback names mean something only within one network namespace, so they are kept under a
//! key of that namespace.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::config::UidPolicy;
use crate::error::DirectoryError;
use crate::system::{PATH, widened};
use crate::walk::Walk;

/// The rendezvous directory of one user.
///
/// ```
/// use ringway_local::Directory;
///
/// let directory = Directory::at("/run/ringway");
/// assert!(directory.of_name("catalog:50051").unwrap().ends_with("catalog:50051"));
/// assert!(directory.of_name("../catalog").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    root: PathBuf,
}

/// What named the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryOrigin {
    /// `$RINGWAY_DIR`.
    Variable,
    /// `$XDG_RUNTIME_DIR`.
    Runtime,
    /// Neither is set, and this user may use `/run/ringway`.
    Run,
    /// Neither is set.
    Temporary,
}

impl fmt::Display for DirectoryOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Variable => "by RINGWAY_DIR",
            Self::Runtime => "by XDG_RUNTIME_DIR, as RINGWAY_DIR is not set",
            Self::Run => "this user's default, as RINGWAY_DIR is not set",
            Self::Temporary => "this user's last resort, as RINGWAY_DIR is not set",
        })
    }
}

/// The longest name of a server, in bytes: a file name's limit.
const MAX_NAME_BYTES: usize = 255;
/// Before the key of a network namespace.
const NAMESPACE_PREFIX: &str = "net-";

impl Directory {
    /// The directory that the environment names: `$RINGWAY_DIR`, else `$XDG_RUNTIME_DIR/ringway`,
    /// else `/run/ringway` where this user may use it, else `/tmp/ringway-UID`.
    pub fn from_environment() -> Self {
        Self::chosen().0
    }

    /// The same, and what named it.
    pub fn chosen() -> (Self, DirectoryOrigin) {
        if let Some(root) = non_empty("RINGWAY_DIR") {
            return (Self::at(root), DirectoryOrigin::Variable);
        }
        if let Some(runtime) = non_empty("XDG_RUNTIME_DIR") {
            let root = Path::new(&runtime).join("ringway");
            return (Self::at(root), DirectoryOrigin::Runtime);
        }
        let uid = rustix::process::getuid();
        let run = Path::new("/run/ringway");
        if uid.is_root() || fs::metadata(run).is_ok_and(|found| found.uid() == uid.as_raw()) {
            return (Self::at(run), DirectoryOrigin::Run);
        }
        let root = format!("/tmp/ringway-{}", uid.as_raw());
        (Self::at(root), DirectoryOrigin::Temporary)
    }

    /// The directory at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the directory is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds the sockets of the server called `name`.
    ///
    /// # Errors
    /// [`DirectoryError::Name`] if `name` is empty, too long, or would leave the directory.
    pub fn of_name(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let acceptable = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && !name.starts_with('.')
            && !name.contains(['/', '\0']);
        if !acceptable {
            return Err(DirectoryError::Name(name.to_owned()));
        }
        if is_loopback(name) {
            let namespace = network_namespace();
            return Ok(self
                .root
                .join(format!("{NAMESPACE_PREFIX}{namespace}"))
                .join(name));
        }
        Ok(self.root.join(name))
    }

    /// The names under which servers stood or stand, sorted; of loopback names those of this network
    /// namespace.
    ///
    /// # Errors
    /// The directory's read error.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let here = format!("{NAMESPACE_PREFIX}{}", network_namespace());
        let mut names = subdirectories(&self.root)?;
        names.retain(|name| !name.starts_with(NAMESPACE_PREFIX));
        match subdirectories(&self.root.join(here)) {
            Ok(loopback) => names.extend(loopback),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the directory of `name` and checks who owns what is there. Nobody else can enter it
    /// (mode 0700) unless `peers` has users who must (0755).
    ///
    /// # Errors
    /// A [`DirectoryError`] that names the path and what is wrong with it.
    pub fn create_for(
        &self,
        name: &str,
        peers: &UidPolicy,
    ) -> Result<OpenDirectory, DirectoryError> {
        let mode = match peers.allows_others() {
            true => 0o755,
            false => 0o700,
        };
        let walk = Walk {
            root: &self.root,
            peers,
            create: Some(mode),
        };
        OpenDirectory::open(self.of_name(name)?, walk)
    }

    /// Opens the directory of `name`, of a server that runs as this user, as root, or as one of
    /// `peers`; `None` if no server ever stood there.
    ///
    /// # Errors
    /// A [`DirectoryError`] if it is there and must not be used.
    pub fn open(
        &self,
        name: &str,
        peers: &UidPolicy,
    ) -> Result<Option<OpenDirectory>, DirectoryError> {
        let walk = Walk {
            root: &self.root,
            peers,
            create: None,
        };
        match OpenDirectory::open(self.of_name(name)?, walk) {
            Ok(found) => Ok(Some(found)),
            Err(DirectoryError::Open { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The directory of one server name, held open so that its sockets are reached relative to it.
#[derive(Debug)]
pub struct OpenDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl OpenDirectory {
    fn open(path: PathBuf, walk: Walk<'_>) -> Result<Self, DirectoryError> {
        let descriptor = walk.open(&path)?;
        Ok(Self { path, descriptor })
    }

    /// The path that people see.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A short path to `file` within this directory that fits into a socket address, however
    /// long the directory's own path is.
    pub fn short_path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!(
            "/proc/self/fd/{}/{file}",
            self.descriptor.as_raw_fd()
        ))
    }

    /// The address to bind `file` to: by its own path, where that fits into an address. It is what
    /// `/proc/net/unix` shows from then on, where people look, and tools that remove old files: they
    /// leave alone what is bound.
    pub(crate) fn address_of(&self, file: &str) -> io::Result<SocketAddrUnix> {
        let own = std::path::absolute(self.path.join(file))?;
        let address = SocketAddrUnix::new(own);
        Ok(address.or_else(|_| SocketAddrUnix::new(self.short_path(file)))?)
    }

    /// Lets users in whom the permissions of a fresh socket keep out. Who they are is asked when they
    /// come. It is the socket that was found, and nothing that a link leads to.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open_to_others(&self, socket: &str) -> io::Result<()> {
        rustix::fs::fchmod(&self.descriptor, Mode::from_raw_mode(0o755))?;
        let flags = PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&self.descriptor, socket, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind != FileType::Socket {
            return Err(Errno::NOTSOCK.into());
        }
        let by_descriptor = format!("/proc/self/fd/{}", found.as_raw_fd());
        fs::set_permissions(by_descriptor, Permissions::from_mode(0o666))
    }

    /// Which file is called `file` here.
    pub(crate) fn identity_of(&self, file: &str) -> io::Result<Identity> {
        let found = rustix::fs::statat(&self.descriptor, file, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Identity(widened(found.st_dev), found.st_ino))
    }

    /// Whether the path of `file`, from the file system's root on, still leads to the file that was
    /// called so.
    pub(crate) fn still_leads_to(&self, file: &str, identity: Identity) -> bool {
        let found = fs::symlink_metadata(self.path.join(file));
        found.is_ok_and(|found| Identity(found.dev(), found.ino()) == identity)
    }

    /// The names of the sockets in this directory, in the order in which to try them.
    ///
    /// # Errors
    /// The directory's read error.
    pub fn sockets(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.short_path(""))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".sock") && is_plain(name))
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

fn subdirectories(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_plain(name))
        .collect())
}

/// Returns true if a file's name can stand in a log or on a terminal, where another user may have chosen it. No server is lost:
/// no handshake takes a name with control characters.
fn is_plain(name: &str) -> bool {
    let is_printed = |letter: char| letter.is_ascii_graphic() || letter.escape_debug().len() == 1;
    name.chars().all(is_printed)
}

fn non_empty(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

fn is_loopback(name: &str) -> bool {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

fn network_namespace() -> u64 {
    fs::metadata("/proc/self/ns/net").map_or(0, |found| found.ino())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_belong_to_a_network_namespace() {
        let directory = Directory::at("/run/ringway");
        for name in ["127.0.0.1:1", "localhost:1", "[::1]:1"] {
            let path = directory.of_name(name).unwrap();
            assert!(path.to_str().unwrap().contains("/net-"), "{path:?}");
        }
        assert_eq!(
            directory.of_name("catalog:1").unwrap(),
            Path::new("/run/ringway/catalog:1")
        );
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let directory = Directory::at("/run/ringway");
        for name in ["", "..", "a/b", ".hidden", "nul\0", &"x".repeat(256)] {
            assert!(directory.of_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(temporary.path().join("ringway"));
        let made = directory
            .create_for("catalog:1", &UidPolicy::SameUser)
            .unwrap();
        assert_eq!(
            fs::metadata(made.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            directory.open("catalog:1", &UidPolicy::Anyone),
            Err(DirectoryError::Writable { .. })
        ));
    }

    #[test]
    fn names_are_listed_whatever_their_host() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(temporary.path());
        assert_eq!(directory.names().unwrap(), [""; 0]);
        fs::create_dir(temporary.path().join("net-0")).unwrap();
        fs::create_dir(temporary.path().join("net-0/127.0.0.1:9")).unwrap();
        for name in ["orders:1", "127.0.0.1:2", "catalog:1"] {
            drop(directory.create_for(name, &UidPolicy::SameUser).unwrap());
        }
        fs::create_dir(temporary.path().join("forged:1\n\u{1b}[2J")).unwrap();
        let names = directory.names().unwrap();
        assert_eq!(names, ["127.0.0.1:2", "catalog:1", "orders:1"]);
        assert!(
            Directory::at(temporary.path().join("missing"))
                .names()
                .is_err()
        );
    }

    #[test]
    fn sockets_whose_names_would_forge_a_log_are_passed_over() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(temporary.path());
        let open = directory
            .create_for("catalog:1", &UidPolicy::SameUser)
            .unwrap();
        for name in ["1-a-0.sock", "\n2-a-0.sock", "3-\u{1b}[2J-0.sock"] {
            fs::write(open.path().join(name), "").unwrap();
        }
        assert_eq!(open.sockets().unwrap(), ["1-a-0.sock"]);
    }

    #[test]
    fn an_absent_name_is_no_error() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(temporary.path());
        assert!(
            directory
                .open("catalog:1", &UidPolicy::SameUser)
                .unwrap()
                .is_none()
        );
    }
}
