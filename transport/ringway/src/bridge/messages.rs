//! gRPC's framing: a flag, a length, a message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as HttpBody;
use ringway_local::Form;
use tonic::Status;

/// Flag and length in front of each message in a body.
pub(crate) const PREFIX_BYTES: usize = 5;
/// An answer of one message goes in one frame up to this length; a larger one may have to go in pieces.
const MAX_WHOLE_BYTES: usize = 64 * 1024;

/// Cuts a body into messages.
pub(crate) struct Messages<B> {
    pub(super) body: B,
    pub(super) buffer: BytesMut,
    pub(crate) trailers: Option<HeaderMap>,
    /// What was looked at before its turn.
    ahead: VecDeque<Result<Step, Status>>,
}

pub(crate) enum Step {
    Message(Framed),
    End,
}

/// A message of a body, without its prefix.
pub(crate) struct Framed {
    pub(crate) compressed: bool,
    pub(crate) bytes: Bytes,
}

impl Framed {
    pub(super) fn form(&self) -> Form {
        match self.compressed {
            true => Form::Compressed,
            false => Form::Plain,
        }
    }
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            trailers: None,
            ahead: VecDeque::new(),
        }
    }

    /// The message of a body that is all there: one that is not large, and then that the call went well. What
    /// there is of any other body waits for its turn.
    pub(super) fn take_only(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        let first = match self.poll_next(context) {
            Poll::Ready(Ok(Step::Message(message))) => message,
            Poll::Ready(other) => {
                self.ahead.push_back(other);
                return None;
            }
            Poll::Pending => return None,
        };
        let second = self.poll_next(context);
        let is_whole = matches!(second, Poll::Ready(Ok(Step::End))) && self.went_well();
        if is_whole && !first.compressed && first.bytes.len() <= MAX_WHOLE_BYTES {
            return Some(first.bytes);
        }
        self.ahead.push_back(Ok(Step::Message(first)));
        if let Poll::Ready(second) = second {
            self.ahead.push_back(second);
        }
        None
    }

    /// Has a message come first that was taken out.
    pub(super) fn put_back(&mut self, message: Framed) {
        self.ahead.push_front(Ok(Step::Message(message)));
    }

    /// With no more to say of it than metadata.
    fn went_well(&self) -> bool {
        self.trailers.as_ref().is_some_and(|trailers| {
            let says = |name| trailers.contains_key(name);
            trailers
                .get(Status::GRPC_STATUS)
                .is_some_and(|status| status == "0")
                && !says(Status::GRPC_MESSAGE)
                && !says(Status::GRPC_STATUS_DETAILS)
        })
    }

    /// Whether the trailers, which say that the call [went well](Self::went_well), say nothing else.
    pub(super) fn ends_barely(&self) -> bool {
        self.trailers
            .as_ref()
            .is_some_and(|trailers| trailers.len() == 1)
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, Status>> {
        if let Some(step) = self.ahead.pop_front() {
            return Poll::Ready(step);
        }
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Step::Message(message)));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if self.buffer.is_empty() => return Poll::Ready(Ok(Step::End)),
                None => {
                    return Poll::Ready(Err(Status::internal("Unexpected EOF decoding stream.")));
                }
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(error.into()))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(message) = self.add(data)? {
                        return Poll::Ready(Ok(Step::Message(message)));
                    }
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// Keeps more of the body; gives back its next message, where that is all there and need not be moved.
    fn add(&mut self, mut data: Bytes) -> Result<Option<Framed>, Status> {
        let first = match self.buffer.is_empty() {
            true => first_message(&data)?,
            false => None,
        };
        let first = first.map(|(compressed, len)| {
            data.advance(PREFIX_BYTES);
            let bytes = data.split_to(len);
            Framed { compressed, bytes }
        });
        self.buffer.put(data);
        Ok(first)
    }

    fn take(&mut self) -> Result<Option<Framed>, Status> {
        let Some((compressed, len)) = first_message(&self.buffer)? else {
            return Ok(None);
        };
        self.buffer.advance(PREFIX_BYTES);
        let bytes = self.buffer.split_to(len).freeze();
        Ok(Some(Framed { compressed, bytes }))
    }
}

/// Whether the first message of a body is compressed, and its length, once it is all there.
fn first_message(body: &[u8]) -> Result<Option<(bool, usize)>, Status> {
    let Some(prefix) = body.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let compressed = match prefix[0] {
        0 => false,
        1 => true,
        flag => {
            return Err(Status::internal(format!(
                "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and 1)"
            )));
        }
    };
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    Ok((body.len() - PREFIX_BYTES >= len).then_some((compressed, len)))
}

/// A message as it stands in a body.
pub(crate) fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(compressed.into());
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The messages of a local frame, as they stand in a body.
pub(super) fn framed_all(message: &ringway_local::Message) -> Bytes {
    if !message.packed {
        return framed(&message.bytes, message.compressed);
    }
    let mut out = BytesMut::with_capacity(message.bytes.len() + 64);
    let mut rest = message.bytes.clone();
    while let Ok(len) = rest.try_get_u32_le() {
        let one = rest.split_to((len as usize).min(rest.len()));
        // Written where it goes: an empty message is not worth an allocation.
        out.reserve(PREFIX_BYTES + one.len());
        out.put_u8(0);
        out.put_u32(u32::try_from(one.len()).unwrap_or(u32::MAX));
        out.put(one);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use http_body::Frame;

    use super::*;

    /// A body of given pieces.
    struct Pieces(VecDeque<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = self.0.pop_front();
            Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn all_of(pieces: impl Iterator<Item = Bytes>) -> Result<Vec<(bool, Bytes)>, Status> {
        let mut messages = Messages::new(Pieces(pieces.collect()));
        let mut context = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            match messages.poll_next(&mut context) {
                Poll::Ready(Ok(Step::Message(message))) => {
                    all.push((message.compressed, message.bytes));
                }
                Poll::Ready(Ok(Step::End)) => return Ok(all),
                Poll::Ready(Err(status)) => return Err(status),
                Poll::Pending => unreachable!("the pieces are all there"),
            }
        }
    }

    #[test]
    fn messages_are_the_same_however_their_body_is_cut() {
        let sent: [(bool, &[u8]); 4] =
            [(false, b"one"), (true, b""), (false, b""), (true, b"four")];
        let body: Bytes = sent
            .iter()
            .flat_map(|(compressed, message)| framed(message, *compressed))
            .collect();
        for first in 0..=body.len() {
            for len in 1..=body.len() {
                let (head, tail) = body.split_at(first);
                let pieces = std::iter::once(head).chain(tail.chunks(len));
                let got = all_of(pieces.map(Bytes::copy_from_slice)).unwrap();
                let got: Vec<_> = got
                    .iter()
                    .map(|(flag, bytes)| (*flag, &bytes[..]))
                    .collect();
                assert_eq!(got, sent, "cut at {first}, then every {len}");
            }
        }
    }

    #[test]
    fn a_message_that_fills_its_frame_is_not_copied() {
        let frame = framed(b"whole", false);
        let place = frame[PREFIX_BYTES..].as_ptr();
        let got = all_of(std::iter::once(frame)).unwrap();
        assert_eq!(got[0].1.as_ptr(), place);
    }

    #[test]
    fn what_is_no_framing_is_an_error() {
        for body in [&[2, 0, 0, 0, 0][..], &[0, 0, 0, 0, 2, 7], &[0, 0]] {
            let status = all_of(std::iter::once(Bytes::copy_from_slice(body))).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
        }
    }
}
