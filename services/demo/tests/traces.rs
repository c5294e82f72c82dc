//! `demo --otlp`, and the waterfall of `demo --report`, as a collector and a reader see them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;

use ringway_report::{Collector, SpanKind, Trace};
use tokio::process::Command;

async fn demo(args: &str, page: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args("--orders 10 --in-flight 2".split_whitespace())
        .args(args.split_whitespace())
        .arg("--report")
        .arg(page)
        // Another collector, which the demo's services must not mistake for theirs.
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_TRACES_SAMPLER", "always_off")
        .output()
        .await
        .unwrap()
}

/// The traces that a collector was sent, by the path that the services' names tell.
fn by_path(collector: &Collector) -> BTreeMap<String, Vec<Trace>> {
    let mut found: BTreeMap<String, Vec<Trace>> = BTreeMap::new();
    for spans in collector.take().traces().into_values() {
        let path = |service: &str| service.split(['(', ')']).nth(1).unwrap().to_owned();
        let paths: BTreeSet<String> = spans.iter().map(|span| path(&span.service)).collect();
        assert_eq!(paths.len(), 1, "one order, one path: {paths:?}");
        let path = paths.into_iter().next().unwrap();
        let traces = found.entry(path.clone()).or_default();
        traces.push(Trace { path, spans });
    }
    found
}

fn services(trace: &Trace) -> BTreeSet<&str> {
    trace.spans.iter().map(|span| &span.service[..]).collect()
}

#[tokio::test]
async fn orders_on_each_path_reach_a_collector_side_by_side_and_whole() {
    let collector = Collector::start().await.unwrap();
    let url = collector.endpoint();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let args = format!("--paths shm,grpc-tcp --traces 5 --otlp {url}");
    let output = demo(&args, &page).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    // Seven calls an order, two ends each, and the edge.
    let line = format!("10 orders traced, 150 spans sent to {url}, none lost");
    assert!(said.contains(&line), "{said}");
    let traces = by_path(&collector);
    assert!(traces.keys().eq(["grpc-tcp", "shm"]), "{:?}", traces.keys());
    for (path, traces) in &traces {
        assert_eq!(traces.len(), 5, "{path}");
        for trace in traces {
            assert!(trace.is_whole(), "{trace:?}");
            let names = [
                "catalog",
                "gateway",
                "inventory",
                "media",
                "orders",
                "payments",
            ];
            let expected = names.map(|name| format!("{name} ({path})"));
            assert!(
                services(trace).iter().eq(&expected),
                "{:?}",
                services(trace)
            );
        }
    }

    let page = std::fs::read_to_string(page).unwrap();
    let (_, falls) = page.split_once("id=\"waterfalls\"").unwrap();
    assert_eq!(falls.matches("<div class=\"fall ").count(), 2);
    // Of seven calls on two paths; the edge is a handler, too.
    for (step, times) in [
        ("encode", 14),
        ("on the way", 14),
        ("handler", 16),
        ("on the way back", 14),
        ("decode", 14),
    ] {
        let named = falls.matches(&format!("title=\"{step}: ")).count();
        assert_eq!(named, times, "{step}");
    }
}

#[tokio::test]
async fn without_the_edge_a_trace_begins_at_the_shopper() {
    let collector = Collector::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let args = format!(
        "--direct --paths socket --traces 3 --otlp {}",
        collector.endpoint()
    );
    let output = demo(&args, &page).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let traces = by_path(&collector);
    assert_eq!(traces["socket"].len(), 3);
    for trace in &traces["socket"] {
        assert!(trace.is_whole(), "{trace:?}");
        let first = trace
            .spans
            .iter()
            .find(|span| span.parent.is_none())
            .unwrap();
        assert_eq!(
            (&first.service[..], first.kind),
            ("shopper (socket)", SpanKind::Client)
        );
    }
}

#[tokio::test]
async fn no_traces_are_taken_where_none_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let output = demo("--paths shm --traces 0", &page).await;
    assert!(output.status.success());
    let page = std::fs::read_to_string(page).unwrap();
    assert!(!page.contains("id=\"waterfalls\""));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_missed_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let output = demo("--paths shm --otlp http://127.0.0.1:1", &page).await;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no OTLP collector answers at http://127.0.0.1:1"),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}
