//! A server that was told to end.

use std::sync::Arc;
use std::time::Duration;

use ringway::Error;
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{Running, Way, asking, eventually, ours, payload};
use tonic::Code;

/// Calls and streams in flight come to their end, and only then does the server.
pub(crate) async fn calls_in_flight_come_to_their_end(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let calls: Vec<_> = (0..7)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(asking("meet", payload(number, 64))).await })
        })
        .collect();
    let count = 2_000;
    let request = StreamRequest {
        count,
        size_bytes: 4096,
    };
    let mut stream = client.server_stream(request).await.unwrap().into_inner();
    let seen = Arc::clone(&running.seen);
    eventually("seven wait for the eighth", || seen.inside() == 8).await;
    let stopping = tokio::spawn(running.stop());
    // A call that must not be taken any more shows that the server has begun to drain.
    while client.unary(payload(1, 1)).await.is_ok() {}
    assert!(!stopping.is_finished());
    for sequence in 0..count {
        let payload = stream.message().await.unwrap().unwrap();
        assert_eq!(payload.sequence, sequence);
    }
    assert_eq!(stream.message().await.unwrap(), None);
    seen.meeting.wait().await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    stopping.await.unwrap();
}

/// A call that never ends holds the server up for the drain's time, and no longer.
pub(crate) async fn draining_has_an_upper_time(way: Way) {
    let handler = ours::Handler::default();
    let seen = Arc::clone(&handler.seen);
    let running = Running::with(way, |builder| {
        builder
            .drain_timeout(Duration::from_millis(50))
            .add_service(BenchServer::new(handler))
    })
    .await;
    let mut client = running.client().await;
    let hangs = tokio::spawn(async move { client.unary(asking("hang", payload(1, 1))).await });
    eventually("the call hangs", || seen.inside() == 1).await;
    let ended = running.try_stop().await;
    assert!(
        matches!(ended, Err(Error::DrainTimedOut { .. })),
        "{ended:?}"
    );
    let status = hangs.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    eventually("the handler is dropped", || seen.inside() == 0).await;
}
