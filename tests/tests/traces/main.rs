//! Traces: what a collector gets to see of calls, on each path.
//!
//! A process has one tracer, so all tests of this file share it, and a collector; each looks at the
//! spans of its own trace.
#![allow(clippy::unwrap_used)]

mod calls;
mod outage;
mod sampling;
mod shop;

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway::Context;
use ringway::trace::TraceContext;
use ringway_telemetry::{Builder, Telemetry};
use ringway_tests::{Collector, CollectorManner, Span, eventually};

static COLLECTOR: LazyLock<Collector> = LazyLock::new(|| Collector::start(CollectorManner::Keeps));
static TELEMETRY: LazyLock<Telemetry> = LazyLock::new(|| {
    let endpoint = COLLECTOR.endpoint();
    Builder::new()
        .service_name("tests")
        .endpoint(endpoint)
        .init()
        .unwrap()
});

/// A trace that began elsewhere.
fn a_trace(flags: u8) -> TraceContext {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let trace_id = u128::from(number) << 64 | u128::from(number);
    TraceContext::new(trace_id.to_be_bytes(), number.to_be_bytes(), flags).unwrap()
}

/// Runs `calls` as part of a trace that began elsewhere and is recorded; the `count` spans of it,
/// no more and no fewer.
async fn spans_of<F: Future>(calls: F, count: usize) -> (TraceContext, Vec<Span>, F::Output) {
    let _telemetry = &*TELEMETRY;
    let trace = a_trace(TraceContext::SAMPLED);
    let output = Context::default().with_trace(trace).scope(calls).await;
    let spans = sent(&trace.trace_id(), count).await;
    (trace, spans, output)
}

/// The `count` spans of a trace.
async fn sent(trace_id: &[u8], count: usize) -> Vec<Span> {
    let mut found = Vec::new();
    eventually("all spans have come", || {
        TELEMETRY.flush();
        found = COLLECTOR.spans_of(trace_id);
        found.len() >= count
    })
    .await;
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// The one span that `is` says.
fn one(spans: &[Span], is: impl Fn(&Span) -> bool) -> &Span {
    let mut found = spans.iter().filter(|span| is(span));
    let one = found.next().expect("there is such a span");
    assert!(found.next().is_none(), "{spans:#?}");
    one
}

#[test]
fn service_process() {
    shop::service_process();
}
