//! The protocol core: frames, handshake, call state, flow control, limits. No I/O.
//!
//! Every local path drives the same state machine, [`Connection`]: it decides admission, ids,
//! credit and headers, and never holds a payload. Time is an argument, so whole conversations run
//! in a test in no time at all.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`frame`] | the 24-byte header in front of everything a peer sends |
//! | [`head`], [`metadata`] | what stands between header and payload: method, timeout, status, metadata |
//! | [`handshake`] | versions, capabilities and windows, exchanged once |
//! | [`connection`] | the state machine, and [`Event`], what it tells its caller |
//! | [`limits`] | every bound, each with its reason |
//! | [`TraceContext`] | which trace a call belongs to |
//! | [`code`] | the status codes of gRPC |
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod code;
pub mod connection;
pub mod frame;
pub mod handshake;
pub mod head;
pub mod limits;
pub mod metadata;

mod call;
mod config;
mod cursor;
mod deadline;
mod error;
mod event;
mod flow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod keepalive;
mod method;
#[cfg(test)]
mod tests;
mod trace;

pub use call::CallId;
pub use config::{Config, KeepAlive};
pub use connection::{Connection, ControlFrame};
pub use error::{HandshakeError, HeadError, OpenError, ProtocolError, SendError};
pub use event::{Event, Message, Request, Response, Verdict};
pub use frame::{Flags, FrameHeader, Kind};
pub use handshake::{Capabilities, Hello, Negotiated, Role};
pub use head::{Method, RequestHead, ResponseHead, StatusHead};
pub use metadata::{Metadata, MetadataBuf};
pub use trace::TraceContext;
