//! What the tests share: a handler, a server on any path, a server in a process of its own.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod addresses;
mod authority;
mod collector;
mod control;
mod filtered;
mod http2;
mod interop_server;
mod large;
mod log;
mod memory;
mod memory_group;
mod messages;
mod neighbour;
mod plugin;
mod process;
pub mod raw;
mod running;
pub mod seen;
mod shop;

pub use addresses::{Addresses, free_address};
pub use authority::Authority;
pub use collector::{Collector, CollectorManner, Span};
pub use control::Control;
pub use filtered::{Refused, become_filtered, filtered, refuse_from_now_on};
pub use http2::{Http2Server, Script, leaving};
pub use interop_server::InteropServer;
pub use large::{LargeHandler, PeakMemory};
pub use log::{Log, LoggedValues};
pub use memory::{
    in_a_process_of_another_user, in_a_process_of_its_own, in_a_process_of_its_own_with,
    peak_resident_bytes, resident_bytes,
};
pub use memory_group::MemoryGroup;
pub use messages::{asking, is_intact, payload, payloads};
pub use neighbour::{Calls, Neighbour, Served, Spinners, call_as_neighbour};
pub use plugin::{Manner, plugin, serve_as_plugin};
pub use process::{
    ChildClient, ChildServer, FAILPOINT, WAIT, call_as_child, can_be_another_user, death_of,
    descriptors, hang_as_child, mapped_regions, serve_as_child, serve_as_child_with,
};
pub use running::{Running, Way, alone, alone_for, client_of, eventually, within};
pub use seen::{EXECUTIONS_VARIABLE, Entered, Seen, arrived_names, reserved_names, rich_status};
pub use shop::{Shop, service_arguments};

/// The handler over the stubs that `ringway-build` generates.
#[allow(missing_docs, unreachable_pub)]
pub mod ours {
    pub use ringway_proto::bench as stubs;
    include!("tonic_handler.rs");
}

/// The very same source over the stubs that tonic generates.
#[allow(missing_docs, unreachable_pub)]
pub mod plain {
    pub use ringway_proto::bench_tonic as stubs;
    include!("tonic_handler.rs");
}
