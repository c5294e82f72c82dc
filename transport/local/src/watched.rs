//! Descriptors that a runtime's reactor watches.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};

use ringway_sys::NotInChildren;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::rendezvous::text;

/// A descriptor that is told of when it becomes readable. A forked child has another one under its number: what it
/// drops would end the watch of its parent, with whom it shares the reactor's epoll set.
#[derive(Debug)]
pub(crate) struct Watched<T: AsRawFd> {
    /// Before the descriptor, so that it is dropped first.
    _not_in_children: NotInChildren,
    descriptor: AsyncFd<T>,
}

impl<T: AsFd + AsRawFd> Watched<T> {
    /// Watches a descriptor in the runtime at hand.
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for types that lie about their descriptor; ours own it"
    )]
    pub(crate) fn new(descriptor: T) -> Result<Self, String> {
        // A refusal closes it: so it is noted afterwards.
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE).map_err(text)?;
        Ok(Self {
            _not_in_children: NotInChildren::note(descriptor.get_ref()),
            descriptor,
        })
    }

    /// Watches it in the runtime at hand, no longer in that where it was watched before.
    pub(crate) fn anew(self) -> Result<Self, String> {
        let Self {
            _not_in_children: former,
            descriptor,
        } = self;
        drop(former);
        Self::new(descriptor.into_inner())
    }
}

impl<T: AsRawFd> Deref for Watched<T> {
    type Target = AsyncFd<T>;

    fn deref(&self) -> &AsyncFd<T> {
        &self.descriptor
    }
}
