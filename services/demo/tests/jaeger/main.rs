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
use trace::{Trace, check_steps};

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

/// Who calls whom for one order, and how often.
const CALLS: [(&str, &str, u64); 5] = [
    ("gateway", "orders", 1),
    ("orders", "catalog", 1),
    ("orders", "inventory", 2),
    ("orders", "media", 1),
    ("orders", "payments", 2),
];
const ORDERS: usize = 30;
/// As `--paths` has them.
const PATHS: [&str; 3] = ["shm", "socket", "grpc-tcp"];

/// A service in the demo's run over `path`.
fn named(service: &str, path: &str) -> String {
    format!("{service} ({path})")
}

fn expected(path: &str) -> BTreeMap<(String, String), u64> {
    CALLS
        .iter()
        .map(|(from, to, calls)| ((named(from, path), named(to, path)), *calls))
        .collect()
}

/// One order: every service in it, each call with both ends, its path and its steps.
fn check_order(order: &Trace, path: &str) {
    let [root] = order.roots()[..] else {
        panic!("not one root: {order:#?}");
    };
    assert_eq!(root.service, named("gateway", path));
    assert_eq!(order.edges(), expected(path));
    for (client, server) in order.calls() {
        assert_eq!(client.operation, server.operation);
        for end in [client, server] {
            assert_eq!(end.tag("rpc.system"), "grpc");
            assert_eq!(end.tag("rpc.grpc.status_code"), "0");
            assert!(path.starts_with(end.tag("ringway.path")), "{end:#?}");
            let name = format!("{}/{}", end.tag("rpc.service"), end.tag("rpc.method"));
            assert_eq!(end.operation, name);
        }
        check_steps(client, server);
    }
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
            check_order(order, path);
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
        let edges = expected(path).into_iter();
        graph.extend(edges.map(|(edge, calls)| (edge, calls * ORDERS as u64)));
    }
    let seen = jaeger.dependencies().await.into_iter();
    let seen: BTreeMap<_, _> = seen.map(|(from, to, calls)| ((from, to), calls)).collect();
    assert_eq!(seen, graph);
}
