//! The socket directory: where it is, whether it may be used, and whose sockets lie in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ringway_local::{ConnectError, Directory, DirectoryOrigin, LinkKind, LocalConfig, UidPolicy};
use rustix::fs::{Access, access};

use super::finding::{Finding, State};

const AREA: &str = "directory";
/// Servers that are looked at; more would say nothing new.
const MAX_SERVERS: usize = 32;
/// A server that answers at all does so well within it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The directory, and the servers in it.
pub(super) async fn findings(directory: &Directory, origin: DirectoryOrigin) -> Vec<Finding> {
    let root = directory.root();
    let place = format!("{} ({origin})", root.display());
    let mut findings = vec![Finding::new(AREA, "where", State::Note, place)];
    findings.push(match fs::symlink_metadata(root) {
        Ok(found) => usable(root, &found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(root),
        Err(error) => no_use(root, error.to_string()),
    });
    let names = directory.names().unwrap_or_default();
    for name in names.iter().take(MAX_SERVERS) {
        findings.extend(servers(directory, name).await);
    }
    findings.push(names_there(directory, &names));
    findings
}

/// The names by which clients find a server here: what they dial has to be one of them.
fn names_there(directory: &Directory, names: &[String]) -> Finding {
    let peers = UidPolicy::SameUser;
    let has_sockets = |name: &&String| ringway_local::instances(directory, name, &peers).is_ok();
    let there: Vec<_> = names
        .iter()
        .filter(has_sockets)
        .map(String::as_str)
        .collect();
    let found = if there.is_empty() {
        "none: no server with a name() runs here".to_owned()
    } else {
        there.join(", ")
    };
    Finding::new(AREA, "names", State::Note, found)
}

fn no_use(root: &Path, found: String) -> Finding {
    let advice = format!(
        "make {} a directory of this user with mode 0700, or set RINGWAY_DIR to one, for both ends alike",
        root.display()
    );
    Finding::new(AREA, "use", State::No, found).advise(advice)
}

fn usable(root: &Path, found: &fs::Metadata) -> Finding {
    let what = format!("uid {}, mode {:o}", found.uid(), found.mode() & 0o7777);
    if !found.is_dir() {
        return no_use(root, "it is no directory".to_owned());
    }
    if !UidPolicy::SameUser.allows(found.uid()) {
        return no_use(root, format!("{what}: it belongs to somebody else"));
    }
    if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
        return no_use(
            root,
            format!("{what}: others may put directories of theirs in place of a server's"),
        );
    }
    match access(root, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::new(AREA, "use", State::Ok, what),
        Err(errno) => no_use(root, format!("{what}: {errno}")),
    }
}

/// The first server makes it, where it may.
fn missing(root: &Path) -> Finding {
    let above = root.ancestors().skip(1).find(|above| above.exists());
    let above = above.unwrap_or(Path::new("/"));
    match access(above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::new(
            AREA,
            "use",
            State::Note,
            "not there yet: the first server makes it".to_owned(),
        )
        .advise(
            "clients of servers in other containers find them by a volume that both mount here",
        ),
        Err(errno) => no_use(
            root,
            format!(
                "not there, and it can't be made in {}: {errno}",
                above.display()
            ),
        ),
    }
}

/// The instances of one server.
async fn servers(directory: &Directory, name: &str) -> Vec<Finding> {
    let what = format!("server {name}");
    let peers = UidPolicy::SameUser;
    let sockets = match ringway_local::instances(directory, name, &peers) {
        Ok(sockets) => sockets,
        // A server that ends in order leaves its directory behind.
        Err(ConnectError::Absent { .. }) => return Vec::new(),
        Err(error) => return vec![Finding::new(AREA, what, State::Limited, error.to_string())],
    };
    let mut findings = Vec::new();
    for socket in sockets {
        let met = meet(directory, name, &socket).await;
        findings.push(match met {
            Ok(met) => Finding::new(
                AREA,
                what.clone(),
                State::Ok,
                format!("{socket}: {}", met.words()),
            ),
            Err(error) => Finding::new(AREA, what.clone(), State::Limited, error.to_string()),
        });
    }
    findings
}

/// What a handshake with an instance came to.
pub(super) struct Met {
    pub(super) kind: LinkKind,
    pub(super) engine: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) pid: Option<u32>,
}

impl Met {
    fn words(&self) -> String {
        let over = match self.kind {
            LinkKind::Shm => "shared memory",
            LinkKind::Socket => "a socket",
            LinkKind::Pipe => "pipes",
            LinkKind::Inproc => "queues",
        };
        let who = match (self.pid, self.uid) {
            (Some(pid), Some(uid)) => format!("pid {pid}, uid {uid}"),
            (None, Some(uid)) => format!("a process of another pid namespace, uid {uid}"),
            _ => "unknown".to_owned(),
        };
        format!("answers over {over} ({who})")
    }
}

/// Meets one instance as a client would, and leaves it again.
pub(super) async fn meet(
    directory: &Directory,
    name: &str,
    socket: &str,
) -> Result<Met, ConnectError> {
    let config = LocalConfig {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        ..LocalConfig::default()
    };
    let connection = ringway_local::connect(directory, name, socket, &config).await?;
    let met = Met {
        kind: connection.kind(),
        engine: connection.engine().map(|engine| engine.to_string()),
        uid: connection.peer().map(|peer| peer.uid),
        pid: connection.peer().and_then(|peer| peer.pid),
    };
    connection.close();
    Ok(met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_wrong_with_a_directory_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("ringway");
        assert_eq!(missing(&root).state, State::Note);
        let look = |mode| {
            fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
            usable(&root, &fs::symlink_metadata(&root).unwrap())
        };
        fs::write(&root, "").unwrap();
        assert!(look(0o600).found.contains("no directory"));
        fs::remove_file(&root).unwrap();
        fs::create_dir(&root).unwrap();
        assert_eq!(look(0o700).state, State::Ok);
        let open = look(0o777);
        assert!(
            open.state == State::No && open.found.contains("mode 777"),
            "{open:?}"
        );
        assert!(open.advice.unwrap().contains("0700"));
    }
}
