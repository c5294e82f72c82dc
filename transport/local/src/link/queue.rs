//! Frames through a pair of queues inside one process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Frame, Head, LinkError, Outgoing};
use crate::call::Out;
use crate::connection::Connection;
use crate::error::Closed;

/// Frames that wait in one queue, at most: the flow control above bounds their bytes.
const MAX_FRAMES: usize = 1024;

/// One direction.
#[derive(Debug, Default)]
struct Queue {
    frames: Mutex<VecDeque<Frame>>,
    len: AtomicUsize,
    sleeping: AtomicBool,
    sender_waits: AtomicBool,
    closed: AtomicBool,
    /// Whom to wake: the connection that reads here, and the one that writes.
    reader: OnceLock<Weak<Connection>>,
    writer: OnceLock<Weak<Connection>>,
}

/// Both ends of a link inside one process.
pub(crate) fn pair() -> [(Sender, Receiver); 2] {
    let (left, right) = (Arc::<Queue>::default(), Arc::<Queue>::default());
    let end =
        |out: &Arc<Queue>, into: &Arc<Queue>| (Sender(Arc::clone(out)), Receiver(Arc::clone(into)));
    [end(&left, &right), end(&right, &left)]
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Queue>);

impl Sender {
    pub(crate) fn registration(&self) -> Registration {
        Registration {
            queue: Arc::clone(&self.0),
            reads: false,
        }
    }

    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(LinkError::Closed(Closed::PeerGone));
        }
        if !self.has_room() {
            return Err(LinkError::Full);
        }
        let payload = frame.payload.map_or_else(Bytes::new, |payload| {
            let mut bytes = BytesMut::zeroed(payload.len);
            (payload.encode)(Out::Slice(&mut bytes));
            bytes.freeze()
        });
        let mut head = BytesMut::zeroed(frame.head_len);
        let header = (frame.finish)(&mut head).ok_or(LinkError::TakenBack)?;
        self.0.frames.lock().push_back(Frame {
            header,
            head: Head::Long(head.freeze()),
            payload,
            is_lost: false,
        });
        self.0.len.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn has_room(&self) -> bool {
        let room = self.0.len.load(Ordering::SeqCst) < MAX_FRAMES;
        self.0.sender_waits.store(!room, Ordering::SeqCst);
        room || self.0.len.load(Ordering::SeqCst) < MAX_FRAMES
    }

    pub(crate) fn ring(&mut self) {
        if self.0.sleeping.swap(false, Ordering::SeqCst) {
            wake(&self.0.reader);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        wake(&self.0.reader);
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Queue>);

impl Receiver {
    pub(crate) fn registration(&self) -> Registration {
        Registration {
            queue: Arc::clone(&self.0),
            reads: true,
        }
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }

    pub(crate) fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Closed> {
        let closed = self.0.closed.load(Ordering::Acquire);
        let mut queue = self.0.frames.lock();
        let taken = queue.len();
        frames.extend(queue.drain(..));
        drop(queue);
        self.0.len.fetch_sub(taken, Ordering::SeqCst);
        if taken > 0 && self.0.sender_waits.swap(false, Ordering::SeqCst) {
            wake(&self.0.writer);
        }
        if closed && taken == 0 {
            return Err(Closed::PeerGone);
        }
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        wake(&self.0.writer);
    }
}

/// The place where a half's connection is noted, once there is one.
pub(crate) struct Registration {
    queue: Arc<Queue>,
    reads: bool,
}

impl Registration {
    pub(crate) fn belongs_to(self, connection: &Arc<Connection>) {
        let place = match self.reads {
            true => &self.queue.reader,
            false => &self.queue.writer,
        };
        place.get_or_init(|| Arc::downgrade(connection));
        connection.mark_ready();
    }
}

/// Looks without the connection's locks.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Queue>);

impl Watch {
    pub(crate) fn has_frames(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) > 0 || self.0.closed.load(Ordering::Acquire)
    }

    pub(crate) fn arm(&self) {
        self.0.sleeping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn disarm(&self) {
        self.0.sleeping.store(false, Ordering::SeqCst);
    }
}

fn wake(connection: &OnceLock<Weak<Connection>>) {
    if let Some(connection) = connection.get().and_then(Weak::upgrade) {
        connection.mark_ready();
    }
}
