//! The service by which a running server tells of its connections: what `ringway top` asks.
//!
//! A server offers it when [`Server::introspection`](crate::Server::introspection) says
//! so. Counters are there anyway ([`crate::stats`]); how long calls take is recorded only while
//! somebody watches.

mod service;

pub(crate) use service::Introspect;

/// The contract, `ringway/introspection/v1/introspection.proto`. Its stubs are kept here, so that no build of this
/// crate waits for a generator; a test of `ringway-build` sees to it that they are what it generates.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!("v1.rs");
}
