//! A body whose first frame is made before its head is sent.
//!
//! HTTP/2 sends the head as soon as it has it, and asks for the body later, in another task: the peer
//! may have seen the call before its caller notes that it was published. Whoever notes steps at a
//! body's first frame has that frame made at once, where it can be.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

type Polled = Option<Result<Frame<Bytes>, Status>>;

/// What the first look at a body gave, and the body.
pub(crate) struct Begun<B> {
    /// Until it has been handed out.
    first: Option<Polled>,
    inner: B,
}

impl<B> Begun<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    /// The body, looked at once. One that has nothing yet goes on as it would have: `context` need
    /// not be that of who polls it later.
    pub(crate) fn new(mut inner: B, context: &mut Context<'_>) -> Self {
        let first = match Pin::new(&mut inner).poll_frame(context) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        };
        Self { first, inner }
    }
}

impl<B> HttpBody for Begun<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Polled> {
        match self.first.take() {
            Some(first) => Poll::Ready(first),
            None => Pin::new(&mut self.inner).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        !matches!(self.first, Some(Some(_))) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.first {
            // The rest's alone would be too little, and nobody needs it.
            Some(Some(_)) => SizeHint::new(),
            _ => self.inner.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::BodyExt;
    use tokio_stream::StreamExt;

    use super::*;

    type Frames = tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Status>>>;

    fn body(texts: &[&'static str]) -> http_body_util::StreamBody<Frames> {
        let frames: Vec<_> = texts
            .iter()
            .map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
            .collect();
        http_body_util::StreamBody::new(tokio_stream::iter(frames))
    }

    #[test]
    fn the_first_frame_is_made_at_once_and_the_others_are_not() {
        let mut made = Vec::new();
        let frames = tokio_stream::iter(["a", "b"]).map(|text| {
            made.push(text);
            Ok(Frame::data(Bytes::from_static(text.as_bytes())))
        });
        let body = http_body_util::StreamBody::new(frames);
        drop(Begun::new(body, &mut Context::from_waker(Waker::noop())));
        assert_eq!(made, ["a"]);
    }

    #[tokio::test]
    async fn every_frame_comes_once_and_in_order() {
        let context = &mut Context::from_waker(Waker::noop());
        for texts in [&["a", "b", "c"][..], &["a"], &[]] {
            let begun = Begun::new(body(texts), context);
            assert!(!begun.is_end_stream());
            let whole = begun.collect().await.unwrap().to_bytes();
            assert_eq!(whole, texts.concat());
        }
    }

    #[tokio::test]
    async fn a_body_that_has_nothing_yet_goes_on_later() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver)
            .map(|text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let late = http_body_util::StreamBody::new(frames);
        let begun = Begun::new(late, &mut Context::from_waker(Waker::noop()));
        let all = tokio::spawn(begun.collect());
        sender.send("late").await.unwrap();
        drop(sender);
        assert_eq!(all.await.unwrap().unwrap().to_bytes(), "late");
    }
}
