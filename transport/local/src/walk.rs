//! The way to a server's directory, one step after the other: each is opened relative to the one before
//! it and judged by what was opened, so that nobody puts another directory in its place in between.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawMode, Stat, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use crate::config::UidPolicy;
use crate::error::DirectoryError;
use crate::system::{PATH, mode_bits};

/// Symbolic links on the way, at most: as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// The uid of users that a user namespace does not know (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_UID: u32 = 65_534;

/// How a directory is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk<'a> {
    /// The rendezvous directory. From here on no step may be a link.
    pub(crate) root: &'a Path,
    /// Whose directories are trusted, beside those of this user and of root.
    pub(crate) peers: &'a UidPolicy,
    /// With which mode missing steps are made; `None` makes none.
    pub(crate) create: Option<RawMode>,
}

impl Walk<'_> {
    /// Opens the directory at `path`, which lies in the root.
    ///
    /// Each step belongs to a trusted user, links on the way to the root as well. A step down to the root
    /// that others may write to is let pass (a volume that containers share is one): they can take away
    /// what lies there, and nothing of theirs passes for it. Below the root it is not, since only this
    /// library makes directories there.
    pub(crate) fn open(&self, path: &Path) -> Result<OwnedFd, DirectoryError> {
        let root = absolute(self.root)?;
        let path = absolute(path)?;
        let below = path.strip_prefix(&root).unwrap_or(Path::new(""));
        let mut walked = Walked::begin()?;
        self.follow(&mut walked, names(&root))?;
        for name in names(below) {
            self.enter(&mut walked, &name)?;
            walked.refuse_writable()?;
        }
        if below.as_os_str().is_empty() {
            walked.refuse_writable()?;
        }
        walked.into_readable()
    }

    /// Goes the way to the root, by trusted links too.
    fn follow(&self, walked: &mut Walked, way: VecDeque<OsString>) -> Result<(), DirectoryError> {
        let (mut ahead, mut links) = (way, 0);
        while let Some(name) = ahead.pop_front() {
            let (found, stat) = match self.open_step(walked, &name)? {
                Step::Directory => continue,
                Step::Link { found, stat } => (found, stat),
            };
            let path = walked.path.join(&name);
            self.check_owner(&path, &stat)?;
            links += 1;
            if links > MAX_LINKS {
                return Err(open_error(&path, Errno::LOOP));
            }
            let target = readlinkat(&found, "", Vec::new());
            let target = target.map_err(|errno| open_error(&path, errno))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                *walked = Walked::begin()?;
            }
            for name in names(&target).into_iter().rev() {
                ahead.push_front(name);
            }
        }
        Ok(())
    }

    /// Goes one step that must be a directory.
    fn enter(&self, walked: &mut Walked, name: &OsStr) -> Result<(), DirectoryError> {
        match self.open_step(walked, name)? {
            Step::Directory => Ok(()),
            Step::Link { .. } => Err(open_error(&walked.path.join(name), Errno::LOOP)),
        }
    }

    /// Opens what is called `name`, after making it where that is missing and wanted, and goes there if
    /// it is a directory.
    fn open_step(&self, walked: &mut Walked, name: &OsStr) -> Result<Step, DirectoryError> {
        let path = walked.path.join(name);
        let flags = PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(&walked.descriptor, name, flags, Mode::empty());
        let found = match (open(), self.create) {
            (Err(Errno::NOENT), Some(mode)) => {
                match mkdirat(&walked.descriptor, name, Mode::from_raw_mode(mode)) {
                    // Another server may have been quicker.
                    Ok(()) | Err(Errno::EXIST) => open(),
                    Err(errno) => {
                        let error = errno.into();
                        return Err(DirectoryError::Create { path, error });
                    }
                }
            }
            (found, _) => found,
        };
        let found = found.map_err(|errno| open_error(&path, errno))?;
        let stat = fstat(&found).map_err(|errno| open_error(&path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Ok(Step::Link { found, stat }),
            FileType::Directory => {
                self.check_owner(&path, &stat)?;
                *walked = Walked {
                    path,
                    descriptor: found,
                    stat,
                };
                Ok(Step::Directory)
            }
            _ => Err(open_error(&path, Errno::NOTDIR)),
        }
    }

    fn check_owner(&self, path: &Path, stat: &Stat) -> Result<(), DirectoryError> {
        let owner_uid = stat.st_uid;
        let trusted = UidPolicy::SameUser.allows(owner_uid) || self.peers.allows(owner_uid);
        if trusted || owner_uid == OVERFLOW_UID && is_above(path, self.root) && root_is_unknown() {
            return Ok(());
        }
        Err(DirectoryError::Owner {
            path: path.to_owned(),
            owner_uid,
            own_uid: rustix::process::geteuid().as_raw(),
        })
    }
}

/// What a step was found to be.
enum Step {
    /// A directory, where the walk is now.
    Directory,
    /// A link, where the walk is not.
    Link { found: OwnedFd, stat: Stat },
}

/// Where a walk is.
struct Walked {
    path: PathBuf,
    descriptor: OwnedFd,
    stat: Stat,
}

impl Walked {
    fn begin() -> Result<Self, DirectoryError> {
        let path = PathBuf::from("/");
        let flags = PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let opened = opened.and_then(|descriptor| Ok((fstat(&descriptor)?, descriptor)));
        let (stat, descriptor) = opened.map_err(|errno| open_error(&path, errno))?;
        Ok(Self {
            path,
            descriptor,
            stat,
        })
    }

    fn refuse_writable(&self) -> Result<(), DirectoryError> {
        if self.stat.st_mode & 0o022 == 0 {
            return Ok(());
        }
        Err(DirectoryError::Writable {
            path: self.path.clone(),
            mode: mode_bits(self.stat.st_mode) & 0o7777,
        })
    }

    /// The directory that was reached, opened such that it can be listed.
    fn into_readable(self) -> Result<OwnedFd, DirectoryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.descriptor, ".", flags, Mode::empty())
            .map_err(|errno| open_error(&self.path, errno))
    }
}

fn open_error(path: &Path, errno: Errno) -> DirectoryError {
    DirectoryError::Open {
        path: path.to_owned(),
        error: errno.into(),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, DirectoryError> {
    std::path::absolute(path).map_err(|error: io::Error| DirectoryError::Open {
        path: path.to_owned(),
        error,
    })
}

fn names(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    named.collect()
}

fn is_above(path: &Path, root: &Path) -> bool {
    path != root && root.starts_with(path)
}

/// Whether this process runs in a user namespace that has no root: there the system's own directories
/// belong to a user that it does not know.
fn root_is_unknown() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has_root = map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        matches!((numbers.next(), numbers.next()), (Some(Ok(_)), Some(Ok(0))))
    });
    !has_root
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn walk<'a>(root: &'a Path, peers: &'a UidPolicy) -> Walk<'a> {
        Walk {
            root,
            peers,
            create: None,
        }
    }

    const OWN: &UidPolicy = &UidPolicy::SameUser;

    #[test]
    fn missing_steps_are_made_with_their_mode() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("a/ringway");
        let name = root.join("net-1/catalog:1");
        let walk = Walk {
            create: Some(0o700),
            ..walk(&root, OWN)
        };
        walk.open(&name).unwrap();
        for made in [&root, &name] {
            let mode = fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn a_link_leads_to_the_root_and_none_beyond_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (real, elsewhere) = (
            scratch.path().join("real"),
            scratch.path().join("elsewhere"),
        );
        fs::create_dir_all(real.join("catalog:1")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        for path in [&real.join("catalog:1"), &elsewhere] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let root = scratch.path().join("link");
        symlink("real", &root).unwrap();
        walk(&root, OWN).open(&root.join("catalog:1")).unwrap();
        symlink(&elsewhere, real.join("orders:1")).unwrap();
        let refused = walk(&root, OWN).open(&root.join("orders:1"));
        assert!(
            matches!(refused, Err(DirectoryError::Open { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_step_below_the_root_that_others_may_write_is_refused_and_named() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("ringway");
        let step = root.join("net-1");
        let name = step.join("127.0.0.1:1");
        fs::create_dir_all(&name).unwrap();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&step, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = walk(&root, OWN).open(&name).unwrap_err();
        assert!(
            matches!(&refused, DirectoryError::Writable { path, .. } if *path == step),
            "{refused}"
        );
        // A volume that containers share.
        fs::set_permissions(&step, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        walk(&root, OWN).open(&name).unwrap();
    }

    #[test]
    fn every_step_and_every_link_belongs_to_a_trusted_user() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        const OTHER: u32 = 54_321;
        let scratch = tempfile::tempdir().unwrap();
        let above = scratch.path().join("above");
        let root = above.join("ringway");
        let name = root.join("catalog:1");
        let others = UidPolicy::Only([OTHER].into());
        fs::create_dir_all(&name).unwrap();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o700)).unwrap();
        for step in [&above, &root, &name] {
            chown(step, Some(OTHER), None).unwrap();
            let refused = walk(&root, OWN).open(&name).unwrap_err();
            assert!(
                matches!(&refused, DirectoryError::Owner { path, .. } if path == step),
                "{refused}"
            );
            walk(&root, &others).open(&name).unwrap();
            chown(step, Some(0), None).unwrap();
        }
        let link = scratch.path().join("link");
        symlink(&root, &link).unwrap();
        walk(&link, OWN).open(&link.join("catalog:1")).unwrap();
        std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
        let refused = walk(&link, OWN).open(&link.join("catalog:1"));
        assert!(
            matches!(refused, Err(DirectoryError::Owner { .. })),
            "{refused:?}"
        );
    }
}
