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
                Ok(data) => self.buffer.put(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Framed>, Status> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
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
        if self.buffer.len() - PREFIX_BYTES < len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let bytes = self.buffer.split_to(len).freeze();
        Ok(Some(Framed { compressed, bytes }))
    }
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
        out.put(framed(&one, false));
    }
    out.freeze()
}
