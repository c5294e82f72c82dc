//! The README's service, compiled and run as it stands there: `build.rs` takes it out of the page. The pages
//! themselves are checked by `tests/pages.rs`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg(test)]

// The programs name the package's library.
extern crate self as greeter;

#[allow(missing_docs)]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/lib.rs"));
}
pub use stubs::*;

mod server {
    #![allow(dead_code, missing_docs, unreachable_pub)]
    include!(concat!(env!("OUT_DIR"), "/server.rs"));

    pub(crate) fn run() {
        main().unwrap();
    }
}

mod client {
    #![allow(dead_code, missing_docs, unreachable_pub)]
    include!(concat!(env!("OUT_DIR"), "/client.rs"));

    pub(crate) fn run() {
        main().unwrap();
    }
}

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which program of the README a process of this test is.
const PART: &str = "RINGWAY_README_PART";

/// Does nothing unless this process is one of the two programs.
#[test]
fn part() {
    match std::env::var(PART).as_deref() {
        Ok("server") => server::run(),
        Ok("client") => client::run(),
        _ => {}
    }
}

#[test]
fn two_processes_greet_over_shared_memory() {
    let directory = tempfile::tempdir().unwrap();
    let _server = Running(start("server", directory.path()));
    let socket = directory.path().join("greeter:50051");
    let start_of_wait = Instant::now();
    while std::fs::read_dir(&socket).map_or(0, Iterator::count) == 0 {
        assert!(
            start_of_wait.elapsed() < Duration::from_secs(10),
            "no server"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let client = start("client", directory.path())
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8(client.stdout).unwrap();
    assert!(said.contains("Hello Ada! (over Some(Shm))"), "{said}");
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, with a message on stderr.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(part: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "part", "--nocapture"])
        .env(PART, part)
        .env("RINGWAY_DIR", directory)
        .env_remove("RINGWAY_PATH")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
