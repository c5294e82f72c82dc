//! Which traces are recorded, and where one begins.

use std::sync::LazyLock;

use ringway::Context;
use ringway::trace::TraceContext;
use ringway_proto::bench_tonic::Payload;
use ringway_proto::bench_tonic::bench_client::BenchClient;
use ringway_tests::{Running, Span, Way, eventually, within};
use tonic::Request;

use crate::calls::{Front, WAYS, payload};
use crate::{COLLECTOR, TELEMETRY, a_trace, one, sent, spans_of};

/// The spans that `Front` made of its own for a call with this number, in whatever trace.
fn own_spans(sequence: u64) -> Vec<Span> {
    let mut spans = COLLECTOR.spans();
    let sequence = Some(sequence.to_string());
    spans.retain(|span| span.attribute("sequence") == sequence);
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_unsampled_trace_nothing_is_sent() {
    for (number, way) in WAYS.into_iter().enumerate() {
        let sequence = 1_000 + number as u64;
        let back = Running::start(way).await;
        let front = Front::before(&back, way).await;
        let mut client = front.client().await;
        LazyLock::force(&TELEMETRY);
        let unsampled = a_trace(0);
        let context = Context::default().with_trace(unsampled);
        context
            .scope(within(client.unary(payload(sequence))))
            .await
            .unwrap();
        // What came before this has been sent when this has.
        let (_, _, sampled) = spans_of(within(client.unary(payload(1))), 8).await;
        sampled.unwrap();
        assert_eq!(
            COLLECTOR.spans_of(&unsampled.trace_id()).len(),
            0,
            "{way:?}"
        );
        let strays = own_spans(sequence);
        assert!(strays.is_empty(), "{way:?}: {strays:#?}");
    }
}

async fn plain_client(server: &Running) -> BenchClient<tonic::transport::Channel> {
    let address = format!("http://{}", server.address());
    BenchClient::connect(address).await.unwrap()
}

fn with_traceparent<M>(message: M, traceparent: &str) -> Request<M> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().unwrap());
    request
}

fn plain_payload(sequence: u64) -> Payload {
    Payload {
        sequence,
        data: Vec::new().into(),
    }
}

/// The `count` spans of the trace that `Front` handled a call with this number in.
async fn spans_around(sequence: u64, count: usize) -> Vec<Span> {
    eventually("the handler's spans have come", || {
        TELEMETRY.flush();
        own_spans(sequence).len() == 2
    })
    .await;
    sent(own_spans(sequence)[0].trace_id(), count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grpc_client_s_trace_goes_on() {
    LazyLock::force(&TELEMETRY);
    let server = Running::start(Way::GrpcTcp).await;
    let mut client = plain_client(&server).await;
    let trace = a_trace(TraceContext::SAMPLED);
    let request = with_traceparent(plain_payload(1), &trace.to_string());
    within(client.unary(request)).await.unwrap();
    let spans = sent(&trace.trace_id(), 1).await;
    assert!(spans[0].is_server() && spans[0].is_child_of_context(&trace));
}

/// On every path: the caller's own trace takes the place of what its metadata say.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_traceparent_is_a_new_trace() {
    let bad = [
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
    ];
    for (place, way) in WAYS.into_iter().enumerate() {
        let back = Running::start(way).await;
        let front = Front::before(&back, way).await;
        let mut client = front.client().await;
        LazyLock::force(&TELEMETRY);
        for (number, traceparent) in bad.into_iter().enumerate() {
            let sequence = 2_000 + (place * bad.len() + number) as u64;
            within(client.unary(with_traceparent(payload(sequence), traceparent)))
                .await
                .unwrap();
            let spans = spans_around(sequence, 8).await;
            assert!(
                one(&spans, Span::is_root).is_client(),
                "{way:?}, {traceparent}"
            );
        }
    }
}

/// From a client that knows of no traces but has such a header.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grpc_client_s_bad_traceparent_is_a_new_trace() {
    LazyLock::force(&TELEMETRY);
    let back = Running::start(Way::GrpcTcp).await;
    let front = Front::before(&back, Way::GrpcTcp).await;
    let mut client = plain_client(&front).await;
    let sequence = 2_900;
    within(client.unary(with_traceparent(plain_payload(sequence), "00-nonsense-01")))
        .await
        .unwrap();
    // Its server's span is the first of seven.
    let spans = spans_around(sequence, 7).await;
    assert!(one(&spans, Span::is_root).is_server());
}

/// A call that nothing led to begins a trace, and what it leads to belongs to that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_call_begins_a_trace() {
    LazyLock::force(&TELEMETRY);
    for (number, way) in WAYS.into_iter().enumerate() {
        let sequence = 3_000 + number as u64;
        let back = Running::start(way).await;
        let front = Front::before(&back, way).await;
        within(front.client().await.unary(payload(sequence)))
            .await
            .unwrap();
        let spans = spans_around(sequence, 8).await;
        assert!(one(&spans, Span::is_root).is_client(), "{way:?}");
    }
}
