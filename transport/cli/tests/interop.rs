//! `ringway interop-server` and `ringway interop-client` as a person runs them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringway_tests::InteropServer;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const NAME: &str = "interop:1";

/// A server process, and where clients find it.
struct Served {
    server: InteropServer,
    directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let unix = directory.path().join("grpc.sock");
        let server = InteropServer::start(RINGWAY, &root(directory.path()), NAME, Some(&unix));
        Self { server, directory }
    }

    fn run(&self, args: &str) -> Output {
        ringway(self.directory.path())
            .arg("interop-client")
            .args(args.split_whitespace())
            .output()
            .unwrap()
    }
}

fn root(directory: &Path) -> PathBuf {
    directory.join("ringway")
}

fn ringway(directory: &Path) -> Command {
    let mut command = Command::new(RINGWAY);
    command.env("RINGWAY_DIR", root(directory));
    command
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn the_client_reaches_the_server_on_each_path() {
    let served = Served::start();
    let unix = served.directory.path().join("grpc.sock");
    let addresses = [
        ("shm", NAME.to_owned()),
        ("socket", NAME.to_owned()),
        ("socket-epoll", NAME.to_owned()),
        ("pipe", NAME.to_owned()),
        ("inproc", NAME.to_owned()),
        ("auto", NAME.to_owned()),
        ("grpc-tcp", served.server.tcp().to_owned()),
        ("grpc-unix", unix.display().to_string()),
    ];
    for (path, address) in addresses {
        let cases = "--case empty_unary,ping_pong --case special_status_message";
        let output = served.run(&format!("--path {path} --server {address} {cases}"));
        assert!(output.status.success(), "{path}: {}", said(&output));
        assert_eq!(said(&output).matches(": passed").count(), 3, "{path}");
    }
    assert!(served.server.stop());
}

#[test]
fn all_cases_pass_at_once() {
    let served = Served::start();
    let output = served.run(&format!("--path inproc --server {NAME} --case all"));
    assert!(output.status.success(), "{}", said(&output));
    let all = said(&output);
    assert_eq!(all.matches(": passed").count(), 21, "{all}");
}

/// It takes connections and says nothing.
#[test]
fn a_case_that_hangs_fails_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let run = |timeout: &str| {
        let cases = "--case empty_unary,large_unary";
        let args = format!("--path grpc-tcp --server {address} --timeout={timeout} {cases}");
        ringway(temp.path())
            .arg("interop-client")
            .args(args.split_whitespace())
            .output()
            .unwrap()
    };
    let output = run("0.1");
    assert!(!output.status.success());
    let said_all = said(&output);
    assert!(said_all.contains("not done after 100ms"), "{said_all}");
    for none in ["0", "-1", "soon", "NaN"] {
        let output = run(none);
        assert!(said(&output).contains("--timeout"), "{}", said(&output));
    }
}

#[test]
fn a_server_that_is_not_there_and_a_case_that_is_none_fail() {
    let temp = tempfile::tempdir().unwrap();
    let absent = "--path shm --server nobody:1 --case empty_unary";
    let output = ringway(temp.path())
        .arg("interop-client")
        .args(absent.split_whitespace())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("nobody:1"), "{}", said(&output));
    let output = ringway(temp.path())
        .args(["interop-client", "--case", "fill_unary"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("large_unary"), "{}", said(&output));
}
