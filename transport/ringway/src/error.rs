//! What can go wrong before a call: addresses, paths, listening.

use std::fmt;

use ringway_local::{ConnectError, DirectoryError, PipeError};

/// Why a channel or a server can't be set up. `Debug` says it in words, too: it is what people see of an
/// error that `main` returns.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be understood.
    #[error(
        "`{address}` is no address: {reason}; use host:port, or shm://, socket://, grpc://, http://, https:// or unix: in front"
    )]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to name the client can't be sent.
    #[error("the user agent is no header's value: leave out what is not visible ASCII")]
    UserAgent,
    /// What should have become an endpoint did not.
    #[error(transparent)]
    Endpoint(Box<dyn std::error::Error + Send + Sync>),
    /// An environment variable has a value that means nothing.
    #[error("{variable}={value}: {reason}")]
    Environment {
        /// Which.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The forced path must not or can't be taken.
    #[error("path {path} is forced, but {reason}")]
    Forced {
        /// Which path.
        path: crate::Path,
        /// Why it can't be taken.
        reason: String,
    },
    /// No local connection came to be.
    #[error(transparent)]
    Local(#[from] ConnectError),
    /// Nobody takes calls, on this host or over the network.
    #[error("{reason}")]
    NotConnected {
        /// Why not, of each path that may be taken.
        reason: String,
    },
    /// The rendezvous directory can't be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The pipes of the parent can't be used.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// The network path failed.
    #[error(transparent)]
    Net(#[from] ringway_net::Error),
    /// Calls were still in flight when the time to drain was over.
    #[error(
        "calls were still in flight {timeout:?} after shutdown began and were cut off: allow more with drain_timeout(), or end them sooner"
    )]
    DrainTimedOut {
        /// The time that they had.
        timeout: std::time::Duration,
    },
    /// A name is to have the port of an address, and there is none.
    #[error(
        "`{0}` names the server by the port that it listens on, and it listens on no TCP address: call listen(\"host:port\"), or name the port"
    )]
    NameWithoutPort(String),
    /// Two services of one server have the same name.
    #[error(
        "the service {0} was added twice: a server has one of a name, so leave one out, or serve it at another address"
    )]
    ServiceTwice(&'static str),
    /// A server that would be reachable nowhere.
    #[error(
        "the server has neither a name nor an address nor a pipe, so no client could reach it: call name(), listen() or pipe()"
    )]
    Unreachable,
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl Error {
    /// One of these that was an error of any kind meanwhile, or another one.
    pub(crate) fn from_boxed(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast() {
            Ok(error) => *error,
            Err(other) => Self::Endpoint(other),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")?;
        let mut said = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(formatter, ": {text}")?;
                said.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_what_went_wrong_in_words() {
        let error = crate::Endpoint::new("catalog").unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
        // With causes, each once.
        let error = Error::from(ringway_net::Error::Bind {
            address: "127.0.0.1:1".parse().unwrap(),
            source: std::io::Error::other("it is taken"),
        });
        let said = format!("{error:?}");
        assert!(
            said.starts_with(&error.to_string()) && said.ends_with(": it is taken"),
            "{said}"
        );
    }
}
