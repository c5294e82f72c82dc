//! The network path: tonic over TCP or a Unix socket.
//!
//! It is what a call takes to another host, what any gRPC client in any language speaks, and what
//! the paths inside one host are compared with; so it is tonic with the settings that suit it best,
//! and with what it does otherwise than gRPC asks put right (see [`guard`]).
//!
//! - [`Target`] says whom to call, [`connect_lazy`] makes a [`Pool`] of connections to
//!   all its instances with [`NetOptions`].
//! - [`unary`], [`client_streaming`], [`server_streaming`] and [`streaming`] make one call.
//! - [`NetServer`] serves tonic's [`Routes`](tonic::service::Routes) on several addresses at once.
//!
//! Nothing here knows of the other paths.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accepted;
mod backoff;
mod bare;
mod call;
mod connect;
mod error;
mod fate;
pub mod guard;
mod header_list;
mod held;
mod listen;
mod outgoing;
mod outlier;
mod pool;
pub mod reserved;
mod seldom;
mod server;
mod socket_file;
mod spawn;
mod target;
pub mod timeout;
pub mod tls;
mod tuning;

pub use backoff::{Backoff, BackoffOptions, varied_by};
pub use bare::status_of_http;
pub use call::{CallSettings, client_streaming, server_streaming, streaming, unary};
pub use connect::{NetOptions, connect_lazy, connect_through, connect_through_lazy};
pub use error::Error;
pub use fate::Fate;
pub use guard::Trailers;
pub use header_list::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES};
pub use hyper::rt;
pub use listen::ListenAddress;
pub use outgoing::{Kept, Outgoing};
pub use outlier::{OutlierOptions, Record};
pub use pool::{Picked, Pool, Resolve, Resolving, SystemResolver};
pub use server::{BoundServer, Handler, IncomingServer, NetServer, ServerOptions};
pub use spawn::{Task, spawn};
pub use target::{Scheme, Target};
pub use tuning::{ClientTuning, ServerTuning, TcpKeepalive};

/// Window of one stream in each direction: a 1 MiB message must not wait for a window update, and
/// h2's default of 64 KiB makes it wait sixteen times.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Window of one connection in each direction: room for two streams at full window.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
