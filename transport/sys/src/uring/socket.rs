//! One attached socket: what it has in flight, and what waits to be sent.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::Operation;
use super::{SocketId, buffers};
use crate::NotInChildren;

/// Queued messages are joined into one send up to this length.
pub(super) const COALESCE_BYTES: usize = 64 * 1024;
/// The length of a send operation is a u32, its result an i32.
const MAX_SEND_BYTES: u32 = 1 << 30;

/// Where a receive puts its bytes.
pub(super) enum Inbox {
    /// Into the ring of buffers that all sockets share.
    Shared,
    /// Into this. Not to be touched while `receiving`.
    Own(Vec<u8>),
}

pub(super) struct Socket {
    pub(super) id: SocketId,
    /// Before the descriptor, so that it is dropped first.
    _not_in_children: NotInChildren,
    descriptor: OwnedFd,
    pub(super) inbox: Inbox,
    /// A receive is in flight.
    pub(super) receiving: bool,
    /// Nothing more will be received.
    pub(super) ended: bool,
    /// A send of the rest of `outgoing` is in flight.
    pub(super) sending: bool,
    /// Being sent, from `sent` on. Neither changed nor dropped while `sending`.
    outgoing: Vec<u8>,
    sent: usize,
    waiting: VecDeque<Vec<u8>>,
    /// Nothing more can be sent.
    pub(super) broken: bool,
    /// The owner has let go; what is left is to see the operations in flight end.
    pub(super) detached: bool,
    cancelled: bool,
    /// In the engine's list of sockets to look at in the next submission.
    pub(super) listed: bool,
}

impl Socket {
    pub(super) fn new(id: SocketId, descriptor: OwnedFd, inbox: Inbox) -> Self {
        Self {
            id,
            _not_in_children: NotInChildren::note(&descriptor),
            descriptor,
            inbox,
            receiving: false,
            ended: false,
            sending: false,
            outgoing: Vec::new(),
            sent: 0,
            waiting: VecDeque::new(),
            broken: false,
            detached: false,
            cancelled: false,
            listed: false,
        }
    }

    /// No operation of this socket can touch a buffer any more.
    pub(super) fn is_idle(&self) -> bool {
        !self.receiving && !self.sending
    }

    pub(super) fn wants_receive(&self) -> bool {
        !self.receiving && !self.ended && !self.detached
    }

    pub(super) fn wants_send(&self) -> bool {
        let anything = self.sent < self.outgoing.len() || !self.waiting.is_empty();
        anything && !self.sending && !self.broken && !self.detached
    }

    /// Bytes that the kernel has not taken yet.
    pub(super) fn backlog_bytes(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(Vec::len).sum();
        waiting + self.outgoing.len() - self.sent
    }

    /// Queues bytes behind those that wait; gives the vector back if they were copied.
    pub(super) fn enqueue(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self.waiting.back_mut() {
            Some(last) if last.len() + bytes.len() <= COALESCE_BYTES => {
                last.extend_from_slice(&bytes);
                Some(bytes)
            }
            _ => {
                self.waiting.push_back(bytes);
                None
            }
        }
    }

    /// Copies bytes behind those that wait, into `fresh()` if they don't fit the last piece.
    pub(super) fn enqueue_slice(&mut self, bytes: &[u8], fresh: impl FnOnce() -> Vec<u8>) {
        match self.waiting.back_mut() {
            Some(last) if last.len() + bytes.len() <= COALESCE_BYTES => {
                last.extend_from_slice(bytes);
            }
            _ => {
                let mut piece = fresh();
                piece.extend_from_slice(bytes);
                self.waiting.push_back(piece);
            }
        }
    }

    /// The sending side is over: what waits is dropped, what is in flight stays until it ends.
    pub(super) fn give_up_sending(&mut self) {
        self.broken = true;
        self.waiting.clear();
    }

    /// Nothing can be sent or received on it any more, whatever happens to the cancellations: a
    /// request that slips past them, between two polls, then ends by itself.
    pub(super) fn let_go(&mut self) {
        self.detached = true;
        self.waiting.clear();
        // ENOTCONN: the peer was faster.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Both);
    }

    /// The kernel took `len` bytes; gives back the buffer if that was all of it.
    pub(super) fn advance(&mut self, len: usize) -> Option<Vec<u8>> {
        self.sent = self.outgoing.len().min(self.sent + len);
        if self.sent < self.outgoing.len() {
            return None;
        }
        self.sent = 0;
        Some(std::mem::take(&mut self.outgoing))
    }

    /// The receive to submit; the socket counts it as in flight from here on.
    pub(super) fn start_receive(&mut self) -> Entry {
        self.receiving = true;
        let target = types::Fd(self.descriptor.as_raw_fd());
        let entry = match &mut self.inbox {
            Inbox::Shared => opcode::RecvMulti::new(target, buffers::GROUP).build(),
            Inbox::Own(buffer) => {
                let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
                opcode::Recv::new(target, buffer.as_mut_ptr(), len).build()
            }
        };
        entry.user_data(Operation::Receive.user_data(self.id))
    }

    /// The send to submit: the rest of the last one, or the next piece.
    pub(super) fn start_send(&mut self) -> Entry {
        self.sending = true;
        if self.sent == self.outgoing.len() {
            self.outgoing = self.waiting.pop_front().unwrap_or_default();
            self.sent = 0;
        }
        let rest = &self.outgoing[self.sent..];
        let len = u32::try_from(rest.len()).map_or(MAX_SEND_BYTES, |len| len.min(MAX_SEND_BYTES));
        opcode::Send::new(types::Fd(self.descriptor.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(Operation::Send.user_data(self.id))
    }

    /// The cancellations of what a detached socket has in flight, once.
    pub(super) fn start_cancel(&mut self) -> [Option<Entry>; 2] {
        let first = self.detached && !std::mem::replace(&mut self.cancelled, self.detached);
        let cancel = |operation: Operation, flying: bool| {
            (first && flying).then(|| {
                opcode::AsyncCancel::new(operation.user_data(self.id))
                    .build()
                    .user_data(Operation::Cancel.user_data(self.id))
            })
        };
        [
            cancel(Operation::Receive, self.receiving),
            cancel(Operation::Send, self.sending),
        ]
    }
}
