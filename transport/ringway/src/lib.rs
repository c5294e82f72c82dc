//! RPC stubs whose calls cross memory rings on one host and gRPC between hosts.
//!
//! A service is described in protobuf and compiled with `ringway-build`. Its handler implements
//! the trait that tonic generates; its client has the methods that tonic generates. A [`Server`]
//! serves the handler on every path at once; a [`Channel`] takes the best path that works, and
//! [`Path::of`] a response tells which one that was.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `endpoint`, `settings`, `channel` | what a client asks for, and how a path is chosen |
//! | `admission`, `balance` | a channel's limits; a channel over several endpoints |
//! | `locate`, `instances` | local instances of a server, and which one takes a call |
//! | `caller`, `attempt`, `retry`, `resend` | a call, one attempt at it, whether there is a further one, and what it sends |
//! | `server`, `services`, `limit`, `inproc` | one handler on every path |
//! | `naming` | by which names clients of the same host find it |
//! | `child`, `pipe` | plugins: two pipes to a child process, or to the parent |
//! | [`blocking`] | calls for threads without a runtime |
//! | [`codegen`] | what generated stubs call |
//! | `stub`, `probe` | which of a generated client's calls, and a server's services, do without HTTP types |
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
//!
//! # Features
//! Each adds to the others. By default: `io-uring`, `memfd`, `plugins`, `signal`.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `io-uring` | io_uring for the socket path, where the kernel has it; epoll otherwise |
//! | `memfd` | shared memory through the `memfd` crate; without it, by the kernel's calls alone |
//! | `plugins` | [`Child`]: servers that are child processes |
//! | `signal` | [`terminated`], `serve_until_terminated` |
//! | `blocking` | [`blocking`]: what the clients of `ringway_build`'s `build_blocking_client` call |
//! | `introspection` | [`introspection`]: the service that `ringway top` asks |
//! | `tls-ring`, `tls-aws-lc`, `tls-native-roots`, `tls-webpki-roots`, `gzip`, `deflate`, `zstd` | as tonic's |
//!
//! On other systems than Linux calls go over the network, or stay within the process.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The stubs of the introspection service name this crate as everybody else's do.
#[cfg(feature = "introspection")]
extern crate self as ringway;

mod admission;
mod answer;
mod answering;
mod attempt;
mod balance;
mod begun;
#[cfg(feature = "blocking")]
pub mod blocking;
mod bridge;
mod caller;
mod carried;
mod channel;
#[cfg(feature = "plugins")]
mod child;
mod client;
pub mod codegen;
mod compression;
mod context;
mod dispatch;
mod endpoint;
mod error;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod in_context;
mod inproc;
mod instances;
#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg_attr(not(feature = "introspection"), path = "untimed.rs")]
mod latency;
mod layered;
mod limit;
mod locate;
mod metadata;
pub mod meter;
mod method;
#[doc(hidden)]
pub mod missing;
mod naming;
mod path;
mod pipe;
mod pooling;
mod probe;
mod pump;
mod resend;
mod retry;
mod server;
mod services;
mod settings;
pub mod stats;
mod status;
mod streaming;
mod stub;
mod tcp;
#[cfg(feature = "signal")]
mod terminated;
pub mod trace;
mod traced;

pub use channel::Channel;
#[cfg(feature = "plugins")]
pub use child::Child;
pub use compression::{CameCompressed, Compress, MessageCompression};
pub use context::{Context, Peer, Scoped};
pub use endpoint::{Endpoint, LocalPolicy};
pub use error::Error;
#[allow(deprecated)]
pub use layered::Layered;
pub use path::{Path, UnknownPath};
pub use pipe::Pipe;
pub use retry::{RetryPolicy, RetryThrottling, WaitForReady};
pub use ringway_local::{
    ConnectError, Directory, DirectoryError, EndpointConfig, HandlerPolicy, Links, LocalConfig,
    PipeError, SocketEngine, UidPolicy, UnknownWaitPolicy, WaitPolicy,
};
pub use ringway_net::tls::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
pub use ringway_net::{
    BackoffOptions, ClientTuning, Error as NetError, Handler, ListenAddress, NetOptions,
    OutlierOptions, Resolve, Resolving, ServerOptions, ServerTuning, SystemResolver, TcpKeepalive,
    Trailers,
};
pub use ringway_wire::{Config as WireConfig, KeepAlive};
pub use server::{BoundServer, Server, ServerBuilder};
#[cfg(feature = "signal")]
pub use terminated::terminated;
pub use tonic::transport::channel::Change;
