//! tonic's `Streaming` over a local call.
//!
//! `Streaming` insists on a body of framed bytes. It gets markers: an empty message in its framing
//! for each message that waits in a queue beside it, which our [`Decoder`] pops. So a payload is
//! decoded where it arrived, without a second copy through tonic's buffer.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message;
use ringway_local::{Call, Inbound, Out};
use tonic::codec::{DecodeBuf, Decoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use crate::compression::{self, Encoding};
use crate::meter::Direction;
use crate::method::MessageLimits;
use crate::status;
use crate::trace::{self, Step, Trace};

/// Bytes of an empty message in gRPC's framing: a flag and a length.
const MARKER_BYTES: usize = 5;
/// Markers handed out at once.
const MAX_MARKERS: usize = 512;
static MARKERS: [u8; MARKER_BYTES * MAX_MARKERS] = [0; MARKER_BYTES * MAX_MARKERS];

/// Length in front of each message of a packed frame.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A packed message of up to this length is decoded from a slice of its frame, its `bytes` fields copied:
/// that costs less than to count the owners of the frame, and nobody who keeps a message keeps the frame.
const SLICED_BYTES: usize = 512;

/// What the body has taken in, for the decoder beside it.
type Queue = Arc<Mutex<Arrived>>;

/// Messages that wait to be decoded, in the frames that they came in.
#[derive(Debug, Default)]
struct Arrived {
    frames: VecDeque<Arrival>,
    /// How those that are compressed were.
    encoding: Option<Encoding>,
    /// Whose first message is yet to be decoded.
    undecoded: Trace,
}

#[derive(Debug)]
enum Arrival {
    Message(Bytes),
    /// One message, compressed.
    Compressed(Bytes),
    /// Messages one after another, each behind its length; lengths were checked.
    Packed(Bytes),
    Failed(Status),
}

impl Arrived {
    /// How many messages, or statuses in their place, there are more now.
    fn push(&mut self, message: ringway_local::Message) -> usize {
        if message.packed {
            return self.push_packed(message.bytes);
        }
        self.frames.push_back(match message.compressed {
            true => Arrival::Compressed(message.bytes),
            false => Arrival::Message(message.bytes),
        });
        1
    }

    fn push_packed(&mut self, mut bytes: Bytes) -> usize {
        let (mut count, mut end) = (0, 0);
        while let Some((len, rest)) = bytes[end..].split_first_chunk::<LENGTH_BYTES>() {
            let len = u32::from_le_bytes(*len) as usize;
            if len > rest.len() {
                break;
            }
            count += 1;
            end += LENGTH_BYTES + len;
        }
        let whole = end == bytes.len();
        bytes.truncate(end);
        if count > 0 {
            self.frames.push_back(Arrival::Packed(bytes));
        }
        if !whole {
            let status = Status::internal("protocol error: a packed message leaves its frame");
            self.frames.push_back(Arrival::Failed(status));
            count += 1;
        }
        count
    }
}

/// Decodes what the body has taken in: where it lies, when it is asked for.
struct Pop<T> {
    queue: Queue,
    /// What is left of a packed frame, taken out of the queue: the next message needs no lock.
    packed: Bytes,
    limits: MessageLimits,
    message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Pop<T> {
    fn new(queue: Queue, limits: MessageLimits) -> Self {
        Self {
            queue,
            packed: Bytes::new(),
            limits,
            message: PhantomData,
        }
    }

    fn next(&mut self) -> Option<Result<T, Status>> {
        if !self.packed.is_empty() {
            return Some(self.next_packed());
        }
        let mut queue = self.queue.lock();
        let arrival = queue.frames.pop_front()?;
        let encoding = queue.encoding;
        let undecoded = std::mem::take(&mut queue.undecoded);
        drop(queue);
        let message = match arrival {
            Arrival::Message(bytes) => decode_whole(&self.limits, bytes),
            Arrival::Compressed(bytes) => compression::decompress(encoding, &bytes, &self.limits)
                .and_then(|message| decode_whole(&self.limits, message)),
            Arrival::Packed(bytes) => {
                self.packed = bytes;
                self.next_packed()
            }
            Arrival::Failed(status) => Err(status),
        };
        undecoded.step(Step::Decoded);
        Some(message)
    }

    /// Lengths were checked when the frame came.
    fn next_packed(&mut self) -> Result<T, Status> {
        let len = self.packed.get_u32_le() as usize;
        if len <= SLICED_BYTES {
            let message = decode(&self.limits, len, &self.packed[..len]);
            self.packed.advance(len);
            return message;
        }
        decode_whole(&self.limits, self.packed.split_to(len))
    }
}

impl<T: Message + Default> Decoder for Pop<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, _marker: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        self.next().transpose()
    }
}

/// The receiving end of a call as a body of markers.
struct Markers {
    call: Call,
    /// Whether these are requests, whose end must never look clean when it is not.
    requests: bool,
    queue: Queue,
    /// Messages in the queue for which no marker was handed out yet.
    unmarked: usize,
    first: Option<ringway_local::Message>,
    /// Nothing follows the first.
    only_first: bool,
    /// Then: how the stream ends.
    ending: Option<Status>,
    over: bool,
    /// That of a response ends with it.
    trace: Trace,
}

impl Drop for Markers {
    fn drop(&mut self) {
        // Only if nothing else has ended it.
        self.end_trace(Code::Cancelled, "the caller gave the call up");
    }
}

impl Markers {
    fn end_trace(&self, code: Code, message: &str) {
        if !self.requests {
            self.trace.end(code, message);
        }
    }

    /// Takes in the messages of one frame; for how many to hand out markers.
    fn accept(&mut self, message: ringway_local::Message) -> usize {
        if let Some(span) = self.trace.span() {
            let (messages, bytes) = count_of(&message);
            span.carried(Direction::Received, messages, bytes);
        }
        self.unmarked += self.queue.lock().push(message);
        self.mark()
    }

    fn mark(&mut self) -> usize {
        let marked = self.unmarked.min(MAX_MARKERS);
        self.unmarked -= marked;
        marked
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        if let Some(message) = self.first.take() {
            return Poll::Ready(Next::Messages(self.accept(message)));
        }
        if self.unmarked > 0 {
            return Poll::Ready(Next::Messages(self.mark()));
        }
        if self.only_first {
            return Poll::Ready(Next::End(self.ending.take()));
        }
        let inbound = ready!(self.call.poll_inbound(context));
        Poll::Ready(match inbound {
            Some(Inbound::Message(message)) => Next::Messages(self.accept(message)),
            Some(Inbound::Headers(_)) => Next::Nothing,
            None | Some(Inbound::HalfClosed) => Next::End(None),
            Some(Inbound::Response { message, .. }) => Next::Messages(self.accept(message)),
            Some(Inbound::TooLong { len, limit }) => {
                Next::Refused(status::too_long(len as usize, limit as usize))
            }
            Some(Inbound::Trailers { code, head }) => Next::End(Some(status::decode(code, &head))),
            Some(Inbound::Reset { code, .. }) => Next::End(Some(status::reset(code))),
            Some(Inbound::Expired) => Next::End(Some(status::expired())),
            Some(Inbound::Failed(error)) => Next::End(Some(status::unsent(&error))),
            Some(Inbound::Lost { why, .. }) => Next::End(Some(status::lost(&why))),
        })
    }
}

enum Next {
    Messages(usize),
    /// This end takes no more of it.
    Refused(Status),
    Nothing,
    End(Option<Status>),
}

impl Body for Markers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.poll_next(context)) {
                Next::Nothing => {}
                Next::Messages(count) => {
                    let markers = Bytes::from_static(&MARKERS[..count * MARKER_BYTES]);
                    return Poll::Ready(Some(Ok(Frame::data(markers))));
                }
                Next::Refused(status) => {
                    self.over = true;
                    self.end_trace(status.code(), status.message());
                    return Poll::Ready(Some(match self.requests {
                        true => Err(status),
                        false => trailers(status),
                    }));
                }
                Next::End(None) => {
                    self.over = true;
                    self.end_trace(Code::Ok, "");
                    return Poll::Ready(None);
                }
                Next::End(Some(status)) => {
                    self.over = true;
                    self.end_trace(status.code(), status.message());
                    return Poll::Ready(Some(match self.requests {
                        true => Err(status::broken_off(&status)),
                        false => trailers(status),
                    }));
                }
            }
        }
    }
}

/// What makes `Streaming` end with `status`: trailers, or an error where no peer has said it.
fn trailers(status: Status) -> Result<Frame<Bytes>, Status> {
    if status::io_error_of(&status).is_some() {
        return Err(status);
    }
    let mut headers = HeaderMap::new();
    match status.add_header(&mut headers) {
        Ok(()) => Ok(Frame::trailers(headers)),
        Err(_) => Err(status),
    }
}

/// How many messages a frame has, and how many bytes they have.
pub(crate) fn count_of(message: &ringway_local::Message) -> (usize, usize) {
    let mut rest = &message.bytes[..];
    if !message.packed {
        return (1, rest.len());
    }
    let (mut messages, mut bytes) = (0, 0);
    while let Some((len, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let len = (u32::from_le_bytes(*len) as usize).min(behind.len());
        (messages, bytes) = (messages + 1, bytes + len);
        rest = &behind[len..];
    }
    (messages, bytes)
}

/// Takes a frame of packed messages apart, as the body of a stream does.
#[cfg(any(test, fuzzing))]
pub(crate) fn unpack(bytes: Bytes) {
    let queue = queue(None, Trace::None);
    let message = ringway_local::Message {
        bytes,
        packed: true,
        compressed: false,
    };
    let counted = count_of(&message).0;
    let count = queue.lock().push(message);
    let mut pop = Pop::<String>::new(queue, MessageLimits::default());
    let popped = std::iter::from_fn(|| pop.next()).count();
    assert_eq!(popped, count, "as many as the body has markers for");
    assert!(counted.abs_diff(count) <= 1);
}

/// Decodes a message that has its bytes to itself.
pub(crate) fn decode_whole<T: Message + Default>(
    limits: &MessageLimits,
    bytes: Bytes,
) -> Result<T, Status> {
    decode(limits, bytes.len(), bytes)
}

/// The reverse: into exactly its length.
pub(crate) fn encode_whole(message: &impl Message, out: Out<'_>) {
    match out {
        Out::Slice(mut out) => message.encode_raw(&mut out),
        Out::Block(mut out) => message.encode_raw(&mut out),
        // Not behind a further reference: that would write a shared field byte by byte.
        Out::Rope(out) => message.encode_raw(out),
    }
}

fn decode<T: Message + Default>(
    limits: &MessageLimits,
    len: usize,
    bytes: impl Buf,
) -> Result<T, Status> {
    limits.check_decoding(len)?;
    T::decode(bytes).map_err(status::undecodable)
}

fn queue(encoding: Option<Encoding>, undecoded: Trace) -> Queue {
    Arc::new(Mutex::new(Arrived {
        encoding,
        undecoded,
        ..Arrived::default()
    }))
}

/// The messages of a request, as a handler reads them.
pub(crate) fn requests<T: Message + Default + Unpin + 'static>(
    call: Call,
    limits: MessageLimits,
    (first, only_first): (Option<ringway_local::Message>, bool),
    encoding: Option<Encoding>,
) -> Streaming<T> {
    let queue = queue(encoding, Trace::None);
    let body = Markers {
        call,
        trace: trace::counted_here(),
        requests: true,
        queue: Arc::clone(&queue),
        unmarked: 0,
        first,
        only_first,
        ending: None,
        over: false,
    };
    // The limits are ours: a marker is always within tonic's.
    Streaming::new_request(Pop::new(queue, limits), body, None, None)
}

/// The messages of a response, as a caller reads them; `whole` is the only one, where it came with all
/// trailing metadata.
pub(crate) fn responses<T: Message + Default + Unpin + 'static>(
    call: Call,
    limits: MessageLimits,
    encoding: Option<Encoding>,
    trace: &Trace,
    whole: Option<(ringway_local::Message, MetadataMap)>,
) -> Streaming<T> {
    let queue = queue(encoding, trace.clone());
    let only_first = whole.is_some();
    let (first, ending) = whole
        .map(|(message, trailing)| (message, ok(trailing)))
        .unzip();
    let body = Markers {
        call,
        trace: trace.clone(),
        requests: false,
        queue: Arc::clone(&queue),
        unmarked: 0,
        only_first,
        first,
        ending,
        over: false,
    };
    Streaming::new_response(
        Pop::new(queue, limits),
        body,
        http::StatusCode::OK,
        None,
        None,
    )
}

/// Metadata of a status as trailers, for a stream that ended well. Trailers that can't come are a
/// failure.
pub(crate) fn ok_trailers(metadata: MetadataMap) -> (u16, Vec<u8>) {
    if let Err(refused) = crate::metadata::encode_trailing(&metadata) {
        return status::encode(&refused);
    }
    status::encode(&ok(metadata))
}

/// The status of a call that went well.
fn ok(trailing: MetadataMap) -> Status {
    let mut status = Status::ok("");
    *status.metadata_mut() = trailing;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(messages: &[&[u8]]) -> Vec<u8> {
        let with_length = |message: &&[u8]| {
            let len = u32::try_from(message.len()).unwrap();
            [&len.to_le_bytes()[..], message].concat()
        };
        messages.iter().flat_map(with_length).collect()
    }

    /// What decodes a stream of one packed frame, and of how many messages it says it is.
    fn popped(bytes: Vec<u8>) -> (Pop<String>, usize) {
        let queue = queue(None, Trace::None);
        let count = queue.lock().push(ringway_local::Message {
            bytes: bytes.into(),
            packed: true,
            compressed: false,
        });
        (Pop::new(queue, MessageLimits::default()), count)
    }

    /// As a prost message: field 1, three bytes.
    const TEXT: &[u8] = b"\x0a\x03abc";

    #[test]
    fn packed_messages_come_one_by_one() {
        let (mut pop, count) = popped(packed(&[TEXT, b"", b"\xff", TEXT]));
        assert_eq!(count, 4);
        assert_eq!(pop.next().unwrap().unwrap(), "abc");
        assert_eq!(pop.next().unwrap().unwrap(), "");
        pop.next().unwrap().unwrap_err();
        assert_eq!(pop.next().unwrap().unwrap(), "abc");
        assert!(pop.next().is_none());
    }

    #[test]
    fn packed_messages_of_any_length_are_whole() {
        let texts =
            [1, SLICED_BYTES - 3, SLICED_BYTES, 3 * SLICED_BYTES, 7].map(|len| "x".repeat(len));
        let encoded = texts.each_ref().map(Message::encode_to_vec);
        let (mut pop, count) = popped(packed(&encoded.each_ref().map(Vec::as_slice)));
        assert_eq!(count, texts.len());
        for text in texts {
            assert_eq!(pop.next().unwrap().unwrap(), text);
        }
        assert!(pop.next().is_none());
    }

    #[test]
    fn a_length_that_leaves_its_frame_is_an_error_after_what_was_whole() {
        let mut bytes = packed(&[TEXT]);
        bytes.extend_from_slice(&[9, 0, 0, 0, 1]);
        for end in [bytes.len(), bytes.len() - 3] {
            let (mut pop, count) = popped(bytes[..end].to_vec());
            assert_eq!(count, 2);
            assert_eq!(pop.next().unwrap().unwrap(), "abc");
            let broken = pop.next().unwrap().unwrap_err();
            assert_eq!(broken.code(), tonic::Code::Internal);
        }
    }
}
