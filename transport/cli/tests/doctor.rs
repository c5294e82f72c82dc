//! `ringway doctor` as a script runs it: where everything is allowed, and where something is refused.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use ringway::Directory;
use ringway_tests::{InteropServer, Refused, become_filtered, can_be_another_user, filtered};
use serde_json::Value;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const NAME: &str = "examined:1";

/// Not a test: what a child process runs.
#[test]
fn filtered_process() {
    become_filtered();
}

/// What `ringway doctor --json` says of `directory`, and its exit status.
fn doctor(directory: &Path, name: Option<&str>) -> (Value, i32) {
    let mut command = Command::new(RINGWAY);
    command.args(["doctor", "--json"]).args(name);
    examined(&command.env("RINGWAY_DIR", directory).output().unwrap())
}

fn examined(output: &Output) -> (Value, i32) {
    let said = String::from_utf8_lossy(&output.stdout);
    // A filtered process is a test's before: what that prints comes first.
    let json = said.find("{\n").map(|at| &said[at..]).unwrap();
    let mut values = serde_json::Deserializer::from_str(json).into_iter();
    let report: Value = values.next().unwrap().unwrap();
    let status = output.status.code().unwrap();
    assert_eq!(report["exit_status"], status, "{report:#}");
    (report, status)
}

fn filtered_doctor(directory: &Path, refused: &[Refused]) -> (Value, i32) {
    let mut command = filtered(RINGWAY, &["doctor", "--json"], refused);
    examined(&command.env("RINGWAY_DIR", directory).output().unwrap())
}

/// The finding about `what`.
fn finding<'a>(report: &'a Value, what: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["what"] == what);
    found.unwrap_or_else(|| panic!("nothing about {what} in {report:#}"))
}

fn says(finding: &Value, words: &str) -> bool {
    finding.to_string().contains(words)
}

fn works(report: &Value, path: &str) -> bool {
    let paths = report["paths"].as_array().unwrap();
    let tried = paths.iter().find(|tried| tried["path"] == path).unwrap();
    tried["works"].as_bool().unwrap()
}

#[test]
fn shared_memory_works_here() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("ringway");
    let (report, status) = doctor(&root, None);
    assert_eq!(
        (status, &report["verdict"]),
        (0, &"shm".into()),
        "{report:#}"
    );
    for path in ["shm", "socket", "socket+epoll", "grpc"] {
        assert!(works(&report, path), "{report:#}");
    }
    for what in [
        "memfd_create",
        "F_SEAL_FUTURE_WRITE",
        "seals hold",
        "eventfd",
        "futex",
    ] {
        assert_eq!(finding(&report, what)["state"], "ok", "{report:#}");
    }
    assert!(says(finding(&report, "where"), &root.display().to_string()));
    assert!(!root.exists(), "it leaves nothing behind");

    let tables = Command::new(RINGWAY)
        .arg("doctor")
        .env("RINGWAY_DIR", &root)
        .output();
    let tables = tables.unwrap();
    assert_eq!(tables.status.code(), Some(0));
    let tables = String::from_utf8(tables.stdout).unwrap();
    assert!(
        tables.contains("memfd_create") && tables.ends_with("shared memory works\n"),
        "{tables}"
    );
}

#[test]
fn help_names_the_exit_status() {
    let help = Command::new(RINGWAY)
        .args(["doctor", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for line in [
        "0  shared memory works",
        "3  only a socket",
        "4  only the network",
    ] {
        assert!(help.contains(line), "{line} in {help}");
    }
}

#[test]
fn a_profile_that_refuses_io_uring_leaves_shared_memory() {
    let temporary = tempfile::tempdir().unwrap();
    let (report, status) = filtered_doctor(temporary.path(), &[Refused::IoUring]);
    assert_eq!(status, 0, "{report:#}");
    let uring = finding(&report, "io_uring");
    assert_eq!(uring["state"], "limited");
    assert!(says(uring, "seccomp") && says(uring, "epoll"), "{uring}");
    assert!(
        works(&report, "socket") && works(&report, "shm"),
        "{report:#}"
    );
}

#[test]
fn a_profile_that_refuses_memory_files_leaves_a_socket() {
    let temporary = tempfile::tempdir().unwrap();
    let (report, status) = filtered_doctor(temporary.path(), &[Refused::Memfd, Refused::IoUring]);
    assert_eq!(
        (status, &report["verdict"]),
        (3, &"socket".into()),
        "{report:#}"
    );
    let memfd = finding(&report, "memfd_create");
    assert_eq!(memfd["state"], "no");
    assert!(
        says(memfd, "not permitted") && says(memfd, "seccomp"),
        "{memfd}"
    );
    assert!(
        !works(&report, "shm") && works(&report, "socket+epoll"),
        "{report:#}"
    );
}

#[test]
fn a_directory_that_must_not_be_used_leaves_the_network() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    fs::write(&file, "").unwrap();
    let (report, status) = doctor(&file, None);
    assert_eq!(status, 4, "{report:#}");
    assert!(says(finding(&report, "use"), "no directory"), "{report:#}");

    let open = temporary.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let (report, _) = doctor(&open, None);
    let found = finding(&report, "use");
    assert!(found["state"] == "no" && says(found, "mode 777"), "{found}");
    assert!(says(found, "0700"), "{found}");
}

#[test]
fn a_directory_of_another_owner_is_named() {
    if !can_be_another_user() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("theirs");
    fs::create_dir(&root).unwrap();
    chown(&root, Some(4321), None).unwrap();
    let (report, _) = doctor(&root, None);
    let found = finding(&report, "use");
    assert!(found["state"] == "no" && says(found, "uid 4321"), "{found}");
}

#[test]
fn a_server_is_met_and_a_stale_socket_told_apart() {
    let temporary = tempfile::tempdir().unwrap();
    let server = InteropServer::start(RINGWAY, temporary.path(), NAME, None);
    let of_name = Directory::at(temporary.path()).of_name(NAME).unwrap();
    let stale = of_name.join("0-stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let (report, status) = doctor(temporary.path(), Some(NAME));
    assert_eq!(status, 0, "{report:#}");
    let sockets = report["server"]["sockets"].as_array().unwrap();
    assert_eq!(sockets.len(), 2, "{report:#}");
    assert!(sockets[0]["path"].is_null(), "{report:#}");
    assert!(says(&sockets[0], "nobody listens"), "{report:#}");
    assert_eq!(sockets[1]["path"], "shm", "{report:#}");
    assert_eq!(sockets[1]["peer_pid"], server.pid(), "{report:#}");
    assert_eq!(report["server"]["path"], "shm", "{report:#}");
    let names = &finding(&report, "names")["found"];
    assert!(names.as_str().unwrap().contains(NAME), "{report:#}");

    let forced = format!("socket://{NAME}");
    let (report, status) = doctor(temporary.path(), Some(&forced));
    assert_eq!(
        (status, &report["server"]["path"]),
        (3, &"socket".into()),
        "{report:#}"
    );
    drop(server);
    let (report, status) = doctor(temporary.path(), Some(&format!("shm://{NAME}")));
    assert_eq!(
        (status, &report["verdict"]),
        (5, &"none".into()),
        "{report:#}"
    );
}
