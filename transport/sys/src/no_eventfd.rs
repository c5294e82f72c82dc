//! In place of `eventfd` on other systems than Linux: none can be made, and none is taken from a peer.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::Error;

/// An eventfd: there is none here.
#[derive(Debug)]
pub struct EventFd(Infallible);

impl EventFd {
    /// Refuses to make one.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Refuses what the peer passed.
    ///
    /// # Errors
    /// Always.
    pub fn from_peer(_: OwnedFd) -> Result<Self, Error> {
        Err(Error::Io(io::ErrorKind::Unsupported.into()))
    }

    /// Is never called.
    ///
    /// # Errors
    /// None.
    pub fn ring(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// Is never called.
    ///
    /// # Errors
    /// None.
    pub fn drain(&self) -> io::Result<bool> {
        match self.0 {}
    }

    /// Is never called.
    ///
    /// # Errors
    /// None.
    pub fn relieve(&self) -> io::Result<bool> {
        match self.0 {}
    }

    /// Is never called.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}

impl From<EventFd> for OwnedFd {
    fn from(bell: EventFd) -> Self {
        match bell.0 {}
    }
}
