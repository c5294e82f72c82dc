//! The writing end: reserve, encode in place, commit.
//!
//! ```text
//!  peer cursor      published        tail
//!      |  to be read    |  committed   |  free up to peer cursor + ring bytes
//! ```
//!
//! All three are private; the region only shows copies.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::{
    BlockRef, BlockWriter, Corrupt, PeerSleep, ReserveError, SleepWord,
    doorbell::{Bell, Reason},
    failpoint::{self, Step},
    layout::RECORD_ALIGN,
    memory::{Own, OwnRing, Peer},
    poison::Poison,
    record::{self, BLOCK_REF_BYTES, HEADER_BYTES},
    sync::{AtomicU64, Ordering},
};

/// A place in the stream of records, in bytes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position(pub(crate) u64);

impl Position {
    /// The bytes before it, counted round and round.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether a consumer whose cursor is `cursor` has taken everything before this position.
    ///
    /// Positions wrap, so they compare only within half of their range: ages more than a ring holds.
    pub fn reached_by(self, cursor: Position) -> bool {
        cursor.0.wrapping_sub(self.0) <= u64::MAX / 2
    }
}

/// Writes records into this side's own region.
///
/// ```
/// # use ringway_ring::{Endpoint, EndpointConfig};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default())?;
/// let mut reservation = here.producer.reserve(5)?;
/// reservation.copy_from_slice(b"hello");
/// reservation.commit();
/// assert!(there.consumer.has_records());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    own: Own,
    ring: OwnRing,
    peer: Peer,
    poison: Poison,
    bell: Bell,
    /// End of what is committed.
    tail: u64,
    /// End of what the peer may see; `published <= tail`.
    published: u64,
    /// The peer's cursor when it was last read; `peer_cursor <= published`.
    peer_cursor: u64,
    /// The same, for those who look for room without the producer.
    seen: Arc<AtomicU64>,
}

impl Producer {
    pub(crate) fn new(own: Own, ring: OwnRing, peer: Peer, poison: Poison, start: u64) -> Self {
        let bell = Bell::new(Reason::Records);
        Self {
            own,
            ring,
            peer,
            poison,
            bell,
            tail: start,
            published: start,
            peer_cursor: start,
            seen: Arc::new(AtomicU64::new(start)),
        }
    }

    /// The most inline bytes that a record can hold, with or without a block.
    ///
    /// Half of the ring: with more, a record could need so much padding that it never fits.
    pub fn max_inline(&self) -> usize {
        self.ring_bytes() / 2 - HEADER_BYTES - BLOCK_REF_BYTES
    }

    /// Room for a record of exactly `len` bytes, to be filled and committed.
    ///
    /// # Errors
    /// `Full` until the peer has consumed more; `TooLarge` for ever.
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, ReserveError> {
        self.reserve_any(len, None, true)
    }

    /// The same for a record that carries a block of the arena beside its inline bytes.
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve); the block comes back with the error.
    pub fn reserve_with_block(
        &mut self,
        len: usize,
        block: BlockWriter,
    ) -> Result<Reservation<'_>, (ReserveError, BlockWriter)> {
        match self.place(len, true) {
            Ok(place) => Ok(Reservation {
                producer: self,
                place,
                block: Some(block),
                publish: true,
            }),
            Err(error) => Err((error, block)),
        }
    }

    /// Whether a record of `len` inline bytes fits now, with or without a block.
    pub fn has_room(&mut self, len: usize) -> bool {
        self.place(len, true).is_ok()
    }

    /// Commits several records and publishes them together when the guard drops.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch { producer: self }
    }

    /// Shows the peer everything committed. Only a leaked [`Batch`] leaves anything to show.
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            // Release: the records before this index are written before it is seen.
            self.own.publish_producer_index(self.tail);
        }
    }

    /// Whether the peer sleeps and needs a doorbell for what was published before this call.
    ///
    /// True once per sleep, so ring when it says so: it will not say it again.
    pub fn peer_must_be_woken(&mut self) -> bool {
        self.bell.must_ring(&self.peer)
    }

    /// A look for room by another thread, without a lock.
    pub fn room_peek(&self) -> RoomPeek {
        RoomPeek {
            peer: self.peer.clone(),
            seen: Arc::clone(&self.seen),
        }
    }

    /// What is known of the peer's sleep, for another thread, without a lock.
    pub fn peer_sleep(&self) -> PeerSleep {
        PeerSleep::new(self.own.clone(), self.peer.clone(), self.bell.rung_for())
    }

    /// The end of what was published.
    pub fn position(&self) -> Position {
        Position(self.published)
    }

    /// How far the peer has consumed: what lies behind it was never seen by its handlers.
    ///
    /// # Errors
    /// If the peer's cursor is impossible.
    pub fn peer_cursor(&mut self) -> Result<Position, Corrupt> {
        self.poison.check()?;
        self.refresh()?;
        Ok(Position(self.peer_cursor))
    }

    /// The bytes of records that the peer has not taken yet, and the ring's.
    ///
    /// # Errors
    /// If the peer's cursor is impossible.
    pub fn fill(&mut self) -> Result<(usize, usize), Corrupt> {
        let Position(cursor) = self.peer_cursor()?;
        let used = usize::try_from(self.tail.wrapping_sub(cursor)).unwrap_or(usize::MAX);
        Ok((used, self.ring_bytes()))
    }

    /// A word by which this side says that it sleeps until the peer consumes or releases something;
    /// the peer's [`Consumer::peer_waits_for_room`](crate::Consumer::peer_waits_for_room) answers it.
    pub fn room_word(&self) -> SleepWord {
        SleepWord::new(self.own.clone(), Reason::Room)
    }

    /// Ends the endpoint for a reason found elsewhere, such as a record that does not parse.
    pub fn poison(&self, corrupt: Corrupt) {
        self.poison.set(corrupt);
    }

    fn ring_bytes(&self) -> usize {
        self.own.layout().ring_bytes
    }

    fn reserve_any(
        &mut self,
        len: usize,
        block: Option<BlockWriter>,
        publish: bool,
    ) -> Result<Reservation<'_>, ReserveError> {
        let place = self.place(len, block.is_some())?;
        Ok(Reservation {
            producer: self,
            place,
            block,
            publish,
        })
    }

    /// Finds a contiguous place, with a new look at the peer's cursor only if the ring seems full.
    fn place(&mut self, len: usize, has_block: bool) -> Result<Place, ReserveError> {
        self.poison.check()?;
        let max = self.max_inline();
        let inline = u32::try_from(len).ok().filter(|_| len <= max);
        let inline = inline.ok_or(ReserveError::TooLarge { len, max })?;
        let total = record::record_bytes(len, has_block);
        let at = self.own.layout().ring_offset(self.tail);
        let to_end = self.ring_bytes() - at;
        let pad = if total > to_end { to_end } else { 0 };
        if self.free() < pad + total {
            self.refresh()?;
            if self.free() < pad + total {
                return Err(ReserveError::Full);
            }
        }
        let start = if pad == 0 { at } else { 0 };
        Ok(Place {
            pad,
            start,
            has_block,
            inline,
        })
    }

    fn free(&self) -> usize {
        let used = self.tail.wrapping_sub(self.peer_cursor);
        // No underflow: `refresh` accepts no cursor that leaves more than the ring in use.
        self.ring_bytes() - usize::try_from(used).unwrap_or(self.ring_bytes())
    }

    fn refresh(&mut self) -> Result<(), Corrupt> {
        // Acquire: the peer's reads of the space that its cursor gives back come before our writes.
        let cursor = self.peer.consumer_cursor();
        self.peer_cursor = self.poison.guard(self.checked(cursor))?;
        // Relaxed: nothing is handed over with it.
        self.seen.store(self.peer_cursor, Ordering::Relaxed);
        Ok(())
    }

    fn checked(&self, cursor: u64) -> Result<u64, Corrupt> {
        let advanced = cursor.wrapping_sub(self.peer_cursor);
        if advanced > u64::MAX / 2 {
            return Err(Corrupt::ConsumerCursorMovedBack {
                cursor,
                seen: self.peer_cursor,
            });
        }
        if advanced > self.published.wrapping_sub(self.peer_cursor) {
            return Err(Corrupt::ConsumerCursorAhead {
                cursor,
                published: self.published,
            });
        }
        if !cursor.is_multiple_of(RECORD_ALIGN as u64) {
            return Err(Corrupt::ConsumerCursorUnaligned { cursor });
        }
        Ok(cursor)
    }

    fn commit(&mut self, place: &Place, block: Option<&BlockRef>) -> Position {
        if place.pad > 0 {
            let at = self.own.layout().ring_offset(self.tail);
            #[expect(clippy::cast_possible_truncation, reason = "a ring is at most 1 GiB")]
            let len = (place.pad - HEADER_BYTES) as u32;
            record::write_pad(self.ring.bytes_mut(at, HEADER_BYTES), len);
        }
        let total = place.total();
        record::write_header(self.ring.bytes_mut(place.start, total), place.inline, block);
        self.tail = self.tail.wrapping_add((place.pad + total) as u64);
        Position(self.tail)
    }
}

/// Whether the peer has consumed anything since the producer last found too little room.
#[derive(Debug, Clone)]
pub struct RoomPeek {
    peer: Peer,
    seen: Arc<AtomicU64>,
}

impl RoomPeek {
    /// Whether to try again.
    pub fn has_changed(&self) -> bool {
        self.peer.consumer_cursor() != self.seen.load(Ordering::Relaxed)
    }
}

/// Where a reserved record goes. Nothing is written there but by its reservation until it commits.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Bytes skipped before the ring's end.
    pad: usize,
    /// Offset of the record in the ring.
    start: usize,
    has_block: bool,
    /// Inline bytes.
    inline: u32,
}

impl Place {
    fn total(&self) -> usize {
        record::record_bytes(self.inline as usize, self.has_block)
    }

    fn inline_start(&self) -> usize {
        self.start + record::inline_at(self.has_block)
    }
}

/// Room in the ring for one record: a slice to encode into.
///
/// Dropped without [`commit`](Self::commit), it was never there, and its block goes back.
#[derive(Debug)]
#[must_use = "a reservation that is not committed publishes nothing"]
pub struct Reservation<'a> {
    producer: &'a mut Producer,
    place: Place,
    block: Option<BlockWriter>,
    publish: bool,
}

impl Reservation<'_> {
    /// Makes the record part of the stream, and publishes it unless a batch will. Gives back the
    /// position after it.
    pub fn commit(self) -> Position {
        let reference = self.block.map(BlockWriter::lend);
        let position = self.producer.commit(&self.place, reference.as_ref());
        failpoint::reached(Step::Written);
        if self.publish {
            self.producer.publish();
        }
        position
    }

    /// Keeps only the first `len` bytes, for encoders that reserve more than they need.
    pub fn truncate(&mut self, len: usize) {
        if let Ok(len) = u32::try_from(len) {
            self.place.inline = self.place.inline.min(len);
        }
    }

    /// The block beside the record, to be filled up or cut short before the record is committed.
    pub fn block_mut(&mut self) -> Option<&mut BlockWriter> {
        self.block.as_mut()
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.producer
            .ring
            .bytes(self.place.inline_start(), self.place.inline as usize)
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.producer
            .ring
            .bytes_mut(self.place.inline_start(), self.place.inline as usize)
    }
}

/// Several records, shown to the peer together: one store, and at most one doorbell.
#[derive(Debug)]
pub struct Batch<'a> {
    producer: &'a mut Producer,
}

impl Batch<'_> {
    /// As [`Producer::reserve`], published with the batch.
    ///
    /// # Errors
    /// As for [`Producer::reserve`].
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, ReserveError> {
        self.producer.reserve_any(len, None, false)
    }

    /// As [`Producer::reserve_with_block`], published with the batch.
    ///
    /// # Errors
    /// As for [`Producer::reserve_with_block`].
    pub fn reserve_with_block(
        &mut self,
        len: usize,
        block: BlockWriter,
    ) -> Result<Reservation<'_>, (ReserveError, BlockWriter)> {
        let mut reservation = self.producer.reserve_with_block(len, block)?;
        reservation.publish = false;
        Ok(reservation)
    }

    /// As [`Producer::has_room`].
    pub fn has_room(&mut self, len: usize) -> bool {
        self.producer.has_room(len)
    }

    /// Publishes what was committed so far, and says whether the peer needs a doorbell.
    pub fn publish(self) -> bool {
        self.producer.publish();
        self.producer.peer_must_be_woken()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.producer.publish();
    }
}
