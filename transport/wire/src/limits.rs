//! Every bound of the protocol, each with its reason. A peer that passes one is cut off; a user
//! that would pass one is told before anything is written.

/// Longest head of a frame. The largest legal ones: a status (text, details and metadata) and an
/// answer (metadata twice); both stay below it with room for their lengths.
pub const MAX_HEAD_BYTES: u32 = 192 * 1024;

/// Longest message, whole: protobuf's own limit. Callers enforce a lower one (tonic's is 4 MiB)
/// with a status; this one only keeps sums within their types.
pub const MAX_MESSAGE_BYTES: u32 = i32::MAX as u32;

/// Longest frame of packed messages that a receiver takes whatever its limit for one message is: eight times
/// the longest that a sender makes.
pub const MAX_PACKED_BYTES: u32 = 256 * 1024;

/// Bytes of one metadata block. Four times hyper's default for a header list, so that whatever
/// the network path carries a local path carries too.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;

/// Entries of one metadata block: more than anybody sends, few enough to walk on each call.
pub const MAX_METADATA_ENTRIES: u16 = 1024;

/// Bytes of the heads of all calls that a client has in flight on one connection: a connection's window, and
/// 256 calls with all the metadata that one may have. Windows count messages alone, so without it the heads
/// of [`DEFAULT_CALL_SLOTS`] calls would take 1 GiB of a server.
pub const MAX_HEADS_BYTES: u64 = 16 * 1024 * 1024;

/// Text of a status. Longer texts are cut by [`crate::StatusHead::fit_message`].
pub const MAX_STATUS_TEXT_BYTES: usize = 16 * 1024;

/// Details of a status (`grpc-status-details-bin`, decoded).
pub const MAX_STATUS_DETAILS_BYTES: usize = 64 * 1024;

/// Longest method path. gRPC servers refuse longer header lines.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// Methods that a connection remembers by number. A call to any further one carries its path.
pub const MAX_METHODS: u32 = 1024;

/// Longest path that is remembered. With [`MAX_METHODS`] it bounds the table to 512 KiB.
pub const MAX_REMEMBERED_PATH_BYTES: usize = 512;

/// Slots for calls of one connection, at most. A hostile client that names the last slot first
/// makes the server allocate all: about 10 MiB.
pub const MAX_CALL_SLOTS: u32 = 65_536;

/// Slots for calls unless configured: far above h2's usual 100 to 200 streams, and at most 2.5
/// MiB of state when all are in use.
pub const DEFAULT_CALL_SLOTS: u32 = 16_384;

/// Bytes of messages that one call may have under way, each direction, as in DESIGN: enough that
/// a stream of 64 KiB messages never waits for credit on a local path.
pub const DEFAULT_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The same for a connection: four calls at full speed.
pub const DEFAULT_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Longest message that is charged to a connection's window. A longer one takes its own pace through a second
/// window of that size ([`crate::Capabilities::LARGE_WINDOW`]): charged whole to the first, it would hold up every
/// call of the connection until it is read. Four of these fill a default window.
pub const LARGE_MESSAGE_BYTES: u32 = 4 * 1024 * 1024;

/// What a call may have under way of the connection's window whoever else stalls: a frame, since one may
/// start while less is.
pub const BASE_SHARE_BYTES: u32 = 4 * 1024;

/// Smallest window that a peer may announce. Below a page, credit frames outnumber messages.
pub const MIN_WINDOW_BYTES: u32 = 4 * 1024;

/// Largest window: window + one message still fits the 32 bits of a credit frame.
pub const MAX_WINDOW_BYTES: u32 = 1024 * 1024 * 1024;

/// What a message costs beside its bytes. Without it a window of 4 MiB would admit four million
/// messages of one byte, or any number of empty ones, and each takes memory at the receiver.
pub const MESSAGE_OVERHEAD_BYTES: u32 = 64;

/// Pings that may wait for their answer, each direction. Keepalive and drain need two.
pub const MAX_PINGS_OUTSTANDING: usize = 8;

/// Calls that a client may reset within a second before the server answered them at all, less
/// those that were answered meanwhile (HTTP/2's rapid reset: open and cancel costs the peer
/// nothing and us a handler). Above what races and hedging reach, since each such loser comes
/// with a winner.
pub const DEFAULT_MAX_EARLY_RESETS: u32 = 8_192;

/// Text of a GOAWAY.
pub const MAX_GOAWAY_TEXT_BYTES: u32 = 1024;

/// Size of a `Hello`, whole: fits one read, and a stalled peer costs no more than this.
pub const MAX_HELLO_BYTES: usize = 512;

/// Server name in a `Hello`: the longest host name is 253 bytes, a port adds six.
pub const MAX_SERVER_NAME_BYTES: usize = 300;
