//! Calls through a real server: of every kind, over TCP, TLS and a Unix socket.
#![allow(clippy::unwrap_used)]

mod blocked;
mod echo;
mod keepalive;
mod serve;
#[cfg(feature = "tls-ring")]
mod tls;
