//! What generated stubs call. Not for people: it may change with the generator.

#[cfg(feature = "blocking")]
pub use crate::blocking::{block_on, exchange, responses, upload};
pub use crate::dispatch::{LocalService, ServerCall};
pub use crate::method::{CallOptions, MessageLimits, Method};
pub use crate::probe::{Answer, is_probe};
pub use crate::stub::Client;
pub use ringway_local::HandlerFuture;
pub use tonic::codegen::*;
