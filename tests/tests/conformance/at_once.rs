//! Calls whose end comes together with their beginning.

use std::pin::pin;
use std::task::Poll;

use ringway_tests::{Running, Way, asking, eventually, payload};
use tokio_stream::wrappers::ReceiverStream;

const ROUNDS: u64 = 200;

/// A server that reads a request and its cancellation in one look has nobody to tell the handler
/// later.
pub(crate) async fn calls_dropped_at_once_leave_no_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    client.unary(payload(1, 1)).await.unwrap();
    for _ in 0..ROUNDS {
        let mut call = pin!(client.unary(asking("hang", payload(1, 1))));
        assert!(matches!(futures_util::poll!(call.as_mut()), Poll::Pending));
    }
    client.unary(payload(1, 1)).await.unwrap();
    eventually("no handler is left", || running.seen.inside() == 0).await;
}

/// A call that takes the place of one that was given up is a call of its own.
pub(crate) async fn a_call_is_not_ended_by_the_one_before(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    client.unary(payload(1, 1)).await.unwrap();
    for round in 0..ROUNDS {
        {
            let mut given_up = pin!(client.bidi(tokio_stream::pending()));
            // The server may have answered already: that is given up, too.
            drop(futures_util::poll!(given_up.as_mut()));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let response = client.bidi(ReceiverStream::new(receiver)).await;
        let mut replies = response.unwrap().into_inner();
        sender.send(payload(round, 10)).await.unwrap();
        let reply = replies.message().await.unwrap();
        assert_eq!(reply, Some(payload(round, 10)));
        drop(sender);
        assert_eq!(replies.message().await.unwrap(), None);
    }
}
