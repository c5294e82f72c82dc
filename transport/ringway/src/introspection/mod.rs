//! The service by which a running server tells of its connections: what `ringway top` asks.
//!
//! A server offers it when [`Server::introspection`](crate::Server::introspection) says
//! so. Counters are there anyway ([`crate::stats`]); how long calls take is recorded only while
//! somebody watches.

pub(crate) mod latency;
mod service;

pub(crate) use service::Introspect;

/// The contract, `ringway/introspection/v1/introspection.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("ringway.introspection.v1");
}
