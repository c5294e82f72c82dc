//! What can go wrong, with the culprit in the name.

use std::io;

/// An error of this crate. Plain system calls report [`io::Error`]; this enum is for the places
/// where the caller has to know *whose* fault it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process has no free descriptor (EMFILE), so what the peer passed could not be taken.
    #[error("this process is out of file descriptors (raise RLIMIT_NOFILE)")]
    OutOfDescriptors,
    /// Too many descriptors are in flight for this user (ETOOMANYREFS, see unix(7)).
    #[error("too many file descriptors in flight for this user (raise RLIMIT_NOFILE)")]
    TooManyInFlight,
    /// The peer passed more descriptors than the message may carry. All of them were closed.
    #[error("peer passed more than the {allowed} descriptors that this message may carry")]
    PeerPassedTooMany {
        /// How many the caller allowed.
        allowed: usize,
    },
    /// The peer passed something else in place of an eventfd.
    #[error("peer passed {found:?} in place of an eventfd")]
    PeerPassedNoEventFd {
        /// What `/proc/self/fd` calls it.
        found: String,
    },
    /// The peer passed an eventfd whose write or read could block this process.
    #[error("peer passed a blocking eventfd")]
    PeerPassedBlockingEventFd,
    /// The peer passed a semaphore eventfd, which one read does not silence.
    #[error("peer passed an eventfd in semaphore mode")]
    PeerPassedSemaphore,
    /// More descriptors than [`MAX_DESCRIPTORS`](crate::descriptors::MAX_DESCRIPTORS) in one message.
    #[error("{asked} descriptors in one message, at most {limit} are possible")]
    DescriptorLimit {
        /// How many were asked for.
        asked: usize,
        /// How many are possible.
        limit: usize,
    },
    /// io_uring, or the tier that was asked for, is not to be had here.
    #[error("io_uring is refused here: {0}")]
    UringRefused(#[source] io::Error),
    /// The id names no attached socket: it was detached.
    #[error("no such socket: it was detached")]
    UnknownSocket,
    /// The socket failed earlier; nothing can be sent on it.
    #[error("the socket's sending side has failed")]
    SocketEnded,
    /// No mechanism of [`floor`](crate::floor) has this name.
    #[error("no such mechanism: {0:?}")]
    UnknownMechanism(String),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::MFILE => Self::OutOfDescriptors,
            rustix::io::Errno::TOOMANYREFS => Self::TooManyInFlight,
            other => Self::Io(other.into()),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) | Error::UringRefused(error) => error,
            Error::UnknownSocket | Error::SocketEnded => {
                Self::new(io::ErrorKind::NotConnected, error)
            }
            Error::DescriptorLimit { .. } | Error::UnknownMechanism(_) => {
                Self::new(io::ErrorKind::InvalidInput, error)
            }
            Error::OutOfDescriptors | Error::TooManyInFlight => {
                Self::new(io::ErrorKind::QuotaExceeded, error)
            }
            Error::PeerPassedTooMany { .. }
            | Error::PeerPassedNoEventFd { .. }
            | Error::PeerPassedBlockingEventFd
            | Error::PeerPassedSemaphore => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}
