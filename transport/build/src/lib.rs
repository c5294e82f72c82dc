//! Generates Ringway's stubs from .proto files, without protoc.
//!
//! The builder is tonic-prost-build's, with its names and its defaults, so a build script moves by
//! one word:
//!
//! ```no_run
//! // build.rs
//! fn main() -> std::io::Result<()> {
//!     ringway_build::configure()
//!         .bytes(".")
//!         .compile_protos(&["proto/shop.proto"], &["proto"])
//! }
//! ```
//!
//! # What comes out
//! - **The service trait and `FooServer`, as tonic generates them**: an existing handler moves over
//!   untouched, and the server is a `tower::Service` for HTTP still. Beside it stands
//!   `ringway::codegen::LocalService`, by which calls reach the handler without HTTP types.
//! - **A client with tonic's methods and bounds** over any `GrpcService` that borrows nothing:
//!   `ringway::Channel` by default. Over that, and behind its own `with_interceptor`, calls go without
//!   HTTP types on local paths.
//!
//! The generating crate's dependencies are `ringway`, `tonic`, `tonic-prost` and `prost`.
//!
//! # What differs from tonic-prost-build
//! - .proto files are read by [protox](https://docs.rs/protox): no protoc is run or needed.
//!   [`Builder::protoc_arg`] is taken and ignored, with a warning.
//! - Messages are prost's. [`Builder::codec_path`] with another codec is an error: generate such a
//!   service with tonic-prost-build; it runs on every path through HTTP types.
//! - Cargo is told to run the script again when one of the .proto files read has changed.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blocking;
mod builder;
mod client;
mod compile;
mod error;
mod plan;
mod server;
mod stubs;

use std::{io, path::Path};

pub use builder::{Builder, configure};
pub use prost_build::Config;
pub use prost_types::FileDescriptorSet;

/// Compiles one .proto file with the defaults; its directory is the include path.
///
/// # Errors
/// When the file can't be read or is not valid, and when the output can't be written.
pub fn compile_protos(proto: impl AsRef<Path>) -> io::Result<()> {
    let proto = proto.as_ref();
    let directory = match proto.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    configure().compile_protos(&[proto], &[directory])
}

/// Generates from a compiled file descriptor set with the defaults.
///
/// # Errors
/// When the output can't be written.
pub fn compile_fds(fds: FileDescriptorSet) -> io::Result<()> {
    configure().compile_fds(fds)
}
