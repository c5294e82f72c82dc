//! The paths inside one host, and what drives them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `directory` | where servers are found |
//! | `rendezvous` | how two ends meet: hello, regions, doorbells |
//! | `link` | what carries frames: memory rings, a socket, pipes, queues |
//! | `namesakes` | other programs that serve under the same name |
//! | `pipe`, `child` | two pipes to a child process, or to the parent |
//! | `connection` | one end: locks, looks, passes, calls |
//! | `driver` | one task of a runtime that drives all of its connections |
//! | `pace` | where a method's futures run, learned from how long they take |
//! | `watchdog` | a thread that has drivers replaced which are stuck in the user's code |
//! | `spin` | how long to poll before parking: the rules on one page |
//! | `giving_way` | a driver that was rung lets its peer go on first, where that pays |
//! | `wait_policy` | the policy of a program, by name |
//! | `simulation` | who polls, parks and wakes in virtual time, over the shipped rules; tests only |
//! | `clock` | the clock that deadlines go by |
//! | `runtime` | a runtime for callers that have none |
//! | `shared_cpu` | two ends that have come to share a CPU |
//! | `waiting` | polling itself, and where it is possible |
//!
//! Start reading at [`Connection`] and [`Call`]. Messages are bytes here; the stubs' types are the
//! business of the crate above.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod budgets;
mod call;
#[cfg(feature = "plugins")]
mod child;
mod client;
pub mod clock;
mod config;
mod connection;
mod directory;
mod driver;
mod error;
mod far_end;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod giving_way;
mod habits;
mod inproc;
mod link;
mod namesakes;
mod pace;
mod pipe;
mod places;
mod pressing;
mod rendezvous;
pub mod runtime;
mod seldom;
mod server;
mod shared_cpu;
#[cfg(test)]
mod simulation;
mod socket_file;
mod socket_peer;
mod spin;
mod system;
mod wait_policy;
mod waiting;
mod walk;
mod watchdog;
mod watched;

pub use call::{Call, CallSender, Encode, Form, MAX_WHOLE_BYTES, Opening, Out};
#[cfg(feature = "plugins")]
pub use child::Child;
pub use client::{connect, instances};
pub use config::{Links, LocalConfig, SocketEngine, UidPolicy};
pub use connection::{
    Connection, ConnectionRole, ConnectionStats, Fill, HandlerFuture, Inbound, Message, Request,
    ServedMethod, SlotPool, Stamp, Started, connections, ended,
};
pub use directory::{Directory, DirectoryOrigin, OpenDirectory};
pub use error::{Closed, ConnectError, DirectoryError, PipeError, SendError};
pub use inproc::{InprocServer, connect as connect_inproc};
pub use link::LinkKind;
pub use link::stream::Engine;
pub use pace::{HandlerPolicy, Pace};
pub use pipe::{Pipe, serve as serve_pipe};
pub use ringway_ring::EndpointConfig;
pub use ringway_sys::schedule::{idle_time, online_cpus};
pub use ringway_sys::{PeerCredentials, fork};
pub use server::{ClosedOnDrop, Listener, Serve};
pub use socket_peer::SocketPeer;
pub use wait_policy::{UnknownWaitPolicy, WaitPolicy};
pub use waiting::BlockedThread;
