//! The engine over io_uring: one ring a connection, whose buffers and standing receive are its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use parking_lot::Mutex;
use ringway_sys::queued;
use ringway_sys::uring::{Completion, Settings, SocketId, Support, Tier, Uring};
use ringway_sys::{Error, NotInChildren};
use rustix::net::{Shutdown, shutdown};

use super::outbox::Outbox;
use super::parse::Parser;
use super::{Engine, Received};
use crate::error::Closed;

/// Enough for one socket.
const SETTINGS: Settings = Settings {
    entries: 8,
    buffers: 8,
    buffer_len: 32 * 1024,
    // The driver and its callers move between threads.
    cooperative: false,
};
/// The ring is given no more than this before it has sent some.
const MAX_BACKLOG_BYTES: usize = 256 * 1024;
/// The ring sends no more while so much lies there that came beside what it sent: the peer sends on, and reads nothing.
const MAX_ARRIVED_BYTES: usize = 256 * 1024;
/// Above this a buffer is handed over whole, in place of a copy.
const COPIED_BYTES: usize = 64 * 1024;

/// Tells if this process may use io_uring.
pub(super) fn is_supported() -> bool {
    support().tier().is_some()
}

/// What this process may do with io_uring, tried once.
fn support() -> Support {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    *SUPPORT.get_or_init(Support::probe)
}

#[derive(Debug)]
pub(super) struct Socket {
    ring: Mutex<Ring>,
    tier: Tier,
    /// Before the socket, so that it is dropped first.
    not_in_children: NotInChildren,
    /// To hang up by: the ring owns another descriptor of it.
    socket: OwnedFd,
}

#[derive(Debug)]
struct Ring {
    uring: Uring,
    id: SocketId,
    /// Received while sending.
    arrived: Vec<u8>,
    ended: bool,
    /// A send has failed, and receiving has not been ended for that.
    broken: bool,
}

impl Socket {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let tier = support()
            .tier()
            .ok_or_else(|| io::Error::other(format!("io_uring is {}", support())))?;
        let mut uring = Uring::with_settings(tier, SETTINGS)?;
        let id = uring.attach(socket.try_clone()?)?;
        uring.submit()?;
        Ok(Self {
            ring: Mutex::new(Ring {
                uring,
                id,
                arrived: Vec::new(),
                ended: false,
                broken: false,
            }),
            tier,
            not_in_children: NotInChildren::note(&socket),
            socket,
        })
    }

    pub(super) fn engine(&self) -> Engine {
        match self.tier {
            Tier::Multishot => Engine::UringMultishot,
            Tier::Single => Engine::UringSingle,
        }
    }

    /// Readable when completions wait.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.ring.lock().uring.as_fd().try_clone_to_owned()
    }

    /// Hands what waits to the kernel, unless that has much already. True if something arrived
    /// beside it, which nobody will be woken for.
    pub(super) fn flush(&self, outbox: &mut Outbox) -> bool {
        if self.not_in_children.is_inherited() {
            outbox.end(Closed::Inherited);
            return true;
        }
        let mut ring = self.ring.lock();
        if let Err(error) = ring.flush(outbox) {
            outbox.end(match error {
                Error::SocketEnded => Closed::PeerGone,
                error => Closed::Io(error.to_string()),
            });
        }
        self.receive_no_more(&mut ring);
        ring.ended || !ring.arrived.is_empty()
    }

    /// Whether the kernel has taken everything that it was given.
    pub(super) fn is_drained(&self) -> bool {
        let ring = self.ring.lock();
        ring.uring.backlog_bytes(ring.id) == 0
    }

    /// Bytes on their way to the peer.
    pub(super) fn queued(&self) -> u64 {
        let ring = self.ring.lock();
        let backlog = ring.uring.backlog_bytes(ring.id) as u64;
        backlog + queued::in_socket(&self.socket).unwrap_or(0)
    }

    pub(super) fn receive(&self, parser: &mut Parser) -> Received {
        if self.not_in_children.is_inherited() {
            return Received::Ended(Closed::Inherited);
        }
        let mut ring = self.ring.lock();
        let mut received = Received::Nothing;
        if !ring.arrived.is_empty() {
            parser.push(&ring.arrived);
            ring.arrived.clear();
            received = Received::All;
        }
        let reaped = ring.reap(&mut |data| {
            parser.push(data);
            received = Received::All;
        });
        self.receive_no_more(&mut ring);
        match reaped {
            Ok(()) if ring.ended => Received::Ended(Closed::PeerGone),
            Ok(()) => received,
            Err(error) => Received::Ended(Closed::Io(error.to_string())),
        }
    }

    /// Ends receiving behind what the peer has sent, once a send has failed: that is what tells of the end. A peer that
    /// takes nothing any more may keep its sending side open.
    fn receive_no_more(&self, ring: &mut Ring) {
        if std::mem::take(&mut ring.broken) {
            // The peer may have been faster.
            let _ = shutdown(&self.socket, Shutdown::Read);
        }
    }

    pub(super) fn hang_up(&self) {
        // The peer may have been faster.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl Ring {
    fn flush(&mut self, outbox: &mut Outbox) -> Result<(), Error> {
        if self.arrived.len() >= MAX_ARRIVED_BYTES {
            // The passes that take it send what waits behind it.
            return Ok(());
        }
        // A send goes out once the one before it is known to be done, which most are at once.
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut flushed = self.reap(&mut |data| arrived.extend_from_slice(data));
        while flushed.is_ok()
            && outbox.len() > 0
            && self.uring.backlog_bytes(self.id) < MAX_BACKLOG_BYTES
        {
            flushed = self
                .queue(outbox)
                .and_then(|()| self.uring.submit())
                .and_then(|()| self.reap(&mut |data| arrived.extend_from_slice(data)));
        }
        self.arrived = arrived;
        flushed
    }

    fn queue(&mut self, outbox: &mut Outbox) -> Result<(), Error> {
        let len = outbox.len();
        if len > COPIED_BYTES {
            return self.uring.send(self.id, outbox.take());
        }
        self.uring.send_slice(self.id, outbox.bytes())?;
        outbox.advance(len);
        Ok(())
    }

    /// Takes what has completed, and starts what may follow it.
    fn reap(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        if !self.uring.has_completions() {
            return Ok(());
        }
        let Self {
            uring,
            ended,
            broken,
            ..
        } = self;
        uring.reap(|completion| match completion {
            Completion::Received { data, .. } => deliver(data),
            Completion::Closed { .. } => *ended = true,
            // What the peer sent before it went may still come: `Closed` follows.
            Completion::Failed { .. } => *broken = true,
            Completion::Sent { .. } => {}
        });
        self.uring.submit()
    }
}
