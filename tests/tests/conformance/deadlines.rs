//! Time that is over: at both ends, until the last message, and for the calls that a handler makes.

use std::time::Duration;

use ringway_proto::bench::StreamRequest;
use ringway_tests::{Running, Way, asking, eventually, payload, payloads};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

fn hanging<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = asking("hang", message);
    request.set_timeout(timeout);
    request
}

pub(crate) async fn end_a_call(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let short = Duration::from_millis(30);
    let status = client
        .unary(hanging(payload(1, 1), short))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let upload = client.client_stream(hanging(payloads(1, 1), short));
    assert_eq!(upload.await.unwrap_err().code(), Code::DeadlineExceeded);
    eventually("the handlers are dropped", || running.seen.inside() == 0).await;
    let mut request = Request::new(payload(1, 1));
    request.set_timeout(Duration::from_secs(20));
    client.unary(request).await.unwrap();
}

pub(crate) async fn end_a_stream(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    // Long enough for three messages, also where others are busy.
    let short = Duration::from_secs(1);
    let request = StreamRequest {
        count: 3,
        size_bytes: 3,
    };
    let response = client.server_stream(hanging(request, short)).await;
    let mut stream = response.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    eventually("the source is dropped", || running.seen.inside() == 0).await;
}

/// Though messages go back and forth all the while.
pub(crate) async fn end_an_exchange(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.set_timeout(Duration::from_millis(200));
    let mut replies = client.bidi(request).await.unwrap().into_inner();
    let status = loop {
        // Nobody takes it any more once the call is over.
        let _ = requests.send(payload(1, 100)).await;
        match replies.message().await {
            Ok(reply) => assert!(reply.is_some(), "it ended silently"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    eventually("the echo is dropped", || running.seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
}

pub(crate) async fn that_are_past(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut request = Request::new(payload(1, 1));
    request.set_timeout(Duration::ZERO);
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(running.seen.entered(), 0);
}
