//! The status codes of gRPC, as they stand in a frame's `code`.
//!
//! Source: <https://grpc.io/docs/guides/status-codes/>. A code that is not listed passes through
//! unchanged; whoever maps it to a status makes it `UNKNOWN`.

/// Success.
pub const OK: u16 = 0;
/// The caller cancelled.
pub const CANCELLED: u16 = 1;
/// An error nobody classified.
pub const UNKNOWN: u16 = 2;
/// The arguments are wrong whatever the state of the system.
pub const INVALID_ARGUMENT: u16 = 3;
/// The deadline passed.
pub const DEADLINE_EXCEEDED: u16 = 4;
/// Not there.
pub const NOT_FOUND: u16 = 5;
/// Already there.
pub const ALREADY_EXISTS: u16 = 6;
/// The caller may not.
pub const PERMISSION_DENIED: u16 = 7;
/// A quota or a limit is used up.
pub const RESOURCE_EXHAUSTED: u16 = 8;
/// The system is not in the state that the call needs.
pub const FAILED_PRECONDITION: u16 = 9;
/// A conflict of concurrent calls.
pub const ABORTED: u16 = 10;
/// Past the valid range.
pub const OUT_OF_RANGE: u16 = 11;
/// No such method.
pub const UNIMPLEMENTED: u16 = 12;
/// An invariant is broken.
pub const INTERNAL: u16 = 13;
/// The service is not there at the moment.
pub const UNAVAILABLE: u16 = 14;
/// Data was lost.
pub const DATA_LOSS: u16 = 15;
/// The caller is not known.
pub const UNAUTHENTICATED: u16 = 16;
