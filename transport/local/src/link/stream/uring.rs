//! The engine over io_uring: one ring a connection, whose buffers and standing receive are its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use parking_lot::Mutex;
use ringway_sys::uring::{Completion, Settings, SocketId, Support, Tier, Uring};
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
/// Above this a buffer is handed over whole, in place of a copy.
const COPIED_BYTES: usize = 64 * 1024;

/// What this process may do with io_uring, tried once.
pub(super) fn support() -> Support {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    *SUPPORT.get_or_init(Support::probe)
}

#[derive(Debug)]
pub(super) struct Socket {
    ring: Mutex<Ring>,
    tier: Tier,
    /// To hang up by: the ring owns the socket.
    socket: OwnedFd,
}

#[derive(Debug)]
struct Ring {
    uring: Uring,
    id: SocketId,
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
            ring: Mutex::new(Ring { uring, id }),
            tier,
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

    /// Hands what waits to the kernel, unless that has much already.
    pub(super) fn flush(&self, outbox: &mut Outbox) {
        let mut ring = self.ring.lock();
        let Ring { uring, id } = &mut *ring;
        if outbox.len() == 0 || uring.backlog_bytes(*id) >= MAX_BACKLOG_BYTES {
            return;
        }
        let len = outbox.len();
        let queued = match len > COPIED_BYTES {
            true => uring.send(*id, outbox.take()),
            false => {
                let queued = uring.send_slice(*id, outbox.bytes());
                outbox.advance(len);
                queued
            }
        };
        let submitted = queued.and_then(|()| uring.submit());
        if let Err(error) = submitted {
            outbox.end(match error {
                ringway_sys::Error::SocketEnded => Closed::PeerGone,
                error => Closed::Io(error.to_string()),
            });
        }
    }

    /// Whether the kernel has taken everything that it was given.
    pub(super) fn is_drained(&self) -> bool {
        let ring = self.ring.lock();
        ring.uring.backlog_bytes(ring.id) == 0
    }

    pub(super) fn receive(&self, parser: &mut Parser) -> Received {
        let mut ring = self.ring.lock();
        if !ring.uring.has_completions() {
            return Received::Nothing;
        }
        let mut received = Received::Nothing;
        ring.uring.reap(|completion| match completion {
            Completion::Received { data, .. } => {
                parser.push(data);
                received = Received::All;
            }
            Completion::Closed { .. } => received = Received::Ended(Closed::PeerGone),
            // What the peer sent before it went may still come: `Closed` follows.
            Completion::Failed { .. } | Completion::Sent { .. } => {}
        });
        match ring.uring.submit() {
            Ok(()) => received,
            Err(error) => Received::Ended(Closed::Io(error.to_string())),
        }
    }

    pub(super) fn hang_up(&self) {
        // The peer may have been faster.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}
