//! `ringway interop-server` and `ringway interop-client`: gRPC's interoperability tests by hand, and
//! against other languages' servers and clients.

mod client;
mod server;

pub(crate) use client::{ClientOptions, call};
pub(crate) use server::{ServerOptions, serve};

use std::io;

use ringway_interop::Failure;

/// The port of other languages' interop servers.
const DEFAULT_PORT: u16 = 10_000;

/// What keeps the server or the client from doing its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not start tokio's runtime")]
    Runtime(#[source] io::Error),
    #[error("could not find this program, to start it again")]
    Program(#[source] io::Error),
    #[error("could not serve")]
    Serve(#[source] ringway::Error),
    #[error("`{server}` is no address over {path}")]
    Address {
        server: String,
        path: client::Way,
        #[source]
        source: ringway::Error,
    },
    #[error("could not reach `{server}`")]
    Connect {
        server: String,
        #[source]
        source: Failure,
    },
    #[error("{failed} of {all} cases failed")]
    Failed { failed: usize, all: usize },
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Runtime::new().map_err(Error::Runtime)
}
