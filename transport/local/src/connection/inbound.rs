//! What a connection hands to its users, and what they hand to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringway_wire::{RequestHead, StatusHead, TraceContext, code};

use crate::call::Call;
use crate::error::{Closed, SendError};
use crate::pace::{HandlerPolicy, Pace};

/// A message as it arrived.
#[derive(Debug)]
pub struct Message {
    /// One encoded message, or several if `packed`.
    pub bytes: Bytes,
    /// The bytes are messages one after another, each behind its length (u32, little-endian).
    pub packed: bool,
    /// The message is compressed, with the encoding that the metadata names.
    pub compressed: bool,
}

/// What arrives for a call.
#[derive(Debug)]
pub enum Inbound {
    /// Client: initial metadata, as a metadata block.
    Headers(Bytes),
    /// A message.
    Message(Message),
    /// A message began that is longer than this end takes: none follows, and the call is this end's to end.
    TooLong {
        /// Bytes of the message.
        len: u32,
        /// Bytes of the longest that is taken.
        limit: u32,
    },
    /// Server: the client sends no more.
    HalfClosed,
    /// Client: the whole answer of a unary call that succeeded. The call is over.
    Response {
        /// A [`ringway_wire::ResponseHead`], empty if there is no metadata.
        head: Bytes,
        /// The message.
        message: Message,
    },
    /// Client: the status that ends the call.
    Trailers {
        /// Status code.
        code: u16,
        /// A [`StatusHead`].
        head: Bytes,
    },
    /// The peer gave the call up.
    Reset {
        /// Status code.
        code: u16,
        /// No handler saw the call: it may be sent again elsewhere.
        refused: bool,
    },
    /// This end could not send or take a message of the call, and gave it up.
    Failed(SendError),
    /// The deadline passed.
    Expired,
    /// The connection ended under the call.
    Lost {
        /// Why.
        why: Closed,
        /// The peer certainly never saw the call: it may be sent again elsewhere.
        unseen: bool,
    },
}

impl Inbound {
    /// The end of a call that was given up with a status code.
    pub(crate) fn reset(code: u16) -> Self {
        Self::Reset {
            code,
            refused: false,
        }
    }

    /// Whether nothing can follow.
    pub(crate) fn ends_call(&self) -> bool {
        !matches!(
            self,
            Self::Headers(_) | Self::Message(_) | Self::TooLong { .. } | Self::HalfClosed
        )
    }

    /// The length of a message, which may be none: that takes credit as well.
    pub(super) fn message_bytes(&self) -> Option<usize> {
        match self {
            Self::Message(message) => Some(message.bytes.len()),
            _ => None,
        }
    }
}

/// A method that calls lead to.
#[derive(Debug)]
pub struct ServedMethod {
    /// A number of the service's choice; `None` if it has no such method.
    pub route: Option<u64>,
    /// The path; empty if the client's number for the method was never defined.
    pub path: Box<str>,
    /// Where its handlers run.
    pub pace: Arc<Pace>,
    /// The longest message that it takes for a request, in bytes: a longer one is refused when it begins, before
    /// memory is taken for it.
    pub max_request_bytes: u32,
}

impl Default for ServedMethod {
    /// A method that was never defined. Its handlers only refuse.
    fn default() -> Self {
        Self {
            route: None,
            path: Box::default(),
            pace: Arc::new(Pace::new(HandlerPolicy::Inline)),
            max_request_bytes: 0,
        }
    }
}

/// A call that a server is to answer.
#[derive(Debug)]
pub struct Started {
    /// The call.
    pub call: Call,
    /// The method, as [`crate::Serve::resolve`] has found it.
    pub method: Arc<ServedMethod>,
    /// The time that the client allows.
    pub timeout: Option<Duration>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// When it was taken from the link, if its trace is recorded.
    pub seen: Option<SystemTime>,
    /// The client's metadata, as a metadata block.
    pub metadata: Bytes,
    /// The message that came with the request.
    pub message: Option<Message>,
    /// Whether no further message comes.
    pub end: bool,
}

/// How a call is opened.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// A small number that stands for the method in this process.
    pub method_number: u32,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// A metadata block.
    pub metadata: ringway_wire::Metadata<'a>,
    /// When the call has to be over, by the [clock](crate::clock) of its caller.
    pub deadline: Option<Instant>,
    /// The trace that it belongs to.
    pub trace: Option<&'a TraceContext>,
    /// Is set when the request goes out, where that is of interest.
    pub published: Option<&'a Stamp>,
    /// No message follows the one given with the request.
    pub end: bool,
    /// That message is compressed, with the encoding that the metadata names.
    pub compressed: bool,
    /// The longest message that is taken for an answer, in bytes.
    pub max_answer_bytes: u32,
}

impl Request<'_> {
    /// The length of its head, at most: how long it is depends on whether the peer knows the method.
    pub(crate) fn max_head_len(&self) -> usize {
        RequestHead::max_encoded_len(self.path, self.metadata)
    }
}

/// A time that is noted where nobody waits for it.
#[derive(Debug, Default)]
pub struct Stamp(AtomicU64);

impl Stamp {
    /// Notes the time.
    pub fn set(&self) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// The time that was noted last.
    pub fn get(&self) -> Option<SystemTime> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(UNIX_EPOCH + Duration::from_nanos(nanos)),
        }
    }
}

/// The status of a call whose handler went without an answer.
pub(crate) fn abandoned_status() -> (u16, Vec<u8>) {
    let head = StatusHead {
        message: "the handler ended without an answer",
        details: &[],
        metadata: ringway_wire::Metadata::EMPTY,
    };
    let mut bytes = vec![0; head.encoded_len().unwrap_or(0)];
    head.encode(&mut bytes);
    (code::INTERNAL, bytes)
}
