//! Runs each example as it is built, and checks its output.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any takes: one that hangs is to fail its test.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns the text that a program prints, in a rendezvous directory of its own.
fn printed_by(program: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(program)
        .env("RINGWAY_DIR", directory.path())
        .env_remove("RINGWAY_PATH")
        .env_remove("RINGWAY_WAIT")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(status.success(), "{program} ended with {status}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn unary() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_unary")),
        "Hello Ada! (over Some(Shm))\nInvalidArgument: the name is empty\n"
    );
}

#[test]
fn streaming() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_streaming")),
        "watched 7.0\nwatched 7.5\nwatched 8.5\n\
         reported 3 readings, 7.67 on average\n\
         smoothed 7.00\nsmoothed 7.25\nsmoothed 7.67\n"
    );
}

#[test]
fn interceptors() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_interceptors")),
        "Unauthenticated: there is no token\nHello Ada!\n"
    );
}

#[test]
fn plugin() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_plugin")),
        "plugin: at your service\n\
         host: Hello Ada! (over Some(Pipe))\n\
         host: the plugin ended with exit status: 0\n"
    );
}

#[test]
fn blocking() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_blocking")),
        "Hello Ada!\nHello Grace!\n"
    );
}

#[test]
fn limits() {
    assert_eq!(
        printed_by(env!("CARGO_BIN_EXE_limits")),
        "ResourceExhausted: too many concurrent calls on this connection\nHello Ada, at last!\n"
    );
}

/// An example that is added here has a test above.
#[test]
fn none_is_forgotten() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut names: Vec<_> = std::fs::read_dir(programs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let tested = [
        "blocking",
        "interceptors",
        "limits",
        "plugin",
        "streaming",
        "unary",
    ];
    assert_eq!(names, tested);
}
