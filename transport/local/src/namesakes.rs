//! Servers that give one name and are not instances of one program: an old one that was forgotten in another
//! terminal, or two applications that chose the same `host:port`. Clients take them for instances of one server, and
//! call either, so the one that comes later says so.

use std::fs;
use std::path::PathBuf;

/// What runs as a process, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    executable: PathBuf,
    directory: PathBuf,
}

impl Program {
    /// Of a process that this one may look at: another user's, or one of another pid namespace, tells nothing.
    fn of(process: &str) -> Option<Self> {
        let link = |name| fs::read_link(format!("/proc/{process}/{name}")).ok();
        Some(Self {
            executable: link("exe")?,
            directory: link("cwd")?,
        })
    }
}

/// Warns of the processes among `pids` that serve as `name` beside this one, and are of another program or run in
/// another directory.
pub(crate) fn tell(name: &str, pids: &[u32]) {
    let Some(own) = Program::of("self") else {
        return;
    };
    for pid in pids {
        let other = Program::of(&pid.to_string());
        if let Some(other) = other.filter(|other| *other != own) {
            tracing::warn!(
                name,
                pid,
                executable = %other.executable.display(),
                directory = %other.directory.display(),
                own_executable = %own.executable.display(),
                own_directory = %own.directory.display(),
                "another server of this name is running, and clients call either of the two: stop it, or give one of them another name or RINGWAY_DIR"
            );
        }
    }
}
