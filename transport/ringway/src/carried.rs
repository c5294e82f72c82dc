//! Counts the messages of calls that travel as HTTP, where calls are measured: by gRPC's framing, as
//! bodies pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::bridge::PREFIX_BYTES;
use crate::meter::Direction;
use crate::trace::{self, Trace};

/// `body`, whose messages are counted if its call is measured.
pub(crate) fn counted(body: Body, trace: &Trace, direction: Direction) -> Body {
    if !trace::is_measured() || trace.span().is_none() {
        return body;
    }
    Body::new(Counted {
        inner: body,
        count: Count::new(trace, direction),
    })
}

struct Counted {
    inner: Body,
    count: Count,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.count.note(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Tells a call of the messages in a body.
struct Count {
    trace: Trace,
    direction: Direction,
    framing: Framing,
}

impl Count {
    fn new(trace: &Trace, direction: Direction) -> Self {
        Self {
            trace: trace.clone(),
            direction,
            framing: Framing::default(),
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let (messages, bytes) = self.framing.passes(data);
            self.trace.carried(self.direction, messages, bytes);
        }
    }
}

/// Where in gRPC's framing a body is. Nothing that a peer sends can be wrong here: it is counted.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that have come.
    begun: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Framing {
    /// Messages that end in `data`, and bytes of messages in it.
    fn passes(&mut self, mut data: &[u8]) -> (usize, usize) {
        let (mut messages, mut bytes) = (0, 0);
        while !data.is_empty() {
            let (part, rest) = data.split_at(self.part().min(data.len()));
            data = rest;
            if self.begun < PREFIX_BYTES {
                self.prefix[self.begun..][..part.len()].copy_from_slice(part);
                self.begun += part.len();
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                bytes += part.len();
                self.left -= part.len();
            }
            if self.begun == PREFIX_BYTES && self.left == 0 {
                messages += 1;
                self.begun = 0;
            }
        }
        (messages, bytes)
    }

    /// How many bytes belong together from here on.
    fn part(&self) -> usize {
        match PREFIX_BYTES - self.begun {
            0 => self.left,
            missing => missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::framed;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"one", b"", &[7; 300], b"last"];
        let body: Vec<u8> = messages.iter().flat_map(|it| framed(it, false)).collect();
        let bytes = messages.iter().map(|it| it.len()).sum();
        for size in [1, 2, 4, 5, 6, 7, 64, body.len()] {
            let mut framing = Framing::default();
            let passed = body.chunks(size).map(|data| framing.passes(data));
            let sum = |all: (usize, usize), one: (usize, usize)| (all.0 + one.0, all.1 + one.1);
            assert_eq!(passed.fold((0, 0), sum), (4, bytes), "{size}");
        }
    }
}
