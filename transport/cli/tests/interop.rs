//! `ringway interop-server` and `ringway interop-client` as a person runs them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const NAME: &str = "interop:1";

/// A server process, and where clients find it.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
    tcp: String,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let unix = directory.path().join("grpc.sock");
        let mut child = ringway(directory.path())
            .args(["interop-server", "--port", "0", "--name", NAME, "--unix"])
            .arg(unix)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        let addresses = said.strip_prefix("serving gRPC at 0.0.0.0:").unwrap();
        let (port, _) = addresses.split_once(' ').unwrap();
        let tcp = format!("127.0.0.1:{port}");
        Self {
            child,
            directory,
            tcp,
        }
    }

    fn run(&self, args: &str) -> Output {
        ringway(self.directory.path())
            .arg("interop-client")
            .args(args.split_whitespace())
            .output()
            .unwrap()
    }

    /// Whether it ends as it should when it is told to.
    fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn ringway(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.env("RINGWAY_DIR", directory.join("ringway"));
    command
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn the_client_reaches_the_server_on_each_path() {
    let server = Server::start();
    let unix = server.directory.path().join("grpc.sock");
    let addresses = [
        ("shm", NAME.to_owned()),
        ("socket", NAME.to_owned()),
        ("socket-epoll", NAME.to_owned()),
        ("pipe", NAME.to_owned()),
        ("inproc", NAME.to_owned()),
        ("auto", NAME.to_owned()),
        ("grpc-tcp", server.tcp.clone()),
        ("grpc-unix", unix.display().to_string()),
    ];
    for (path, address) in addresses {
        let cases = "--case empty_unary,ping_pong --case special_status_message";
        let output = server.run(&format!("--path {path} --server {address} {cases}"));
        assert!(output.status.success(), "{path}: {}", said(&output));
        assert_eq!(said(&output).matches(": passed").count(), 3, "{path}");
    }
    assert!(server.stop());
}

#[test]
fn all_cases_pass_at_once() {
    let server = Server::start();
    let output = server.run(&format!("--path inproc --server {NAME} --case all"));
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
    let (first, second) = (
        "empty_unary: FAILED: not done after 100ms",
        "large_unary: FAILED: not done after 100ms",
    );
    assert!(
        said_all.contains(first) && said_all.contains(second),
        "{said_all}"
    );
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
