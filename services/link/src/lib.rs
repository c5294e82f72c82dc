//! How a service of the shop is served, called and timed.
//!
//! The one place of the shop that names a transport: services see handlers,
//! stubs and [`Peer`]s, and which path carries a call is decided here.
#![forbid(unsafe_code)]

mod address;
mod error;
mod id;
mod path;
mod peer;
mod probe;
mod process;
mod recent;
mod serve;
mod trace;

pub use address::Address;
pub use error::Error;
pub use id::{OrderIds, format_order, parse_order};
pub use path::path_name;
pub use peer::{Channel, Peer, Timed, answers, unary};
pub use probe::{Unhealthy, probe};
pub use process::{run, signalled};
pub use recent::Recent;
pub use serve::{DRAIN, Names, Stop, bounded, serve};
pub use trace::SameTrace;
