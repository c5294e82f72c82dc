//! Calls that are given up by tonic's handle, while somebody waits for their end.

use ringway_tests::{Running, Way, eventually, payload};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

pub(crate) async fn a_handle_cancels_an_upload(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let handle = request.cancellation_handle();
    let cancel = async {
        sender.send(payload(1, 100)).await.unwrap();
        eventually("a part has arrived", || seen.received() == 1).await;
        handle.cancel();
    };
    let (answered, ()) = tokio::join!(client.client_stream(request), cancel);
    assert_eq!(answered.unwrap_err().code(), Code::Cancelled);
    eventually("the handler is dropped", || seen.inside() == 0).await;
    assert_eq!(seen.committed(), 0);
    client.unary(payload(1, 1)).await.unwrap();
}

pub(crate) async fn a_handle_cancels_an_exchange(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let seen = &running.seen;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let handle = request.cancellation_handle();
    let response = client.bidi(request).await.unwrap();
    assert_eq!(ringway::Path::of(&response), Some(way.path()));
    let mut responses = response.into_inner();
    sender.send(payload(1, 100)).await.unwrap();
    assert_eq!(responses.message().await.unwrap(), Some(payload(1, 100)));
    handle.cancel();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    eventually("the echo is dropped", || seen.inside() == 0).await;
    client.unary(payload(1, 1)).await.unwrap();
}
