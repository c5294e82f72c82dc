//! What can go wrong before a call or while serving; the calls themselves end in `tonic::Status`.

use std::{io, path::PathBuf, time::Duration};

use crate::{ListenAddress, Target};

/// What is missing where TLS is asked for.
const WITHOUT_TLS: &str = if cfg!(feature = "_tls-any") {
    "none is configured: call `tls_config` (with the CA to trust), or write http:// for a server without TLS"
} else {
    "this program was built without it: enable the feature `tls-ring` or `tls-aws-lc` of ringway and call `tls_config`, or write http:// for a server without TLS"
};

/// Why a target, a channel or a server could not be had. Each message names the address and what to
/// do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names nobody that could be called.
    #[error(
        "`{text}` is no address to call: {reason}; \
         write http://host:port, https://host:port, host:port or unix:/path"
    )]
    InvalidTarget {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The text names nothing that could be listened on.
    #[error("`{text}` is no address to listen on: {reason}; write ip:port or unix:/path")]
    InvalidListenAddress {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A Unix socket's path does not fit a socket address.
    #[error(
        "the socket path {path:?} is {len_bytes} bytes long and the kernel takes at most {limit_bytes}: \
         use a shorter directory",
        limit_bytes = crate::target::UNIX_PATH_LIMIT_BYTES
    )]
    UnixPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len_bytes: usize,
    },

    /// The target asks for TLS and there is no configuration for it.
    #[error("{target} asks for TLS, but {WITHOUT_TLS}")]
    TlsNotConfigured {
        /// The target.
        target: Target,
    },

    /// TLS is configured and the target would not use it.
    #[error("TLS is configured, but {target} would be called without it: {advice}")]
    TlsNotUsed {
        /// The target.
        target: Target,
        /// What to do.
        advice: &'static str,
    },

    /// The client's TLS configuration cannot be used.
    #[error("the TLS configuration for {target} cannot be used: check its certificates and keys")]
    ClientTls {
        /// The target.
        target: Target,
        /// What tonic or rustls said.
        source: tonic::transport::Error,
    },

    /// The caller's own connector led nowhere.
    #[error("{target} can't be reached by the connector that was given")]
    Connect {
        /// The target.
        target: Target,
        /// What tonic or the connector said.
        source: tonic::transport::Error,
    },

    /// Serving the connections that were handed over ended with an error.
    #[error("serving the incoming connections failed")]
    ServeIncoming {
        /// What tonic said.
        source: tonic::transport::Error,
    },

    /// The server's TLS configuration cannot be used.
    #[error("the server's TLS configuration cannot be used: check its certificate and key")]
    ServerTls {
        /// What tonic or rustls said.
        source: tonic::transport::Error,
    },

    /// A server with TLS was told to listen on a Unix socket, which would go without.
    #[error(
        "TLS is configured, but connections to {path:?} would go without it: \
         remove that socket, or set `ServerOptions::plain_unix` if its permissions protect it well enough"
    )]
    UnixWithoutTls {
        /// The socket.
        path: PathBuf,
    },

    /// A server without an address.
    #[error("the server has no address to listen on: call `NetServer::listen` at least once")]
    NoAddress,

    /// The address could not be bound.
    #[error(
        "could not listen on {address}: is it taken by another process, or not permitted? Stop that one, or choose another port (0 lets the kernel choose)"
    )]
    Bind {
        /// The address.
        address: ListenAddress,
        /// What the kernel said.
        source: io::Error,
    },

    /// Somebody accepts on that socket file.
    #[error("another server accepts on {path:?}: stop it first, or choose another path")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },

    /// Something that is no socket has the name of the socket file.
    #[error("{path:?} exists and is not a socket: remove it, or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },

    /// Serving ended with an error.
    #[error("serving {address} failed")]
    Serve {
        /// The address.
        address: ListenAddress,
        /// What tonic said.
        source: tonic::transport::Error,
    },

    /// Connections were still open when the time to drain was over.
    #[error("calls were still in flight {timeout:?} after shutdown began, and were cut off")]
    DrainTimedOut {
        /// The time that they had.
        timeout: Duration,
    },
}
