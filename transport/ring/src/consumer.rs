//! The reading end: look, copy everything out, give the space back, and only then parse.

use std::sync::Arc;

use crate::{
    Corrupt, SleepWord,
    doorbell::{Bell, Reason},
    failpoint::{self, Step},
    layout::RECORD_ALIGN,
    memory::{Own, Peer},
    poison::Poison,
    record::{Records, records},
    sync::{AtomicU64, Ordering},
};

/// Reads the records of the peer's region.
///
/// ```
/// # use ringway_ring::{Endpoint, EndpointConfig, Inbox};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default())?;
/// there.producer.reserve(0)?.commit();
/// let mut inbox = Inbox::default();
/// here.consumer.take(&mut inbox)?;
/// for record in inbox.records() {
///     assert!(record?.bytes.is_empty());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    own: Own,
    peer: Peer,
    poison: Poison,
    bell: Bell,
    cursor: u64,
    mirror: Arc<AtomicU64>,
}

impl Consumer {
    pub(crate) fn new(own: Own, peer: Peer, poison: Poison, start: u64) -> Self {
        let (bell, mirror) = (Bell::new(Reason::Room), Arc::new(AtomicU64::new(start)));
        Self {
            own,
            peer,
            poison,
            bell,
            cursor: start,
            mirror,
        }
    }

    /// Whether [`take`](Self::take) would find something (or find the peer out): one load.
    pub fn has_records(&self) -> bool {
        self.peer.producer_index() != self.cursor
    }

    /// Copies everything published into `inbox`, in place of what it held, and gives the ring space
    /// back. Returns how many bytes came, never more than the ring's size.
    ///
    /// Once this returns, the peer counts these records as seen.
    ///
    /// # Errors
    /// If the peer's index is impossible, now or before.
    pub fn take(&mut self, inbox: &mut Inbox) -> Result<usize, Corrupt> {
        inbox.restart(self.cursor, self.peer.layout().ring_bytes);
        self.poison.check()?;
        // Acquire: what the index covers is written before we copy it.
        let index = self.peer.producer_index();
        let available = self.poison.guard(self.checked(index))?;
        if available == 0 {
            return Ok(0);
        }
        self.copy(available, inbox);
        failpoint::reached(Step::Copied);
        self.cursor = index;
        // Release: a `Peek` that sees this cursor sees no older index. One that still sees the old
        // cursor looks once too often, nothing else.
        self.mirror.store(index, Ordering::Release);
        // Release: our copy is finished before the peer sees that it may write there again.
        self.own.publish_consumer_cursor(index);
        failpoint::reached(Step::Taken);
        Ok(available)
    }

    /// Announces that this side is about to sleep; look again before doing so.
    pub fn arm(&self) {
        self.sleep_word().arm();
    }

    /// Announces that this side looks by itself again.
    pub fn disarm(&self) {
        self.sleep_word().disarm();
    }

    /// [`arm`](Self::arm) and [`disarm`](Self::disarm) for another thread, without a lock.
    pub fn sleep_word(&self) -> SleepWord {
        SleepWord::new(self.own.clone(), Reason::Records)
    }

    /// [`has_records`](Self::has_records) for another thread, without a lock.
    pub fn peek(&self) -> Peek {
        Peek {
            peer: self.peer.clone(),
            cursor: Arc::clone(&self.mirror),
        }
    }

    /// After taking records or releasing blocks: whether the peer's producer sleeps until that
    /// happens, and needs a doorbell. True once per sleep.
    pub fn peer_waits_for_room(&mut self) -> bool {
        self.bell.must_ring(&self.peer)
    }

    /// Ends the endpoint for a reason found elsewhere, such as a record that does not parse.
    pub fn poison(&self, corrupt: Corrupt) {
        self.poison.set(corrupt);
    }

    fn checked(&self, index: u64) -> Result<usize, Corrupt> {
        let (cursor, ring_bytes) = (self.cursor, self.peer.layout().ring_bytes);
        let available = index.wrapping_sub(cursor);
        if available > u64::MAX / 2 {
            return Err(Corrupt::ProducerIndexMovedBack { index, cursor });
        }
        let fits = usize::try_from(available)
            .ok()
            .filter(|bytes| *bytes <= ring_bytes);
        let Some(available) = fits else {
            let ring_bytes = ring_bytes as u64;
            return Err(Corrupt::ProducerIndexBeyondRing {
                index,
                cursor,
                ring_bytes,
            });
        };
        if !available.is_multiple_of(RECORD_ALIGN) {
            return Err(Corrupt::ProducerIndexUnaligned { index });
        }
        Ok(available)
    }

    /// One copy, or two if the bytes wrap. `available` was checked against the ring's size.
    fn copy(&self, available: usize, inbox: &mut Inbox) {
        let layout = self.peer.layout();
        let at = layout.ring_offset(self.cursor);
        let first = available.min(layout.ring_bytes - at);
        inbox.bytes.reserve(available);
        let (head, tail) = inbox.bytes.spare_capacity_mut()[..available].split_at_mut(first);
        self.peer.copy_ring(at, head);
        if !tail.is_empty() {
            self.peer.copy_ring(0, tail);
        }
        // SAFETY: the two copies initialised exactly `available` bytes of the spare capacity, and
        // `restart` had left the vector empty.
        unsafe { inbox.bytes.set_len(available) };
    }
}

/// Private memory that a consumer copies into; reused from one look to the next.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    position: u64,
    ring_bytes: usize,
}

impl Inbox {
    /// The records of the last [`Consumer::take`], each checked.
    pub fn records(&self) -> Records<'_> {
        records(&self.bytes, self.position, self.ring_bytes)
    }

    /// Whether the last take brought nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn restart(&mut self, position: u64, ring_bytes: usize) {
        self.bytes.clear();
        self.position = position;
        self.ring_bytes = ring_bytes;
    }
}

/// A look at the peer's ring for any thread, without a lock.
///
/// It may say yes for records that another thread is just taking, never no for records that are
/// there.
#[derive(Debug, Clone)]
pub struct Peek {
    peer: Peer,
    cursor: Arc<AtomicU64>,
}

impl Peek {
    /// Bytes that the peer says to have published beyond what was taken. Not judged: a hint.
    pub fn pending_bytes(&self) -> u64 {
        let cursor = self.cursor.load(Ordering::Acquire);
        self.peer.producer_index().wrapping_sub(cursor)
    }

    /// Whether there is something to take.
    pub fn has_records(&self) -> bool {
        // The cursor first: read after an index that is out of date, it could equal that index while
        // more is there. In this order the index is never the older of the two.
        let cursor = self.cursor.load(Ordering::Acquire);
        self.peer.producer_index() != cursor
    }
}
