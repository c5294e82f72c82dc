//! The engine of nonblocking sends and receives: a lone call costs one of each.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_sys::NotInChildren;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Received;
use super::outbox::Outbox;
use super::parse::Parser;
use crate::error::Closed;
use crate::system::WITHOUT_SIGNAL;

#[derive(Debug)]
pub(super) struct Socket {
    /// Before the socket, so that it is dropped first.
    _not_in_children: NotInChildren,
    socket: Arc<OwnedFd>,
}

impl Socket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            _not_in_children: NotInChildren::note(&socket),
            socket: Arc::new(socket),
        }
    }

    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Sends until nothing waits or the kernel takes no more.
    pub(super) fn flush(&self, outbox: &mut Outbox) {
        while outbox.len() > 0 {
            match send(
                &self.socket,
                outbox.bytes(),
                SendFlags::DONTWAIT | WITHOUT_SIGNAL,
            ) {
                Ok(len) => outbox.advance(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    outbox.end(closed(errno));
                    self.receive_no_more();
                }
            }
        }
    }

    /// Ends receiving behind what the peer has sent: that is what tells of the end. A peer that takes nothing any more
    /// may keep its sending side open.
    fn receive_no_more(&self) {
        // The peer may have been faster.
        let _ = shutdown(&self.socket, Shutdown::Read);
    }

    pub(super) fn receive(&self, parser: &mut Parser) -> Received {
        let space = parser.space();
        let room = space.capacity() - space.len();
        loop {
            return match recv(&self.socket, spare_capacity(space), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Received::Ended(Closed::PeerGone),
                Ok((_, len)) if len == room => Received::MaybeMore,
                Ok(_) => Received::All,
                Err(Errno::AGAIN) => Received::Nothing,
                Err(Errno::INTR) => continue,
                Err(errno) => Received::Ended(closed(errno)),
            };
        }
    }

    pub(super) fn hang_up(&self) {
        // The peer may have been faster.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

fn closed(errno: Errno) -> Closed {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Closed::PeerGone,
        other => Closed::Io(other.to_string()),
    }
}
