//! The engine of two pipes, one for each direction: nonblocking reads and writes.
//!
//! A pipe can't be shut down, so hanging up closes both, whoever still holds the link. What was
//! written before stays there for the peer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use ringway_sys::NotInChildren;
use ringway_sys::pipe::Writer;
use ringway_sys::queued;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};

use super::Received;
use super::outbox::Outbox;
use super::parse::Parser;
use crate::error::Closed;
use crate::far_end::FarEnd;
use crate::system::epoll::{self, EventData, EventFlags};

#[derive(Debug)]
pub(crate) struct Pipes {
    reader: RwLock<Option<Held<OwnedFd>>>,
    writer: RwLock<Option<Held<Writer>>>,
    /// A write was refused: nobody reads any more.
    broken: AtomicBool,
    /// The process at the other end, where it is a child of this one.
    far_end: Option<Arc<FarEnd>>,
}

/// One of the pipes.
#[derive(Debug)]
struct Held<P> {
    /// Before the pipe, so that it is dropped first.
    _not_in_children: NotInChildren,
    pipe: P,
}

impl<P: AsFd> Held<P> {
    fn new(pipe: P) -> Self {
        Self {
            _not_in_children: NotInChildren::note(&pipe),
            pipe,
        }
    }
}

impl Pipes {
    /// Pipes that don't block.
    pub(crate) fn new(reader: OwnedFd, writer: OwnedFd, far_end: Option<Arc<FarEnd>>) -> Self {
        Self {
            reader: RwLock::new(Some(Held::new(reader))),
            writer: RwLock::new(Some(Held::new(Writer::new(writer)))),
            broken: AtomicBool::new(false),
            far_end,
        }
    }

    /// Bytes on their way to the peer.
    pub(super) fn queued(&self) -> u64 {
        let writer = self.writer.read();
        let queued = writer.as_ref().map(|held| queued::in_pipe(&held.pipe));
        queued.and_then(Result::ok).unwrap_or(0)
    }

    /// Writes until nothing waits or the pipe takes no more; true if the link turned out to be
    /// broken, which nobody will be woken for.
    pub(super) fn flush(&self, outbox: &mut Outbox) -> bool {
        let writer = self.writer.read();
        let Some(Held { pipe: writer, .. }) = &*writer else {
            outbox.end(Closed::ByUs);
            return false;
        };
        while outbox.len() > 0 {
            match writer.write(outbox.bytes()) {
                Ok(len) => outbox.advance(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // What the peer wrote before it went is still there: that is read first.
                Err(errno) => {
                    outbox.end(closed(errno));
                    self.broken.store(true, Ordering::SeqCst);
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn receive(&self, parser: &mut Parser) -> Received {
        let reader = self.reader.read();
        let Some(Held { pipe: reader, .. }) = &*reader else {
            return Received::Ended(Closed::ByUs);
        };
        // Asked first: what a process wrote before it ended is all there when it has ended.
        let has_ended = self.broken.load(Ordering::SeqCst)
            || self.far_end.as_ref().is_some_and(|end| end.is_known());
        let space = parser.space();
        let room = space.capacity() - space.len();
        loop {
            return match read(reader, spare_capacity(space)) {
                Ok(0) => Received::Ended(Closed::PeerGone),
                Ok(len) if len == room || has_ended => Received::MaybeMore,
                Ok(_) => Received::All,
                // A program that the child started may hold the pipe open.
                Err(Errno::AGAIN) if has_ended => Received::Ended(Closed::PeerGone),
                Err(Errno::AGAIN) => Received::Nothing,
                Err(Errno::INTR) => continue,
                Err(errno) => Received::Ended(closed(errno)),
            };
        }
    }

    /// What to say of the end, once it is known: a child that goes is asked for how it went.
    pub(super) fn explain(&self, why: &Closed) -> Option<Closed> {
        match (&self.far_end, why) {
            (Some(far_end), Closed::PeerGone) => far_end.explain(),
            _ => Some(why.clone()),
        }
    }

    pub(super) fn hang_up(&self) {
        self.writer.write().take();
        self.reader.write().take();
    }

    /// Puts both pipes into `set`, which does not listen to them yet.
    pub(super) fn join(&self, set: &OwnedFd) -> rustix::io::Result<()> {
        if let Some(Held { pipe: reader, .. }) = &*self.reader.read() {
            epoll::add(set, reader, EventData::new_u64(0), EventFlags::ET)?;
        }
        if let Some(Held { pipe: writer, .. }) = &*self.writer.read() {
            epoll::add(set, writer, EventData::new_u64(1), EventFlags::ET)?;
        }
        Ok(())
    }

    /// Has `set` listen for `wanted` from now on, of which `changed` is news.
    pub(super) fn listen(
        &self,
        set: &OwnedFd,
        wanted: EventFlags,
        changed: EventFlags,
    ) -> rustix::io::Result<()> {
        let flags = |of: EventFlags| (wanted & of) | EventFlags::ET;
        if changed.contains(EventFlags::IN)
            && let Some(Held { pipe: reader, .. }) = &*self.reader.read()
        {
            let data = EventData::new_u64(0);
            epoll::modify(set, reader, data, flags(EventFlags::IN))?;
        }
        if changed.contains(EventFlags::OUT)
            && let Some(Held { pipe: writer, .. }) = &*self.writer.read()
        {
            let data = EventData::new_u64(1);
            epoll::modify(set, writer, data, flags(EventFlags::OUT))?;
        }
        Ok(())
    }
}

fn closed(errno: Errno) -> Closed {
    match errno {
        Errno::PIPE => Closed::PeerGone,
        other => Closed::Io(other.to_string()),
    }
}
