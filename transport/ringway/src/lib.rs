//! RPC stubs whose calls cross memory rings on one host and gRPC between hosts.
//!
//! A service is described in protobuf and compiled with `ringway-build`. Its handler implements
//! the trait that tonic generates; its client has the methods that tonic generates. A [`Server`]
//! serves the handler on every path at once; a [`Channel`] takes the best path that works, and
//! [`Path::of`] a response tells which one that was.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `endpoint`, `channel` | what a client asks for, and how a path is chosen |
//! | `locate`, `instances` | local instances of a server, and which one takes a call |
//! | `caller`, `attempt`, `retry`, `resend` | a call, one attempt at it, whether there is a further one, and what it sends |
//! | `server`, `services`, `inproc` | one handler on every path |
//! | `naming` | by which names clients of the same host find it |
//! | `child`, `pipe` | plugins: two pipes to a child process, or to the parent |
//! | [`blocking`] | calls for threads without a runtime |
//! | [`codegen`] | what generated stubs call |
//! | `client`, `dispatch`, `streaming` | typed calls over a local path, both ends |
//! | `bridge` | HTTP types over a local path, for plain tonic stubs and services |
//! | `compression` | messages that come compressed, and compression chosen message by message |
//! | `context`, `in_context` | what a handler passes on to the calls that it makes |
//! | [`introspection`] | a service that tells of a running server's connections |
//! | [`stats`] | what connections and channels have done so far |
//! | [`trace`] | which trace a call belongs to, and the hook for its spans |
//! | [`meter`] | the hook by which calls are measured |
//! | `layered` | tower's HTTP layers on every path |
//! | `metadata`, `status` | tonic's types on the wire |
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The stubs of the introspection service name this crate as everybody else's do.
extern crate self as ringway;

mod answer;
mod attempt;
mod begun;
pub mod blocking;
mod bridge;
mod caller;
mod carried;
mod channel;
mod child;
mod client;
pub mod codegen;
mod compression;
mod context;
mod dispatch;
mod endpoint;
mod error;
mod framing;
mod in_context;
mod inproc;
mod instances;
mod interceptor;
pub mod introspection;
mod layered;
mod locate;
mod metadata;
pub mod meter;
mod method;
mod naming;
mod path;
mod pipe;
mod pump;
mod resend;
mod retry;
mod server;
mod services;
pub mod stats;
mod status;
mod streaming;
mod terminated;
pub mod trace;
mod traced;

pub use channel::Channel;
pub use child::Child;
pub use compression::{CameCompressed, Compress, MessageCompression};
pub use context::{Context, Peer, Scoped};
pub use endpoint::{Endpoint, LocalPolicy};
pub use error::Error;
pub use layered::Layered;
pub use path::{Path, UnknownPath};
pub use pipe::Pipe;
pub use retry::{RetryPolicy, RetryThrottling, WaitForReady};
pub use ringway_local::{Directory, HandlerPolicy, UidPolicy};
pub use ringway_net::tls::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
pub use ringway_net::{BackoffOptions, OutlierOptions, Resolve, Resolving, Trailers};
pub use server::{Server, ServerBuilder};
pub use terminated::terminated;
