//! Where fuzzers come in: bytes of a peer's choosing against what makes tonic's types of them. Public under
//! `cfg(fuzzing)`, for `tests/fuzz`; `cargo test` runs them over the seeds that are kept there.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use crate::bridge::{Messages, Step};
use crate::{metadata, status};

/// A frame of packed messages: as many come out as it says, whole or with an error.
pub fn packed(data: &[u8]) {
    crate::streaming::unpack(Bytes::copy_from_slice(data));
}

/// A body in gRPC's framing, cut in two ways: its messages do not depend on that. The first byte says where.
pub fn framing(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let whole = messages_of(body, body.len().max(1));
    assert_eq!(whole, messages_of(body, usize::from(*choice) + 1));
}

/// The messages of a body, and how it ended.
fn messages_of(body: &[u8], step: usize) -> (Vec<(bool, Bytes)>, Option<i32>) {
    let pieces = body.chunks(step).map(Bytes::copy_from_slice).collect();
    let mut messages = Messages::new(Pieces(pieces));
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        match messages.poll_next(&mut context) {
            Poll::Ready(Ok(Step::Message(message))) => {
                all.push((message.compressed, message.bytes));
            }
            Poll::Ready(Ok(Step::End)) => return (all, None),
            Poll::Ready(Err(status)) => return (all, Some(status.code().into())),
            Poll::Pending => return (all, Some(-1)),
        }
    }
}

struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// Metadata and a status of a peer's: whatever they say, tonic reads them without a panic.
pub fn told(data: &[u8]) {
    let block = Bytes::copy_from_slice(data);
    if let Ok(metadata) = metadata::decode_bytes(&block) {
        let mut headers = metadata.into_headers();
        assert!(
            Status::from_header_map(&headers).is_none(),
            "it tells a status"
        );
        headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("5"));
        let said = Status::from_header_map(&headers).unwrap();
        let _ = status::encode(&said);
    }
    let said = status::decode(5, data);
    let mut headers = http::HeaderMap::new();
    if said.add_header(&mut headers).is_ok() {
        let again = Status::from_header_map(&headers).unwrap();
        assert_eq!(again.code(), said.code());
        assert_eq!(again.details(), said.details());
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_packed_messages() {
        replay("packed", super::packed);
    }

    #[test]
    fn the_seeds_of_framing() {
        replay("framing", super::framing);
    }

    #[test]
    fn the_seeds_of_metadata_and_statuses() {
        replay("told", super::told);
    }
}
