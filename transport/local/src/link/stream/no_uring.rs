//! In place of the engine over io_uring where the feature `io-uring` is off, and on other systems than Linux: it is refused, and its socket can't
//! be made.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use super::outbox::Outbox;
use super::parse::Parser;
use super::{Engine, Received};

pub(super) fn is_supported() -> bool {
    false
}

#[derive(Debug)]
pub(super) struct Socket(Infallible);

impl Socket {
    pub(super) fn new(_: OwnedFd) -> io::Result<Self> {
        Err(io::Error::other(
            "this program was built without Ringway's feature `io-uring`: turn it on, or take socket+epoll",
        ))
    }

    pub(super) fn engine(&self) -> Engine {
        match self.0 {}
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match self.0 {}
    }

    pub(super) fn flush(&self, _: &mut Outbox) -> bool {
        match self.0 {}
    }

    pub(super) fn queued(&self) -> u64 {
        match self.0 {}
    }

    pub(super) fn receive(&self, _: &mut Parser) -> Received {
        match self.0 {}
    }

    pub(super) fn hang_up(&self) {
        match self.0 {}
    }

    pub(super) fn is_drained(&self) -> bool {
        match self.0 {}
    }
}
