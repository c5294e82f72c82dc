//! How many calls are handled at once.

use std::sync::Arc;

use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{Running, Way, asking, eventually, ours, payload};
use tonic::Code;

/// One call too many ends as it does with tonic, and the next one is handled when there is room.
pub(crate) async fn one_call_too_many_at_once(way: Way) {
    let handler = ours::Handler::default();
    let seen = Arc::clone(&handler.seen);
    let running = Running::with(way, |builder| {
        builder
            .concurrency_limit_per_connection(2)
            .add_service(BenchServer::new(handler))
    })
    .await;
    let client = running.client().await;
    let hanging = [(); 2].map(|()| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(asking("hang", payload(1, 1))).await })
    });
    eventually("two calls hang", || seen.inside() == 2).await;
    let status = client.clone().unary(payload(1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(seen.entered(), 2, "its handler ran");
    for call in hanging {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    eventually("the handlers are dropped", || seen.inside() == 0).await;
    for _ in 0..10 {
        client.clone().unary(payload(1, 1)).await.unwrap();
    }
}
