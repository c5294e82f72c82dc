//! The demo's binary: what it writes, how it ends, what it leaves behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The demo, its scratch files in a directory of the test's.
fn demo(scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .env("TMPDIR", scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whether `scratch` is empty, within some seconds.
fn is_cleared(scratch: &Path) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if fs::read_dir(scratch).unwrap().next().is_none() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn every_order_arrives_over_the_path_asked_for() {
    let scratch = TempDir::new().unwrap();
    let out = TempDir::new().unwrap();
    let json = out.path().join("demo.json");
    for direct in [false, true] {
        let mut command = demo(scratch.path());
        command
            .args(["--orders", "40", "--in-flight", "4", "--json"])
            .arg(&json);
        if direct {
            command.arg("--direct");
        }
        assert!(command.status().unwrap().success());
        let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        for row in report["rows"].as_array().unwrap() {
            assert_eq!(
                (&row["orders"], &row["hops_per_order"]),
                (&40.into(), &7.0.into())
            );
            assert_eq!(row["hops_by_path"][row["path"].as_str().unwrap()], 280);
        }
        assert!(is_cleared(scratch.path()));
    }
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    let scratch = TempDir::new().unwrap();
    let mut demo = demo(scratch.path())
        .args(["--orders", "1000000"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while fs::read_dir(scratch.path()).unwrap().next().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Some services are up by then, and others still start.
    std::thread::sleep(Duration::from_millis(300));
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(is_cleared(scratch.path()));
}
