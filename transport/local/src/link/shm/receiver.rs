//! The receiving half.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use ringway_ring::failpoint::{self, Step};
use ringway_ring::{
    BlockCopy, BlockRef, BufferPool, Consumer, Inbox, PeerArena, Record, RegionError, SegmentId,
};
use ringway_sys::{Blocking, receive_or_refuse};
use ringway_wire::FrameHeader;

use super::peer_bell::PeerBell;
use super::{FILLED, REFUSED_LEN, Refusal, SEGMENT_NOTE_BYTES, SegmentNote, misbehaved};
use crate::error::Closed;
use crate::link::{Frame, Head, Judge, Limits};

/// Bytes that are copied of blocks ahead of their frames for the notes of one inbox: those of one message.
const MAX_AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// Notes of segments that a pass takes, each of them a mapping made or dropped: a peer that sends them without end
/// keeps no other connection waiting.
pub(crate) const MAX_NOTES: usize = 32;
/// Notes that are taken for a record that names a segment that is not there yet: more than a socket holds.
const MAX_NOTES_UNTIL_SEGMENT: usize = 1024;
/// A payload longer than this is copied only if the core wants it: what it would not take is not worth the
/// memory.
const MAX_UNASKED_BYTES: usize = 512 * 1024;
/// Says of a message why its memory could not be taken.
pub(crate) const OUT_OF_DESCRIPTORS: &str = "the receiving process has no file descriptor left for the memory in which \
    this message came: raise its RLIMIT_NOFILE (ulimit -n) or have it open less, and send the message again";
/// Payloads up to this length share one allocation with the count of their owners.
const SMALL_BYTES: usize = 128;

/// What a record came to.
enum Parsed {
    /// So many bytes were copied.
    Copied(usize),
    /// Nothing was copied: frames before the record are still to be handled, or the note of its segment lies behind
    /// others, which the next receive takes.
    HeldUp,
}

/// Says if a segment that a record names can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// It is there; or it never comes, which the read of its block finds out.
    Known,
    /// This process could not take it: the bytes of its blocks are lost.
    Refused,
    /// Its note may come behind others.
    Sought,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) consumer: Consumer,
    pub(crate) inbox: Inbox,
    /// The record of the inbox with which the next receive goes on, if not all were parsed.
    pub(crate) parsed: Option<usize>,
    /// Notes that the receive under way may still take.
    pub(crate) notes_left: usize,
    /// Notes that were taken for the record that is parsed, and were not of its segment.
    pub(crate) sought: usize,
    pub(crate) arena: PeerArena,
    pub(crate) pool: BufferPool,
    pub(crate) socket: Arc<OwnedFd>,
    /// The peer's doorbell, rung when it waits for room.
    pub(crate) doorbell: Arc<PeerBell>,
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
    /// Segments that were refused, here or there, of which the sending half is still to be told.
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) limits: Limits,
}

impl Receiver {
    /// Asks to be called again, once these frames are judged, by [`Self::has_more`].
    pub(crate) fn receive(
        &mut self,
        frames: &mut Vec<Frame>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Closed> {
        let handled = frames.len();
        self.notes_left = self.limits.notes;
        let begin = self.parsed.take();
        if begin.is_none() {
            self.ahead_bytes = 0;
            let taken = self.consumer.take(&mut self.inbox).map_err(misbehaved)?;
            if taken == 0 {
                return Ok(());
            }
        }
        let begin = begin.unwrap_or(0);
        let inbox = std::mem::take(&mut self.inbox);
        let mut copied = 0;
        let mut records = inbox.records().enumerate().skip(begin);
        let parsed = records.try_for_each(|(at, record)| {
            if copied > self.limits.unjudged_bytes || at - begin >= self.limits.frames {
                self.parsed = Some(at);
                return ControlFlow::Break(Ok(()));
            }
            let is_first = frames.len() == handled;
            match self.frame(record, frames, is_first.then_some(&mut *judge)) {
                Ok(Parsed::Copied(bytes)) => {
                    copied += bytes;
                    ControlFlow::Continue(())
                }
                Ok(Parsed::HeldUp) => {
                    self.parsed = Some(at);
                    ControlFlow::Break(Ok(()))
                }
                Err(why) => ControlFlow::Break(Err(why)),
            }
        });
        let parsed = parsed.break_value().unwrap_or(Ok(()));
        self.inbox = inbox;
        if self.consumer.peer_waits_for_room() {
            failpoint::reached(Step::Released);
            if self.doorbell.ring().is_err() {
                return Err(Closed::PeerGone);
            }
        }
        parsed
    }

    /// Whether there is more to receive once what came is judged.
    pub(crate) fn has_more(&self) -> bool {
        self.parsed.is_some()
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
            return self.read_ahead(&header, body, record.block);
        }
        let named = match record.block {
            Some(block) => self.seek(block.segment)?,
            None => Named::Known,
        };
        let is_too_long = |block: BlockRef| block.len as usize > self.limits.block_bytes;
        if named == Named::Sought || record.block.is_some_and(is_too_long) {
            return Ok(Parsed::HeldUp);
        }
        let head_len = header.head_len as usize;
        let inline_len = body.len().checked_sub(head_len);
        let beside_len = record.block.map(|block| block.len as usize);
        let payload_len = header.payload_len as usize;
        let payload = match (inline_len, record.block) {
            (Some(0), Some(block))
                if beside_len == Some(payload_len) && named == Named::Refused =>
            {
                self.leave(block);
                let head = Head::copy(body);
                frames.push(Frame {
                    header,
                    head,
                    payload: Bytes::new(),
                    is_lost: true,
                });
                return Ok(Parsed::Copied(head_len));
            }
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
                if named == Named::Refused {
                    // The head says what the frame is: without it no later one can be understood.
                    return Err(Closed::Io(OUT_OF_DESCRIPTORS.into()));
                }
                let mut payload = self.fetch(block)?;
                let head = Head::Long(payload.split_off(payload_len));
                frames.push(Frame {
                    header,
                    head,
                    payload,
                    is_lost: false,
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
            is_lost: false,
        });
        Ok(Parsed::Copied(head_len + payload_len))
    }

    /// Takes notes until the segment is known. An honest peer hands it over before it publishes a record that refers to
    /// it; a hostile one may send other notes before it, and meanwhile, so no receive takes more of them than a pass
    /// does.
    fn seek(&mut self, segment: SegmentId) -> Result<Named, Closed> {
        let named = loop {
            if self.arena.has_segment(segment) {
                break Named::Known;
            }
            if self.arena.is_refused(segment) {
                break Named::Refused;
            }
            if self.sought == MAX_NOTES_UNTIL_SEGMENT {
                break Named::Known;
            }
            if self.notes_left == 0 {
                return Ok(Named::Sought);
            }
            if !self.receive_segments(1)? {
                break Named::Known;
            }
            self.notes_left -= 1;
            self.sought += 1;
        };
        self.sought = 0;
        Ok(named)
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
    ) -> Result<Parsed, Closed> {
        let block = body.try_into().ok().map(BlockRef::decode);
        let (Some(Ok(block)), None) = (block, beside) else {
            let what = "a note of what is filled does not name a block";
            return Err(Closed::PeerMisbehaved(what.into()));
        };
        if self.ahead_bytes > MAX_AHEAD_BYTES {
            return Ok(Parsed::Copied(0));
        }
        if block.len as usize > self.limits.block_bytes {
            return Ok(Parsed::HeldUp);
        }
        match self.seek(block.segment)? {
            Named::Known => {}
            Named::Refused => return Ok(Parsed::Copied(0)),
            Named::Sought => return Ok(Parsed::HeldUp),
        }
        let mut copy = match self.ahead.take().filter(|copy| copy.is_of(&block)) {
            Some(copy) => copy,
            None => self.begin_copy(block)?,
        };
        self.ahead_bytes += copy.copy_to(header.message_len).map_err(misbehaved)?;
        self.ahead = Some(copy);
        self.ahead_rests = false;
        self.read_ahead = true;
        Ok(Parsed::Copied(0))
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

    /// The block's segment was asked for before.
    fn begin_copy(&mut self, block: BlockRef) -> Result<BlockCopy, Closed> {
        self.arena.begin_copy(&self.pool, block).map_err(misbehaved)
    }

    /// Takes what the rendezvous socket holds: new segments, or its end. Returns true if it may hold more than
    /// the `max` notes that were taken.
    pub(crate) fn receive_segments(&mut self, max: usize) -> Result<bool, Closed> {
        for _ in 0..max {
            let mut note = [0; SEGMENT_NOTE_BYTES];
            let received = receive_or_refuse(self.socket.as_fd(), &mut note, 1, Blocking::Never);
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

    /// The peer is told, and sends by other segments; of a message that is under way in this one its call ends.
    fn refuse(&mut self, id: SegmentId) -> Result<(), Closed> {
        self.refusals.push(Refusal::Here(id));
        self.arena.refuse_segment(id).map_err(misbehaved_with)
    }

    fn add_segment(
        &mut self,
        note: &[u8; SEGMENT_NOTE_BYTES],
        mut received: ringway_sys::Received,
    ) -> Result<(), Closed> {
        let SegmentNote { id, len } = SegmentNote::decode(note);
        match (received.descriptors.pop(), len, received.len) {
            (None, _, SEGMENT_NOTE_BYTES) if received.out_of_descriptors => self.refuse(id),
            (Some(descriptor), _, SEGMENT_NOTE_BYTES) => {
                match self.arena.add_segment(id, len, descriptor) {
                    // This process has no mapping, or no room for one, left.
                    Err(RegionError::Map { .. }) => self.refuse(id),
                    added => added.map_err(misbehaved_with),
                }
            }
            (None, len, SEGMENT_NOTE_BYTES) if len as u64 == REFUSED_LEN => {
                self.refusals.push(Refusal::There(id));
                Ok(())
            }
            (None, 0, SEGMENT_NOTE_BYTES) if self.arena.remove_segment(id) => Ok(()),
            _ => Err(Closed::PeerMisbehaved(
                "the rendezvous socket carried something else than a segment".into(),
            )),
        }
    }
}

fn misbehaved_with(error: RegionError) -> Closed {
    Closed::PeerMisbehaved(error.to_string())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use ringway_ring::{BlockWriter, Endpoint, EndpointConfig};
    use ringway_wire::{Flags, Kind};

    use super::*;
    use crate::link::shm::Sender;

    /// Joins a sending and a receiving half. The receiver has the segments of the blocks that are returned.
    fn halves(payloads: usize, len: usize) -> (Sender, Receiver, Vec<BlockWriter>) {
        let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default()).unwrap();
        let socket = Arc::new(OwnedFd::from(UnixStream::pair().unwrap().0));
        let blocks = (0..payloads).map(|_| here.arena.allocate(len).unwrap());
        let blocks = blocks.collect();
        for segment in here.arena.new_segments() {
            let (id, len) = (segment.id, segment.len);
            let added = there.peer_arena.add_segment(id, len, segment.descriptor);
            added.unwrap();
        }
        let receiver = Receiver {
            consumer: there.consumer,
            inbox: Inbox::default(),
            parsed: None,
            notes_left: 0,
            sought: 0,
            arena: there.peer_arena,
            pool: there.pool,
            socket,
            doorbell: Arc::new(PeerBell::new(ringway_sys::EventFd::new().unwrap())),
            ahead: None,
            ahead_bytes: 0,
            ahead_rests: true,
            read_ahead: false,
            fetched: false,
            refusals: Vec::new(),
            limits: Limits::USUAL,
        };
        (Sender::new(here.producer), receiver, blocks)
    }

    /// The core charges payloads when it judges them: until then nothing but this bound limits their memory.
    #[test]
    fn what_was_copied_is_judged_before_more_is() {
        const LEN: u32 = 500_000;
        let (mut sender, mut receiver, blocks) = halves(8, LEN as usize);
        for block in blocks {
            let header = FrameHeader {
                call: 1 << 32,
                flags: Flags::HAS_MESSAGE,
                payload_len: LEN,
                message_len: LEN,
                ..FrameHeader::new(Kind::Message)
            };
            let place = sender.producer.reserve_with_block(FrameHeader::LEN, block);
            let mut record = place.unwrap();
            record.copy_from_slice(&header.encode());
            record.commit();
        }
        let at_once = Limits::USUAL.unjudged_bytes / LEN as usize + 1;
        for taken in [at_once, at_once, 8 - 2 * at_once] {
            let mut frames = Vec::new();
            receiver.receive(&mut frames, &mut |_, _| Ok(true)).unwrap();
            assert_eq!(frames.len(), taken);
        }
    }

    #[test]
    fn what_was_copied_of_a_message_that_does_not_come_is_given_back() {
        let (mut sender, mut receiver, blocks) = halves(1, 100_000);
        let block = &blocks[0];
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
