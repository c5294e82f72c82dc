//! What a person sees in Jaeger of orders on each path. Run by `tests/jaeger/run`, which builds Jaeger
//! and names it in `RINGWAY_JAEGER`; without it nothing is tested here, as standard error says.
#![allow(clippy::unwrap_used)]

mod server;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use server::Jaeger;
use tokio::process::Command;
use trace::{calls_of_an_order, check_order};

/// The program, or a line that says why nothing is tested. It is written past the test harness,
/// which would keep it to itself.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("RINGWAY_JAEGER").map(PathBuf::from);
    if program.is_none() {
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "skipped: RINGWAY_JAEGER names no Jaeger; tests/jaeger/run builds one"
        )
        .unwrap();
    }
    program
}

const ORDERS: usize = 30;
/// As `--paths` has them.
const PATHS: [&str; 3] = ["shm", "socket", "grpc-tcp"];

/// A service in the demo's run over `path`.
fn named(service: &str, path: &str) -> String {
    format!("{service} ({path})")
}

#[tokio::test]
async fn each_order_is_one_whole_trace_on_each_path() {
    let Some(program) = program() else { return };
    let jaeger = Jaeger::start(&program).await;
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args([
            "--orders",
            "20",
            "--in-flight",
            "2",
            "--traces",
            &ORDERS.to_string(),
        ])
        .args(["--paths", &PATHS.join(",")])
        .args(["--otlp", &jaeger.collector()])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    for path in PATHS {
        let traces = jaeger.traces(&named("gateway", path), ORDERS).await;
        assert_eq!(traces.len(), ORDERS);
        for order in &traces {
            check_order(order, path, |service| named(service, path));
        }
    }

    let services: BTreeSet<_> = jaeger.services().await.into_iter().collect();
    let shop = [
        "gateway",
        "orders",
        "catalog",
        "inventory",
        "media",
        "payments",
    ];
    let all = PATHS
        .iter()
        .flat_map(|path| shop.map(|service| named(service, path)));
    assert_eq!(services, all.collect());

    let mut graph = BTreeMap::new();
    for path in PATHS {
        let edges = calls_of_an_order(|service| named(service, path)).into_iter();
        graph.extend(edges.map(|(edge, calls)| (edge, calls * ORDERS as u64)));
    }
    let seen = jaeger.dependencies().await.into_iter();
    let seen: BTreeMap<_, _> = seen.map(|(from, to, calls)| ((from, to), calls)).collect();
    assert_eq!(seen, graph);
}
