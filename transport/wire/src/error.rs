//! What goes wrong, and whose fault it is: the peer's ([`ProtocolError`], [`HandshakeError`]) or
//! the caller's ([`OpenError`], [`SendError`], [`HeadError`]).

use thiserror::Error;

/// The peer broke the protocol. The connection is over; nothing is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame after the connection had ended.
    #[error("the connection has already ended")]
    Closed,
    /// A frame of a kind that nobody defined.
    #[error("peer sent a frame of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// Flags that mean nothing on a frame of this kind.
    #[error("peer sent flags {flags:#04x}, which frame kind {kind:#04x} does not have")]
    BadFlags {
        /// The frame's kind.
        kind: u8,
        /// All its flags.
        flags: u8,
    },
    /// A length above its limit, or lengths that contradict each other.
    #[error("peer sent a frame of kind {kind:#04x} with an impossible length {len}")]
    BadLength {
        /// The frame's kind.
        kind: u8,
        /// The offending length.
        len: u32,
    },
    /// The head handed in is not as long as the header says.
    #[error("head has {got} bytes where its header says {announced}")]
    HeadLength {
        /// What the header says.
        announced: u32,
        /// What came.
        got: usize,
    },
    /// A head that does not decode.
    #[error("peer sent a malformed head: {0}")]
    BadHead(#[from] HeadError),
    /// Call id 0 where a call is needed.
    #[error("peer sent a frame for call id zero")]
    CallIdZero,
    /// A slot above what was negotiated.
    #[error("peer opened call slot {slot}, but only {limit} are agreed")]
    SlotOutOfRange {
        /// The slot.
        slot: u32,
        /// Slots agreed in the handshake.
        limit: u32,
    },
    /// A request whose id is in use, was used, or is not the next one of its slot.
    #[error("peer opened call {call:#018x} out of turn or twice")]
    CallIdReused {
        /// The id.
        call: u64,
    },
    /// A frame for a call that was never opened.
    #[error("peer sent a frame for call {call:#018x}, which was never opened")]
    UnknownCall {
        /// The id.
        call: u64,
    },
    /// A frame that only the other role may send.
    #[error("peer sent a frame of kind {kind:#04x}, which its role may not send")]
    WrongRole {
        /// The frame's kind.
        kind: u8,
    },
    /// A message after the peer had closed its direction.
    #[error("peer sent a message on call {call:#018x} after half-close")]
    MessageAfterEnd {
        /// The call.
        call: u64,
    },
    /// Frames of a call in an impossible order, such as headers after a message.
    #[error("peer sent a frame of kind {kind:#04x} out of order on call {call:#018x}")]
    OutOfOrder {
        /// The call.
        call: u64,
        /// The frame's kind.
        kind: u8,
    },
    /// Pieces that do not add up to their message.
    #[error("peer sent pieces that do not add up to a message on call {call:#018x}")]
    BadPiece {
        /// The call.
        call: u64,
    },
    /// More bytes than the credit given.
    #[error("peer sent more than its credit allows (call {call:#018x}, 0 = connection)")]
    CreditOverrun {
        /// The call, 0 for the connection's own window.
        call: u64,
    },
    /// Credit of nothing, or beyond the window that the peer announced.
    #[error("peer granted {granted} bytes, which its window does not have (call {call:#018x})")]
    BadCredit {
        /// The call, 0 for the connection.
        call: u64,
        /// The grant.
        granted: u32,
    },
    /// A method number that was never defined.
    #[error("peer called method number {0}, which it never defined")]
    UnknownMethod(u32),
    /// A method number beyond the table, or defined again with another path.
    #[error("peer defined method number {0} against the rules")]
    BadMethodDefinition(u32),
    /// Too many calls opened and reset at once.
    #[error("peer opened and reset more than {limit} calls within a second")]
    ResetFlood {
        /// The limit.
        limit: u32,
    },
    /// Too many pings without waiting for an answer.
    #[error("peer sent more pings than may be outstanding")]
    PingFlood,
    /// An answer to a ping that was not sent.
    #[error("peer answered a ping that was not sent")]
    UnsolicitedPong,
}

/// A head (method, metadata, status) that breaks a limit or does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It ends too early.
    #[error("head ends before its content does")]
    Truncated,
    /// Bytes follow its content.
    #[error("head has bytes after its content")]
    TrailingBytes,
    /// A request head with flags that nobody defined, or without a method.
    #[error("request head has impossible flags {0:#04x}")]
    BadFlags(u8),
    /// A number that does not fit.
    #[error("head holds a number that does not fit")]
    BadNumber,
    /// Text that is not UTF-8.
    #[error("head holds text that is not UTF-8")]
    NotUtf8,
    /// A path above [`crate::limits::MAX_PATH_BYTES`].
    #[error("method path of {0} bytes is too long")]
    PathTooLong(usize),
    /// More entries than [`crate::limits::MAX_METADATA_ENTRIES`].
    #[error("metadata has too many entries")]
    TooManyEntries,
    /// More bytes than [`crate::limits::MAX_METADATA_BYTES`].
    #[error("metadata is larger than the limit")]
    MetadataTooLarge,
    /// Text or details of a status above their limit.
    #[error("status of {0} bytes is too large")]
    StatusTooLarge(usize),
}

/// No call can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This side, or the peer, stops taking calls: send it elsewhere.
    #[error("the peer is going away")]
    GoingAway,
    /// All slots are in use.
    #[error("{limit} calls are in flight, the most this connection carries")]
    TooManyCalls {
        /// Slots agreed in the handshake.
        limit: u32,
    },
    /// The deadline has passed already.
    #[error("the deadline has already passed")]
    DeadlinePassed,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// Servers open no calls.
    #[error("only a client opens calls")]
    NotClient,
}

/// A frame cannot be sent now, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// No credit for the call: wait for [`crate::Event::Writable`].
    #[error("the call has no credit")]
    Blocked,
    /// No credit for the connection: wait for [`crate::Event::WritableAll`].
    #[error("the connection has no credit")]
    ConnectionBlocked,
    /// The call has its share of the connection's credit under way. [`crate::Event::WritableAll`] or
    /// [`crate::Event::Writable`] tells when to try again.
    #[error("the call's share of the connection's credit is used up")]
    ShareBlocked,
    /// No credit for large messages: wait for [`crate::Event::WritableAll`].
    #[error("the connection has no credit for large messages")]
    LargeBlocked,
    /// The call is over, or never was.
    #[error("the call is over")]
    Gone,
    /// This direction was closed by this side.
    #[error("the call is already half-closed")]
    HalfClosed,
    /// Not at this point of a call, or not by this role.
    #[error("the frame is out of order on this call")]
    OutOfOrder,
    /// Longer than [`crate::limits`] allow.
    #[error("message or head is larger than the protocol carries")]
    TooLarge,
}

/// The two sides cannot talk to each other. The caller falls back to the network path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not this protocol at all.
    #[error("peer does not speak ringway: wrong magic; is another program listening there?")]
    WrongMagic,
    /// No version in common.
    #[error(
        "peer speaks protocol versions {theirs_min} to {theirs_max}, this side {ours_min} to \
         {ours_max}: upgrade the older side, or use the network path (grpc)"
    )]
    VersionMismatch {
        /// Oldest version of this side.
        ours_min: u16,
        /// Newest version of this side.
        ours_max: u16,
        /// Oldest version of the peer.
        theirs_min: u16,
        /// Newest version of the peer.
        theirs_max: u16,
    },
    /// Two clients or two servers.
    #[error("peer has the same role as this side")]
    SameRole,
    /// It ends early, or is longer than a hello may be.
    #[error("peer sent a hello of impossible length {0}")]
    BadLength(usize),
    /// A field out of its range.
    #[error("peer sent a hello with a bad {0}")]
    BadField(&'static str),
    /// This side's own name is too long.
    #[error("server name of {0} bytes is too long")]
    NameTooLong(usize),
}
