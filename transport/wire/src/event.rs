//! What a connection tells its caller. Events are values; metadata and texts borrow from the head
//! that was handed in.

use std::time::Duration;

use crate::metadata::Metadata;
use crate::{CallId, FrameHeader, Method, StatusHead, TraceContext};

/// Something happened.
///
/// Unless an event says otherwise, the frame's payload belongs to it; for events without a message
/// there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'h> {
    /// Server: a call was opened. Its message, if it has one, is the frame's payload.
    Request(Request<'h>),
    /// A message, or a piece of one, is the frame's payload.
    Message(Message),
    /// A message began that is longer than [`crate::Connection::limit_messages`] allows. Its payload is to
    /// be dropped, and no further message comes on this call.
    TooLong {
        /// The call.
        call: CallId,
        /// Length of the whole message.
        message_len: u32,
        /// The longest that is taken.
        limit: u32,
    },
    /// Server: the client sends no more messages.
    HalfClosed {
        /// The call.
        call: CallId,
    },
    /// Client: initial metadata.
    Headers {
        /// The call.
        call: CallId,
        /// What the server sent.
        metadata: Metadata<'h>,
    },
    /// Client: the whole answer of a unary call, status OK. The call is closed: take the payload,
    /// then [`crate::Connection::release`].
    Response(Response<'h>),
    /// Client: the end of a call. It is closed; [`crate::Connection::release`] once what came
    /// before it has been taken.
    Trailers {
        /// The call.
        call: CallId,
        /// Status code.
        code: u16,
        /// The rest of the status.
        status: StatusHead<'h>,
    },
    /// The peer gave the call up; it is closed. Client: release it. Server: drop its handler.
    Reset {
        /// The call.
        call: CallId,
        /// Why, as a status code.
        code: u16,
        /// No handler ever saw the call: it may be sent again elsewhere.
        refused: bool,
    },
    /// Server: a request was turned away, and the answer is queued. Drop the payload.
    Refused {
        /// The call, already closed.
        call: CallId,
        /// What the client is told.
        code: u16,
    },
    /// The call's deadline passed; it is closed, and the peer will be told. Client: report
    /// DEADLINE_EXCEEDED and release it. Server: drop its handler.
    Expired {
        /// The call.
        call: CallId,
    },
    /// The call has credit again.
    Writable {
        /// The call.
        call: CallId,
    },
    /// The connection has credit again: everybody who got
    /// [`crate::SendError::ConnectionBlocked`] may try again.
    WritableAll,
    /// The answer to a ping.
    Pong {
        /// What [`crate::Connection::ping`] returned.
        token: u64,
    },
    /// The peer takes no more calls. Those in flight go on if `code` is 0.
    GoAway {
        /// 0 for a drain, else why the peer gave up the connection.
        code: u16,
        /// The same in words.
        text: &'h str,
    },
    /// A frame of the link below, to which the core gives no meaning.
    Link(FrameHeader),
    /// A frame of a call that is over on this side. Drop its payload; its credit is accounted for.
    Ignored,
    /// The core dealt with it; nothing to do but [`crate::Connection::poll_transmit`].
    Handled,
    /// The peer stayed silent beyond the keepalive's timeout: the connection is over.
    PeerSilent,
}

/// Says what a payload is worth that has not arrived yet: see [`crate::Connection::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'h> {
    /// It is wanted: memory may be taken for it.
    Take,
    /// It belongs to nothing that is wanted: it is to be read past.
    Drop,
    /// It opens a call: the limit of this method decides.
    ByMethod(Method<'h>),
}

/// A call was opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request<'h> {
    /// Its id.
    pub call: CallId,
    /// What is called. A number seen before with a path may be looked up in a table of the
    /// caller's own.
    pub method: Method<'h>,
    /// What the client allows for the call.
    pub timeout: Option<Duration>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceContext>,
    /// The client's metadata.
    pub metadata: Metadata<'h>,
    /// Length of the message in the payload, if there is one.
    pub message_len: Option<u32>,
    /// The message is compressed.
    pub compressed: bool,
    /// The client sends no further message.
    pub end: bool,
}

/// A message, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its call.
    pub call: CallId,
    /// Length of the whole message: what [`crate::Connection::consumed`] wants to know.
    pub message_len: u32,
    /// Length of this piece.
    pub piece_len: u32,
    /// This piece is the first, or the only one.
    pub first: bool,
    /// Further pieces follow.
    pub more: bool,
    /// The message is compressed.
    pub compressed: bool,
    /// The sender half-closes after it.
    pub end: bool,
}

/// The whole answer of a unary call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'h> {
    /// The call.
    pub call: CallId,
    /// Length of the message in the payload.
    pub message_len: u32,
    /// The message is compressed.
    pub compressed: bool,
    /// Initial metadata.
    pub initial: Metadata<'h>,
    /// Trailing metadata.
    pub trailing: Metadata<'h>,
}
