//! Calls that are given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringway_proto::bench::StreamRequest;
use ringway_tests::{Running, Way, asking, eventually, payload, payloads};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) async fn a_dropped_call_cancels_its_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    {
        let call = client.unary(asking("hang", payload(1, 1)));
        tokio::select! {
            answered = call => panic!("{answered:?}"),
            () = eventually("the handler runs", || seen.inside() == 1) => {}
        }
    }
    eventually("the handler is dropped", || seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
    assert_eq!(seen.entered(), 2);
}

pub(crate) async fn a_dropped_stream_cancels_its_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    let request = StreamRequest {
        count: u64::MAX,
        size_bytes: 100,
    };
    let mut stream = client.server_stream(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(seen.inside(), 1);
    drop(stream);
    eventually("the source is dropped", || seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
}

/// Though its requests never end.
pub(crate) async fn a_dropped_exchange_cancels_its_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    let endless = tokio_stream::iter(0..).map(|sequence| payload(sequence, 100));
    let mut stream = client.bidi(endless).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    eventually("the echo is dropped", || seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
}

/// The same once nobody reads on either side, and the requests wait for credit.
pub(crate) async fn a_dropped_exchange_that_stalls_cancels_its_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    let produced = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&produced);
    let endless = tokio_stream::iter(0..).map(move |sequence| {
        counted.fetch_add(1, Ordering::SeqCst);
        payload(sequence, 100_000)
    });
    let mut stream = client.bidi(endless).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let (mut last, mut looks) = (0, 0);
    let stalls = || {
        let now = produced.load(Ordering::SeqCst);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks > 50
    };
    eventually("nothing moves any more", stalls).await;
    drop(stream);
    eventually("the echo is dropped", || seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
}

pub(crate) async fn a_killed_upload_is_never_committed(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    for round in 1..=5 {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let upload = client.client_stream(ReceiverStream::new(receiver));
        tokio::select! {
            answered = upload => panic!("{answered:?}"),
            () = async {
                sender.send(payload(round, 100)).await.unwrap();
                eventually("a part has arrived", || seen.received() == round).await;
            } => {}
        }
        // The source outlives the call: its end, too, must not look like the upload's.
        drop(sender);
        eventually("the handler is dropped", || seen.inside() == 0).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(seen.committed(), 0);
    client.client_stream(payloads(3, 100)).await.unwrap();
    assert_eq!(seen.committed(), 1);
}

/// The client's own source is refused by its own limit in the middle.
pub(crate) async fn a_failed_upload_is_never_committed(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await.max_encoding_message_size(10_000);
    let parts = [payload(1, 100), payload(2, 20_000)];
    client
        .client_stream(tokio_stream::iter(parts))
        .await
        .unwrap_err();
    eventually("the handler is dropped", || running.seen.inside() == 0).await;
    assert_eq!(running.seen.committed(), 0);
}

/// The handler's answer ends while a task of its own still reads the requests, which do not end.
pub(crate) async fn a_task_that_reads_on_learns_that_the_call_was_answered(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let response = client
        .bidi(asking("answer early", ReceiverStream::new(receiver)))
        .await;
    let mut replies = response.unwrap().into_inner();
    sender.send(payload(1, 1)).await.unwrap();
    assert!(replies.message().await.unwrap().is_some());
    assert!(replies.message().await.unwrap().is_none());
    eventually("the task has ended", || running.seen.inside() == 0).await;
    drop(sender);
}
