//! The pump that feeds a call from a stream of messages.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BufMut;
use prost::Message;
use ringway_local::{CallSender, Form, MAX_WHOLE_BYTES, Out, SendError};
use ringway_net::Outgoing;
use tokio_stream::Stream;
use tonic::Status;

use crate::meter::Direction;
use crate::method::MessageLimits;
use crate::streaming::LENGTH_BYTES;
use crate::trace::Trace;

/// A frame of packed messages is closed at about this size.
const PACK_BYTES: usize = 6 * 1024;
/// The same where one of them is longer than [`SHORT_BYTES`] and the connection has credit to spare: what
/// goes in a block pays only from here on.
const PACK_LONGER_BYTES: usize = 24 * 1024;
const SHORT_BYTES: usize = 3 * 1024;
/// What a stream that waits for its source keeps of the memory that its messages were encoded in.
const KEPT_BYTES: usize = 4 * 1024;
/// Messages of a packed frame, at most.
const PACK_MESSAGES: usize = 256;
/// A message of up to this length is encoded when it comes, into memory of this stream's own: it is gone
/// before the next one is made, and the memory that the peer reads is written in one go. Encoded message by
/// message there, each atomic operation between them (prost counts the owners of a `bytes` field) would wait
/// until the other core had given up the lines.
const STAGED_BYTES: usize = 8 * 1024;
/// What a stream sends before others have their turn. Whoever polls it holds up the connection's other
/// calls, and what arrives for this one; a source that is always ready would go on until it has spent its
/// credit.
const BYTES_AT_ONCE: usize = 32 * 1024;
/// What a frame counts for beside its messages: an empty one is work as well.
const FRAME_BYTES: usize = 64;

/// How a pump ended.
pub(crate) enum Pumped {
    /// The stream ended.
    All,
    /// The stream ended with a status.
    Failed(Status),
    /// A message could not be sent: perhaps because the call ended first.
    Unsent(SendError),
}

/// Sends a stream's messages, several small ones in a frame where they are ready together.
pub(crate) async fn pump<S, T>(
    call: &CallSender,
    stream: S,
    limits: MessageLimits,
    trace: &Trace,
) -> Pumped
where
    S: Stream<Item = Result<T, Status>>,
    T: Outgoing,
{
    let mut stream = pin!(stream);
    let (mut batch, mut turn) = (Batch::default(), Turn::default());
    loop {
        let plenty = || call.has_plenty();
        let filled = poll_fn(|context| batch.fill(context, stream.as_mut(), limits, &plenty)).await;
        let len = batch.len_bytes();
        if !batch.is_empty()
            && let Err(error) = send(call, &mut batch, trace).await
        {
            return Pumped::Unsent(error);
        }
        match filled {
            Filled::More => turn.sent(len).await,
            Filled::End => return Pumped::All,
            Filled::Failed(status) => return Pumped::Failed(status),
        }
    }
}

async fn send<T: Outgoing>(
    call: &CallSender,
    batch: &mut Batch<T>,
    trace: &Trace,
) -> Result<(), SendError> {
    if batch.len_bytes() > MAX_WHOLE_BYTES {
        return Box::pin(send_large(call, batch, trace)).await;
    }
    let form = match batch.messages {
        0 | 1 => Form::Plain,
        several => Form::Packed(u32::try_from(several).unwrap_or(u32::MAX)),
    };
    let len = batch.len_bytes();
    let sent = poll_fn(|context| call.poll_send(context, form, len, &mut |out| batch.write(out)));
    let sent = sent.await;
    if sent.is_ok() {
        trace.carried(Direction::Sent, batch.messages, batch.messages_bytes);
    }
    batch.clear();
    sent
}

/// Sends a message that is alone in its batch, and that one frame does not take.
async fn send_large<T: Outgoing>(
    call: &CallSender,
    batch: &mut Batch<T>,
    trace: &Trace,
) -> Result<(), SendError> {
    let len = batch.messages_bytes;
    // Encoded, it is let go of.
    let encode = |out: Out<'_>| {
        batch.write(out);
        batch.clear();
    };
    call.send_large(Form::Plain, false, encode).await?;
    trace.carried(Direction::Sent, 1, len);
    Ok(())
}

/// Messages that were ready together.
struct Batch<T> {
    messages: usize,
    /// Bytes of the messages alone.
    messages_bytes: usize,
    longest_bytes: usize,
    /// Whether it may be longer than [`PACK_BYTES`], if that was asked.
    may_be_longer: Option<bool>,
    /// The first messages, encoded, each behind its length.
    staged: Vec<u8>,
    /// The others, from the first one on that is too long for that.
    others: Vec<T>,
    /// One that is too long to go with those before it.
    next: Option<T>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            messages: 0,
            messages_bytes: 0,
            longest_bytes: 0,
            may_be_longer: None,
            staged: Vec::new(),
            others: Vec::new(),
            next: None,
        }
    }
}

enum Filled {
    More,
    End,
    Failed(Status),
}

impl<T: Outgoing> Batch<T> {
    /// Takes what is ready; pending only while nothing is.
    fn fill<S: Stream<Item = Result<T, Status>>>(
        &mut self,
        context: &mut Context<'_>,
        mut stream: Pin<&mut S>,
        limits: MessageLimits,
        plenty: &impl Fn() -> bool,
    ) -> Poll<Filled> {
        if let Some(message) = self.next.take() {
            self.add(message);
        }
        while !self.is_full(plenty) {
            match stream.as_mut().poll_next(context) {
                Poll::Pending if self.is_empty() => {
                    if self.staged.capacity() > KEPT_BYTES {
                        self.staged = Vec::new();
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(Filled::More),
                Poll::Ready(None) => return Poll::Ready(Filled::End),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Filled::Failed(status)),
                Poll::Ready(Some(Ok(message))) => {
                    if let Err(status) = self.push(message, limits) {
                        return Poll::Ready(Filled::Failed(status));
                    }
                }
            }
        }
        Poll::Ready(Filled::More)
    }

    fn push(&mut self, message: T, limits: MessageLimits) -> Result<(), Status> {
        let len = message.message().encoded_len();
        limits.check_encoding(len)?;
        // Packed with others it would be longer than its receiver takes one message to be.
        if len > PACK_LONGER_BYTES && self.messages > 0 {
            self.next = Some(message);
        } else {
            self.add_of_len(message, len);
        }
        Ok(())
    }

    fn add(&mut self, message: T) {
        let len = message.message().encoded_len();
        self.add_of_len(message, len);
    }

    fn add_of_len(&mut self, message: T, len: usize) {
        self.messages += 1;
        self.messages_bytes += len;
        self.longest_bytes = self.longest_bytes.max(len);
        if len <= STAGED_BYTES && self.others.is_empty() {
            put(message.message(), len, &mut self.staged);
        } else {
            self.others.push(message);
        }
    }

    fn write(&self, out: Out<'_>) {
        match out {
            Out::Slice(mut out) => self.write_to(&mut out),
            Out::Block(mut out) => self.write_to(&mut out),
            Out::Rope(out) => self.write_to(out),
        }
    }

    fn write_to(&self, out: &mut impl BufMut) {
        if self.is_packed() {
            out.put_slice(&self.staged);
            for message in self.others.iter().map(Outgoing::message) {
                put(message, message.encoded_len(), out);
            }
        } else if let Some(staged) = self.staged.get(LENGTH_BYTES..) {
            out.put_slice(staged);
        } else if let [message] = &self.others[..] {
            message.message().encode_raw(out);
        }
    }
}

impl<T> Batch<T> {
    fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// `plenty` says whether a long frame is to nobody's harm: asked once for each that is to be long.
    fn is_full(&mut self, plenty: impl Fn() -> bool) -> bool {
        if self.messages >= PACK_MESSAGES || self.next.is_some() {
            return true;
        }
        if self.len_bytes() < PACK_BYTES {
            return false;
        }
        let may_be_longer =
            self.longest_bytes > SHORT_BYTES && *self.may_be_longer.get_or_insert_with(plenty);
        !may_be_longer || self.len_bytes() >= PACK_LONGER_BYTES
    }

    fn is_packed(&self) -> bool {
        self.messages > 1
    }

    /// Bytes of the frame: one message bare, several each behind its length.
    fn len_bytes(&self) -> usize {
        match self.is_packed() {
            true => self.messages * LENGTH_BYTES + self.messages_bytes,
            false => self.messages_bytes,
        }
    }

    fn clear(&mut self) {
        self.messages = 0;
        self.messages_bytes = 0;
        self.longest_bytes = 0;
        self.may_be_longer = None;
        self.staged.clear();
        self.others.clear();
    }
}

/// A message behind its length.
fn put(message: &impl Message, len: usize, out: &mut impl BufMut) {
    out.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    message.encode_raw(out);
}

/// What a stream has sent since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    bytes: usize,
}

impl Turn {
    /// A frame of `len` bytes was sent. Ends at once, or is woken and pending once where it is others' turn.
    pub(crate) async fn sent(&mut self, len: usize) {
        self.bytes += FRAME_BYTES + len;
        poll_fn(|context| {
            if self.bytes < BYTES_AT_ONCE {
                return Poll::Ready(());
            }
            self.bytes = 0;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use futures_util::FutureExt;

    use super::*;

    fn batch(texts: &[String]) -> (Batch<String>, Vec<u8>) {
        let mut batch = Batch::default();
        for text in texts {
            batch.push(text.clone(), MessageLimits::default()).unwrap();
        }
        let mut bytes = Vec::new();
        batch.write_to(&mut bytes);
        assert_eq!(bytes.len(), batch.len_bytes());
        (batch, bytes)
    }

    #[test]
    fn messages_keep_their_order_whether_encoded_at_once_or_later() {
        let texts = [1, 9_000, 2, 300, 10_000, 0].map(|len| "x".repeat(len));
        for texts in [&texts[..], &texts[2..4], &texts[1..3]] {
            let (batch, bytes) = batch(texts);
            assert_eq!(batch.messages, texts.len());
            let mut rest = &bytes[..];
            for text in texts {
                let len = rest.get_u32_le() as usize;
                let (message, behind) = rest.split_at(len);
                assert_eq!(String::decode(message).unwrap(), *text);
                rest = behind;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_message_alone_goes_bare() {
        for text in [3, 9_000].map(|len| "x".repeat(len)) {
            let (mut batch, bytes) = batch(std::slice::from_ref(&text));
            assert_eq!(String::decode(&bytes[..]).unwrap(), text);
            batch.clear();
            assert!(batch.is_empty() && batch.len_bytes() == 0);
        }
    }

    #[test]
    fn others_have_their_turn_after_so_many_bytes_or_frames() {
        for (len, frames) in [(0, 512), (6 * 1024, 6), (BYTES_AT_ONCE, 1), (1 << 30, 1)] {
            let mut turn = Turn::default();
            for _ in 0..3 {
                for _ in 1..frames {
                    assert_eq!(turn.sent(len).now_or_never(), Some(()), "{len}");
                }
                assert_eq!(turn.sent(len).now_or_never(), None, "{len}");
            }
        }
    }
}
