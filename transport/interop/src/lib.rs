//! gRPC's interoperability tests on every path of Ringway.
//!
//! The cases are described in <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>.
//! Every language that has gRPC has a client and a server for them, so the [`TestService`] here also
//! answers theirs over TCP, and the [`Client`] here also calls theirs.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use ringway_interop::{Case, Client};
//!
//! let endpoint = ringway::Endpoint::new("shm://localhost:10000")?;
//! Client::connect(endpoint).await?.run(Case::LargeUnary).await?;
//! # Ok(()) }
//! ```
//!
//! What is asserted, and no more, is what the descriptions demand; that the calls took the path that
//! was asked for is checked beside it where [`Client::expect_path`] says so.
#![forbid(unsafe_code)]

mod case;
mod cases;
mod client;
mod failure;
mod service;
mod soak;

pub use case::{Case, UnknownCase};
pub use client::Client;
pub use failure::Failure;
pub use service::{TestService, add_to};
pub use soak::Soak;
