//! A box office: its server, and a client that calls it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `shows` | the shows and their seats |
//! | `office` | the handlers of all four kinds of calls |
//! | `identity` | interceptors at both ends: tokens put in and looked at |
//! | `counting` | a tower layer around all services |
//! | `server` | services, health, reflection, grpc-web, TLS, graceful shutdown |
//! | `client` | clients of one server, and of several that share the load |
#![forbid(unsafe_code)]

mod client;
mod counting;
mod identity;
mod office;
mod server;
mod shows;

pub use client::{Client, balanced, connect, over};
pub use counting::Counter;
pub use identity::{Bearer, Doorman};
pub use office::Office;
pub use server::{Settings, serve};
pub use shows::Shows;

/// The contract, `proto/tickets.proto`.
#[allow(missing_docs)]
pub mod v1 {
    tonic::include_proto!("tickets.v1");

    /// Descriptors of the contract, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tickets");
}
