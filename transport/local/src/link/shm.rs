//! Frames as records of a memory ring.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use ringway_ring::{
    Arena, BLOCK_REF_BYTES, BlockCopy, BlockRef, BlockWriter, BufferPool, Consumer, Inbox,
    PeerArena, Producer, Record, ReserveError, SegmentId,
};
use ringway_sys::{Blocking, EventFd, receive_with_descriptors, send_with_descriptors};
use ringway_wire::{FrameHeader, Kind};

use super::{Frame, Head, Judge, LinkError, MAX_FRAMES, Outgoing, Place};
use crate::call::Out;
use crate::connection::Fill;
use crate::error::{Closed, Lack, SendError};

/// Payloads up to this length travel in the record itself: copying them once more costs less than
/// a block's bookkeeping.
pub(crate) const MAX_INLINE_BYTES: usize = 12 * 1024;
/// Heads up to this length travel in the record, whatever goes with them.
const MAX_SHORT_HEAD_BYTES: usize = 2 * 1024;
/// Heads up to this length travel in the record if their payload leaves them the room: a record takes
/// less than half of a ring.
const MAX_RECORD_BYTES: usize = MAX_INLINE_BYTES + MAX_SHORT_HEAD_BYTES;
/// A payload longer than this is told of whenever a part of it is written, for the peer to copy it
/// meanwhile.
const MAX_UNTOLD_BYTES: usize = 32 * 1024;
/// When so much was copied out of records and blocks, the core judges what came before more is: nothing
/// keeps a peer from naming one block in each record of a ring.
const MAX_UNJUDGED_BYTES: usize = 4 * 1024 * 1024;
/// Notes of segments that a pass takes, each of them a mapping made or dropped: a peer that sends them without end
/// keeps no other connection waiting.
pub(crate) const MAX_NOTES: usize = 32;
/// The same where a record names a segment that is not there yet: more notes than a socket holds.
const MAX_NOTES_UNTIL_SEGMENT: usize = 1024;
/// A payload longer than this is copied only if the core wants it: what it would not take is not worth the
/// memory.
const MAX_UNASKED_BYTES: usize = 512 * 1024;
/// Says how much of a block is written, before the frame that lends it. Head: the block; `message_len`:
/// the bytes.
const FILLED: Kind = Kind::Link(0x80);
/// Payloads up to this length share one allocation with the count of their owners.
const SMALL_BYTES: usize = 128;
/// What is said over the rendezvous socket about a segment: its id and its length, with the segment.
/// A length of zero, without a segment, retires it.
const SEGMENT_NOTE_BYTES: usize = 16;
/// The longest head and payload together that a record can take.
const PAYLOAD_RESERVE_BYTES: usize = 512;

/// The blocks for large payloads, with the socket over which their segments are handed over.
#[derive(Debug)]
pub(crate) struct Blocks {
    arena: Mutex<Arena>,
    /// Somebody waits for a block.
    awaited: AtomicBool,
    socket: Arc<OwnedFd>,
    /// Whose block the peer is told of while it is filled, if the peer wants to be told.
    telling: Option<Arc<AtomicBool>>,
}

/// What is said of a segment: see [`SEGMENT_NOTE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentNote {
    pub(crate) id: SegmentId,
    /// In bytes; 0 retires it.
    pub(crate) len: usize,
}

impl SegmentNote {
    pub(crate) fn decode(note: &[u8; SEGMENT_NOTE_BYTES]) -> Self {
        let [a, b, c, d, _, _, _, _, len @ ..] = *note;
        Self {
            id: SegmentId(u32::from_le_bytes([a, b, c, d])),
            len: usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX),
        }
    }
}

/// The right to tell the peer of one's block until the frame is sent: one block at a time, so that the
/// peer knows that the one before is complete or was given up.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Blocks {
    pub(crate) fn new(arena: Arena, socket: Arc<OwnedFd>, peer_reads_ahead: bool) -> Self {
        Self {
            arena: Mutex::new(arena),
            awaited: AtomicBool::new(false),
            socket,
            telling: peer_reads_ahead.then(Arc::default),
        }
    }

    /// Whether to tell the peer of a payload of this length while it is written.
    pub(crate) fn turn_to_tell(&self, payload_len: usize) -> Option<Turn> {
        let telling = self
            .telling
            .as_ref()
            .filter(|_| payload_len > MAX_UNTOLD_BYTES)?;
        let taken = telling.swap(true, Ordering::Acquire);
        (!taken).then(|| Turn(Arc::clone(telling)))
    }

    /// Whether a payload of this length takes a block, and whether it takes a head of this length with
    /// it.
    pub(crate) fn takes(&self, head_len: usize, payload_len: usize) -> Option<WithHead> {
        if head_len > MAX_SHORT_HEAD_BYTES && head_len + payload_len > MAX_RECORD_BYTES {
            return Some(WithHead(true));
        }
        (payload_len > MAX_INLINE_BYTES).then_some(WithHead(false))
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }

    pub(crate) fn may_have_room(&self) -> bool {
        self.arena.lock().may_have_room()
    }

    /// Notes that somebody waits for a block; true if one may be free after all.
    pub(crate) fn wait(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        self.may_have_room()
    }

    /// Whether somebody waits who should try again.
    pub(crate) fn should_retry(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
            && self.may_have_room()
            && self.awaited.swap(false, Ordering::SeqCst)
    }

    /// Makes room for so much.
    pub(crate) fn allocate(&self, len_bytes: usize) -> Result<BlockWriter, SendError> {
        let mut arena = self.arena.lock();
        if arena.has_releases() {
            arena.collect_releases().map_err(|corrupt| {
                SendError::Closed(Closed::PeerMisbehaved(corrupt.to_string()))
            })?;
        }
        let block = match arena.allocate(len_bytes) {
            Ok(block) => block,
            Err(ringway_ring::ArenaError::Exhausted) => {
                return Err(SendError::Blocked(Lack::Memory));
            }
            Err(error) => {
                return Err(SendError::Memory {
                    len_bytes,
                    reason: error.to_string(),
                });
            }
        };
        self.hand_over_segments(&mut arena)?;
        Ok(block)
    }

    /// Gives back segments of which nothing was in use for `idle`; true if none is left.
    pub(crate) fn trim(&self, now: Instant, idle: Duration) -> Result<bool, Closed> {
        let mut arena = self.arena.lock();
        let retired = arena.trim(now, idle).map_err(misbehaved)?;
        self.announce_retired(retired)?;
        Ok(arena.total_bytes() == 0)
    }

    /// What of all segments is in use. A block that the peer gave back counts until the next one is
    /// asked for, unless that is taken note of here.
    pub(crate) fn fill(&self) -> Fill {
        let mut arena = self.arena.lock();
        // What is wrong with them is found where it matters.
        let _ = arena.collect_releases();
        Fill::of(arena.used_bytes(), arena.total_bytes())
    }

    /// Tells the peer at once that nothing follows, whoever still holds the descriptor.
    pub(crate) fn hang_up(&self) {
        // It may have hung up first.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Sends new segments before any record refers to them.
    fn hand_over_segments(&self, arena: &mut Arena) -> Result<(), SendError> {
        self.announce_retired(arena.retired_segments())
            .map_err(SendError::Closed)?;
        for segment in arena.new_segments() {
            self.send_note(segment.id, segment.len, &[segment.descriptor.as_fd()])
                .map_err(SendError::Closed)?;
        }
        Ok(())
    }

    /// Has the peer drop segments too; no record refers to them any more.
    fn announce_retired(&self, segments: Vec<SegmentId>) -> Result<(), Closed> {
        segments
            .into_iter()
            .try_for_each(|id| self.send_note(id, 0, &[]))
    }

    fn send_note(
        &self,
        id: SegmentId,
        len: usize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Closed> {
        let mut note = [0; SEGMENT_NOTE_BYTES];
        note[..4].copy_from_slice(&id.0.to_le_bytes());
        note[8..].copy_from_slice(&(len as u64).to_le_bytes());
        send_with_descriptors(self.socket.as_fd(), &note, descriptors, Blocking::Never)
            .map_err(|error| Closed::Io(error.to_string()))
            .map(drop)
    }
}

/// Bytes of a part: the fewer, the less of a message is copied by one side alone, and the more is told.
pub(crate) fn part_bytes(payload_len: usize) -> usize {
    (payload_len / 8).clamp(16 * 1024, MAX_UNTOLD_BYTES)
}

/// Whether a block holds a frame's head behind its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WithHead(pub(crate) bool);

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) producer: Producer,
    room: Arc<Room>,
}

/// Room in the ring, for those who wait for it: seen by whoever looks, rung for where nobody does.
#[derive(Debug)]
pub(crate) struct Room {
    peek: ringway_ring::RoomPeek,
    word: ringway_ring::SleepWord,
    awaited: AtomicBool,
}

impl Room {
    /// Whether somebody waits who should try again.
    pub(crate) fn has_come(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) && self.peek.has_changed()
    }

    /// Has the peer ring when it consumes, if somebody waits for that. `has_come` has to be asked again
    /// afterwards.
    pub(crate) fn arm_if_awaited(&self, memory_awaited: bool) {
        if memory_awaited || self.awaited.load(Ordering::SeqCst) {
            self.word.arm();
        }
    }
}

impl Sender {
    pub(crate) fn new(producer: Producer) -> Self {
        let room = Arc::new(Room {
            peek: producer.room_peek(),
            word: producer.room_word(),
            awaited: AtomicBool::new(false),
        });
        Self { producer, room }
    }

    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        let Outgoing {
            head_len,
            payload,
            place,
            finish,
        } = frame;
        let head_end = FrameHeader::LEN + head_len;
        match place {
            Place::Block(block, _turn) => {
                let mut record = self
                    .producer
                    .reserve_with_block(head_end, block)
                    .map_err(|(error, _)| refused(error))?;
                let header = finish(&mut record[FrameHeader::LEN..]).ok_or(LinkError::TakenBack)?;
                record[..FrameHeader::LEN].copy_from_slice(&header.encode());
                record.commit();
            }
            Place::BlockWithHead(block, _turn) => {
                let payload_len = payload.as_ref().map_or(0, |payload| payload.len);
                let mut record = self
                    .producer
                    .reserve_with_block(FrameHeader::LEN, block)
                    .map_err(|(error, _)| refused(error))?;
                let block = record.block_mut().ok_or(LinkError::TakenBack)?;
                block.truncate(payload_len + head_len);
                let head = block.as_mut_slice().get_mut(payload_len..);
                let head = head.filter(|head| head.len() == head_len);
                let header = finish(head.ok_or(LinkError::TooLarge)?);
                let header = header.ok_or(LinkError::TakenBack)?;
                record.copy_from_slice(&header.encode());
                record.commit();
            }
            Place::Inline => {
                let len = payload.as_ref().map_or(0, |payload| payload.len);
                let mut record = self.producer.reserve(head_end + len).map_err(refused)?;
                if let Some(payload) = payload {
                    (payload.encode)(Out::Slice(&mut record[head_end..]));
                }
                let header =
                    finish(&mut record[FrameHeader::LEN..head_end]).ok_or(LinkError::TakenBack)?;
                record[..FrameHeader::LEN].copy_from_slice(&header.encode());
                record.commit();
            }
        }
        Ok(())
    }

    /// A note for a peer that looks: without room for it, and for a peer that sleeps, the frame says it
    /// all.
    pub(crate) fn tell_filled(&mut self, block: BlockRef, filled: usize) {
        let block = block.encode();
        let (Ok(head_len), Ok(message_len)) = (block.len().try_into(), filled.try_into()) else {
            return;
        };
        let header = FrameHeader {
            head_len,
            message_len,
            ..FrameHeader::new(FILLED)
        };
        if let Ok(mut record) = self.producer.reserve(FrameHeader::LEN + BLOCK_REF_BYTES) {
            record[..FrameHeader::LEN].copy_from_slice(&header.encode());
            record[FrameHeader::LEN..].copy_from_slice(&block);
            record.commit();
        }
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The doorbell is armed by whoever goes to sleep.
    pub(crate) fn wait_for_room(&mut self, len: usize) -> bool {
        let wanted = (len + PAYLOAD_RESERVE_BYTES).min(self.producer.max_inline());
        let has_room = self.producer.has_room(wanted);
        if !has_room {
            self.room.awaited.store(true, Ordering::SeqCst);
        }
        has_room
    }

    /// Nobody waits for room any more.
    pub(crate) fn forget_room(&self) {
        if self.room.awaited.load(Ordering::Relaxed) {
            self.room.awaited.store(false, Ordering::SeqCst);
        }
    }
}

fn refused(error: ReserveError) -> LinkError {
    match error {
        ReserveError::Full => LinkError::Full,
        ReserveError::TooLarge { .. } => LinkError::TooLarge,
        ReserveError::Poisoned(corrupt) => {
            LinkError::Closed(Closed::PeerMisbehaved(corrupt.to_string()))
        }
    }
}

/// What a record came to.
enum Parsed {
    /// So many bytes were copied.
    Copied(usize),
    /// What it means depends on frames that are still to be handled.
    HeldUp,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) consumer: Consumer,
    pub(crate) inbox: Inbox,
    /// So many records of the inbox were parsed, if not all.
    pub(crate) parsed: usize,
    pub(crate) arena: PeerArena,
    pub(crate) pool: BufferPool,
    pub(crate) socket: Arc<OwnedFd>,
    /// The peer's doorbell, rung when it waits for room.
    pub(crate) doorbell: Arc<EventFd>,
    /// The block of which some was copied before its frame came: the peer tells of one at a time.
    pub(crate) ahead: Option<BlockCopy>,
    /// Bytes so copied by notes of this inbox.
    pub(crate) ahead_bytes: usize,
    /// Nothing was copied since [`Self::forget_given_up`] was last called.
    pub(crate) ahead_rests: bool,
    /// Some was copied since this was last asked.
    pub(crate) read_ahead: bool,
    /// A large payload came since this was last asked.
    pub(crate) fetched: bool,
}

impl Receiver {
    /// Asks to be called again, once these frames are judged, by [`Self::has_more`].
    pub(crate) fn receive(
        &mut self,
        frames: &mut Vec<Frame>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Closed> {
        let begin = std::mem::take(&mut self.parsed);
        let handled = frames.len();
        if begin == 0 {
            self.ahead_bytes = 0;
            let taken = self.consumer.take(&mut self.inbox).map_err(misbehaved)?;
            if taken == 0 {
                return Ok(());
            }
        }
        let inbox = std::mem::take(&mut self.inbox);
        let mut copied = 0;
        let mut records = inbox.records().enumerate().skip(begin);
        let parsed = records.try_for_each(|(at, record)| {
            if copied > MAX_UNJUDGED_BYTES || at - begin >= MAX_FRAMES {
                self.parsed = at;
                return ControlFlow::Break(Ok(()));
            }
            let is_first = frames.len() == handled;
            match self.frame(record, frames, is_first.then_some(&mut *judge)) {
                Ok(Parsed::Copied(bytes)) => {
                    copied += bytes;
                    ControlFlow::Continue(())
                }
                Ok(Parsed::HeldUp) => {
                    self.parsed = at;
                    ControlFlow::Break(Ok(()))
                }
                Err(why) => ControlFlow::Break(Err(why)),
            }
        });
        let parsed = parsed.break_value().unwrap_or(Ok(()));
        self.inbox = inbox;
        if self.consumer.peer_waits_for_room() && self.doorbell.ring().is_err() {
            return Err(Closed::PeerGone);
        }
        parsed
    }

    /// Whether there is more to receive once what came is judged.
    pub(crate) fn has_more(&self) -> bool {
        self.parsed > 0
    }

    /// Adds the frame in a record, unless that concerns the link alone. There is a `judge` once all frames
    /// before it are handled.
    fn frame(
        &mut self,
        record: Result<Record<'_>, ringway_ring::Corrupt>,
        frames: &mut Vec<Frame>,
        judge: Option<&mut Judge<'_>>,
    ) -> Result<Parsed, Closed> {
        let record = record.map_err(misbehaved)?;
        let (header, body) = record
            .bytes
            .split_first_chunk::<{ FrameHeader::LEN }>()
            .ok_or_else(|| Closed::PeerMisbehaved("a record is shorter than a header".into()))?;
        let header = FrameHeader::decode(header)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        if header.kind == FILLED {
            self.read_ahead(&header, body, record.block)?;
            return Ok(Parsed::Copied(0));
        }
        let head_len = header.head_len as usize;
        let inline_len = body.len().checked_sub(head_len);
        let beside_len = record.block.map(|block| block.len as usize);
        let payload_len = header.payload_len as usize;
        let payload = match (inline_len, record.block) {
            (Some(0), Some(block)) if beside_len == Some(payload_len) => {
                let wanted = match (payload_len > MAX_UNASKED_BYTES, judge) {
                    (false, _) => true,
                    (true, Some(judge)) => judge(&header, body)?,
                    (true, None) => return Ok(Parsed::HeldUp),
                };
                if wanted {
                    self.fetch(block)?
                } else {
                    self.leave(block)
                }
            }
            (None, Some(block))
                if body.is_empty() && beside_len == Some(payload_len + head_len) =>
            {
                let mut payload = self.fetch(block)?;
                let head = Head::Long(payload.split_off(payload_len));
                frames.push(Frame {
                    header,
                    head,
                    payload,
                });
                return Ok(Parsed::Copied(head_len + payload_len));
            }
            (Some(len), None) if len == payload_len => inline_payload(&body[head_len..]),
            _ => {
                return Err(Closed::PeerMisbehaved(
                    "a record's length differs from its header's".into(),
                ));
            }
        };
        frames.push(Frame {
            header,
            head: Head::copy(&body[..head_len]),
            payload,
        });
        Ok(Parsed::Copied(head_len + payload_len))
    }

    /// Gives back a block that nobody wants, unread.
    fn leave(&mut self, block: BlockRef) -> Bytes {
        self.ahead.take_if(|copy| copy.is_of(&block));
        self.arena.release(block);
        Bytes::new()
    }

    /// Copies what the peer has filled of a block so far.
    fn read_ahead(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
        beside: Option<BlockRef>,
    ) -> Result<(), Closed> {
        let block = body.try_into().ok().map(BlockRef::decode);
        let (Some(Ok(block)), None) = (block, beside) else {
            let what = "a note of what is filled does not name a block";
            return Err(Closed::PeerMisbehaved(what.into()));
        };
        if self.ahead_bytes > MAX_UNJUDGED_BYTES {
            return Ok(());
        }
        let mut copy = match self.ahead.take().filter(|copy| copy.is_of(&block)) {
            Some(copy) => copy,
            None => self.begin_copy(block)?,
        };
        self.ahead_bytes += copy.copy_to(header.message_len).map_err(misbehaved)?;
        self.ahead = Some(copy);
        self.ahead_rests = false;
        self.read_ahead = true;
        Ok(())
    }

    /// Drops what was copied of a block of which nothing has come since the last call: its sender gave it
    /// up, or will say it all with the frame.
    pub(crate) fn forget_given_up(&mut self) {
        if std::mem::replace(&mut self.ahead_rests, true) {
            self.ahead = None;
        }
    }

    fn fetch(&mut self, block: BlockRef) -> Result<Bytes, Closed> {
        let copy = match self.ahead.take_if(|copy| copy.is_of(&block)) {
            Some(copy) => copy,
            None => self.begin_copy(block)?,
        };
        let bytes = copy.finish(block.len).map_err(misbehaved)?;
        self.arena.release(block);
        self.fetched = true;
        Ok(bytes)
    }

    fn begin_copy(&mut self, block: BlockRef) -> Result<BlockCopy, Closed> {
        if !self.arena.has_segment(block.segment) {
            self.receive_segments(MAX_NOTES_UNTIL_SEGMENT)?;
        }
        self.arena.begin_copy(&self.pool, block).map_err(misbehaved)
    }

    /// Takes what the rendezvous socket holds: new segments, or its end. Returns true if it may hold more than
    /// the `max` notes that were taken.
    ///
    /// An honest peer hands a segment over before it publishes a record that refers to it, so
    /// whoever misses one finds it here.
    pub(crate) fn receive_segments(&mut self, max: usize) -> Result<bool, Closed> {
        for _ in 0..max {
            let mut note = [0; SEGMENT_NOTE_BYTES];
            let received =
                receive_with_descriptors(self.socket.as_fd(), &mut note, 1, Blocking::Never);
            let received = match received {
                Ok(received) if received.len == 0 => return Err(Closed::PeerGone),
                Ok(received) => received,
                Err(ringway_sys::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(false);
                }
                Err(error) => return Err(Closed::Io(error.to_string())),
            };
            self.add_segment(&note, received)?;
        }
        Ok(true)
    }

    fn add_segment(
        &mut self,
        note: &[u8; SEGMENT_NOTE_BYTES],
        mut received: ringway_sys::Received,
    ) -> Result<(), Closed> {
        let SegmentNote { id, len } = SegmentNote::decode(note);
        match (received.descriptors.pop(), len, received.len) {
            (Some(descriptor), _, SEGMENT_NOTE_BYTES) => self
                .arena
                .add_segment(id, len, descriptor)
                .map_err(|error| Closed::PeerMisbehaved(error.to_string())),
            (None, 0, SEGMENT_NOTE_BYTES) if self.arena.remove_segment(id) => Ok(()),
            _ => Err(Closed::PeerMisbehaved(
                "the rendezvous socket carried something else than a segment".into(),
            )),
        }
    }
}

/// A small payload with the count of its owners, in one allocation: a message of `bytes` fields takes
/// slices of it, for which plain `Bytes` would allocate the count separately.
struct Small {
    bytes: [u8; SMALL_BYTES],
    len: usize,
}

impl AsRef<[u8]> for Small {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn inline_payload(payload: &[u8]) -> Bytes {
    let len = payload.len();
    if len == 0 || len > SMALL_BYTES {
        return Bytes::copy_from_slice(payload);
    }
    let mut bytes = [0; SMALL_BYTES];
    bytes[..len].copy_from_slice(payload);
    Bytes::from_owner(Small { bytes, len })
}

fn misbehaved(corrupt: ringway_ring::Corrupt) -> Closed {
    Closed::PeerMisbehaved(corrupt.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::net::UnixStream;

    use ringway_ring::{Endpoint, EndpointConfig};

    use super::*;

    #[test]
    fn what_was_copied_of_a_message_that_does_not_come_is_given_back() {
        let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default()).unwrap();
        let socket = Arc::new(OwnedFd::from(UnixStream::pair().unwrap().0));
        let block = here.arena.allocate(100_000).unwrap();
        for segment in here.arena.new_segments() {
            let (id, len) = (segment.id, segment.len);
            let added = there.peer_arena.add_segment(id, len, segment.descriptor);
            added.unwrap();
        }
        let mut sender = Sender::new(here.producer);
        let mut receiver = Receiver {
            consumer: there.consumer,
            inbox: Inbox::default(),
            parsed: 0,
            arena: there.peer_arena,
            pool: there.pool,
            socket,
            doorbell: Arc::new(EventFd::new().unwrap()),
            ahead: None,
            ahead_bytes: 0,
            ahead_rests: true,
            read_ahead: false,
            fetched: false,
        };
        let mut frames = Vec::new();
        for filled in [40_000, 80_000] {
            sender.tell_filled(block.reference(), filled);
            receiver.receive(&mut frames, &mut |_, _| Ok(true)).unwrap();
            assert!(std::mem::take(&mut receiver.read_ahead));
            receiver.forget_given_up();
            assert!(receiver.ahead.is_some(), "more of it may come");
        }
        assert!(frames.is_empty());
        receiver.forget_given_up();
        receiver.pool.trim(Instant::now(), Duration::ZERO);
        assert!(receiver.pool.is_empty());
        // What comes after all is copied anew.
        sender.tell_filled(block.reference(), 90_000);
        receiver.receive(&mut frames, &mut |_, _| Ok(true)).unwrap();
        assert_eq!(receiver.fetch(block.reference()).unwrap().len(), 100_000);
    }
}
