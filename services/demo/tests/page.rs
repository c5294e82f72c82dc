//! `demo --report` as a person runs it: what the page shows, never how fast it is.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn demo(args: &str, page: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(args.split_whitespace())
        .arg("--report")
        .arg(page)
        .output()
        .unwrap()
}

fn page_of(args: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    let output = demo(args, &file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn every_path_has_its_orders_and_hops_on_the_page() {
    let page = page_of("--orders 40 --in-flight 4 --paths shm,grpc-unix --traces 0");
    for words in [
        "orders through HTTP, 4 in flight",
        "Shared memory",
        "gRPC, Unix socket",
        "demo --orders 40 --in-flight 4 --paths shm,grpc-unix --traces 0 --report",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let curves = page.matches("<path d=").count();
    assert_eq!(curves, 4, "one of orders and one of hops for each path");
}

#[test]
fn one_path_without_the_edge_is_a_page_too() {
    let page = page_of("--orders 10 --in-flight 1 --paths shm --direct --traces 0");
    assert!(page.contains("orders direct, 1 in flight"));
    assert!(page.contains("No other path was timed beside it"));
    assert_eq!(page.matches("<path d=").count(), 2);
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_anything_starts() {
    let output = demo(
        "--orders 1 --paths shm",
        Path::new("/nonexistent/page.html"),
    );
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nonexistent/page.html"), "{said}");
    assert!(output.stdout.is_empty(), "the shop was started first");
}
