//! The blocks of this side's arena, handed over with the segments that they lie in.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_ring::{Arena, BlockRef, BlockWriter};
use ringway_sys::NotInChildren;

use super::notes::{Notes, Unsent};
use super::{MAX_UNTOLD_BYTES, OUT_OF_DESCRIPTORS, Refusal, misbehaved};
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

/// No further segment is made for so long after the peer has refused one: each costs a memfd and its pages.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Pieces of one message that the peer may have before it gives one back.
const MAX_PIECES: usize = 4;

/// What the peer takes beyond plain notes of segments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerCan {
    /// Copy what is filled of a block before its frame comes.
    pub(crate) read_ahead: bool,
    /// Be told of segments that this side could not take.
    pub(crate) hear_refusals: bool,
}

/// The blocks for large payloads, with the socket over which their segments are handed over.
#[derive(Debug)]
pub(crate) struct Blocks {
    lent: Mutex<Lent>,
    /// Notes wait for the socket, or did when they were last looked at.
    has_notes: AtomicBool,
    /// Blocks have gone back, or notes have gone out, since a pass last had those that wait try again. Whoever takes
    /// note of a release may want none of it, so that it says so here.
    room_came: AtomicBool,
    /// Somebody waits for a block.
    awaited: AtomicBool,
    /// Before the socket, so that it is dropped first.
    _not_in_children: NotInChildren,
    socket: Arc<OwnedFd>,
    /// Whose block the peer is told of while it is filled, if the peer wants to be told.
    telling: Option<Arc<AtomicBool>>,
    /// The peer wants to know which of its segments this side could not take.
    tells_refusals: bool,
}

/// The arena, and what is still to be said of its segments.
#[derive(Debug)]
struct Lent {
    arena: Arena,
    notes: Notes,
    /// When the peer last refused a segment.
    refused_at: Option<Instant>,
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
    pub(crate) fn new(arena: Arena, socket: Arc<OwnedFd>, peer: PeerCan) -> Self {
        Self {
            lent: Mutex::new(Lent {
                arena,
                notes: Notes::default(),
                refused_at: None,
            }),
            has_notes: AtomicBool::new(false),
            room_came: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            _not_in_children: NotInChildren::note(&*socket),
            socket,
            telling: peer.read_ahead.then(Arc::default),
            tells_refusals: peer.hear_refusals,
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
        self.room_came.load(Ordering::SeqCst) || self.lent.lock().arena.may_have_room()
    }

    /// Notes that somebody waits for a block; true if one may be free after all.
    pub(crate) fn wait(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        self.lent.lock().arena.may_have_room()
    }

    /// Whether somebody waits who should try again.
    pub(crate) fn should_retry(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
            && (self.room_came.swap(false, Ordering::SeqCst) || self.may_have_room())
            && self.awaited.swap(false, Ordering::SeqCst)
    }

    /// Makes room for a piece of a message, unless those `under_way` are enough: more of them would be more memory,
    /// and would be no sooner at the peer.
    pub(crate) fn allocate_piece(
        &self,
        len_bytes: usize,
        under_way: &mut Vec<BlockRef>,
    ) -> Result<BlockWriter, SendError> {
        let mut lent = self.lent.lock();
        self.collect_releases(&mut lent.arena)?;
        under_way.retain(|block| lent.arena.is_in_use(block));
        if under_way.len() >= MAX_PIECES {
            return Err(SendError::Blocked(Lack::Memory));
        }
        self.allocate_in(&mut lent, len_bytes)
    }

    /// Makes room for so much.
    pub(crate) fn allocate(&self, len_bytes: usize) -> Result<BlockWriter, SendError> {
        let mut lent = self.lent.lock();
        self.collect_releases(&mut lent.arena)?;
        self.allocate_in(&mut lent, len_bytes)
    }

    /// Takes note of what has gone back.
    fn collect_releases(&self, arena: &mut Arena) -> Result<(), SendError> {
        if arena.may_have_room() {
            let collected = arena.collect_releases();
            self.room_came.store(true, Ordering::SeqCst);
            collected.map_err(|corrupt| SendError::Closed(misbehaved(corrupt)))?;
        }
        Ok(())
    }

    fn allocate_in(&self, lent: &mut Lent, len_bytes: usize) -> Result<BlockWriter, SendError> {
        let refused_lately = lent.refused_lately();
        let allocated = match refused_lately {
            true => lent.arena.allocate_there(len_bytes),
            false => lent.arena.allocate(len_bytes),
        };
        let block = match allocated {
            Ok(block) => block,
            Err(ringway_ring::ArenaError::NoSegment { .. }) => {
                return Err(SendError::Memory {
                    len_bytes,
                    reason: OUT_OF_DESCRIPTORS.into(),
                });
            }
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
        let unsent = match lent.hand_over(&self.socket) {
            Ok(()) => return Ok(block),
            Err(Unsent::Closed(why)) => return Err(SendError::Closed(why)),
            Err(unsent) => unsent,
        };
        self.has_notes.store(true, Ordering::SeqCst);
        if !lent.notes.concern(block.reference().segment) {
            return Ok(block);
        }
        // Taken back here, or it would seem to be room that has come.
        drop(block);
        let collected = lent.arena.collect_releases();
        let collected = collected.map_err(|corrupt| SendError::Closed(misbehaved(corrupt)))?;
        self.room_came.fetch_or(collected > 0, Ordering::SeqCst);
        Err(match unsent {
            Unsent::Refused(reason) => SendError::Memory { len_bytes, reason },
            _ => SendError::Blocked(Lack::Memory),
        })
    }

    /// Tells the peer of its segments that this side refuses, and sets aside those of this side's that the peer refuses.
    #[cold]
    pub(crate) fn note_refusals(&self, refusals: &[Refusal]) -> Result<(), Closed> {
        let mut lent = self.lent.lock();
        for refusal in refusals {
            match *refusal {
                Refusal::Here(id) if self.tells_refusals => lent.notes.refuse(id)?,
                Refusal::Here(_) => {}
                // It may be one that was dropped meanwhile.
                Refusal::There(id) => {
                    lent.arena.set_aside(id);
                    lent.refused_at = Some(Instant::now());
                }
            }
        }
        if let Err(Unsent::Closed(why)) = lent.hand_over(&self.socket) {
            return Err(why);
        }
        self.has_notes
            .fetch_or(!lent.notes.is_empty(), Ordering::SeqCst);
        // Senders that wait for memory are to learn that they wait in vain.
        self.room_came.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Gives back segments of which nothing was in use for `idle`; true if none is left.
    pub(crate) fn trim(&self, now: Instant, idle: Duration) -> Result<bool, Closed> {
        let mut lent = self.lent.lock();
        self.room_came
            .fetch_or(lent.arena.may_have_room(), Ordering::SeqCst);
        for id in lent.arena.trim(now, idle).map_err(misbehaved)? {
            lent.notes.retire(id);
        }
        match lent.hand_over(&self.socket) {
            Err(Unsent::Closed(why)) => return Err(why),
            Ok(()) | Err(Unsent::Full | Unsent::Refused(_)) => {}
        }
        self.has_notes
            .fetch_or(!lent.notes.is_empty(), Ordering::SeqCst);
        Ok(lent.arena.total_bytes() == 0 && lent.notes.is_empty())
    }

    /// What of all segments is in use. A block that the peer gave back counts until the next one is
    /// asked for, unless that is taken note of here.
    pub(crate) fn fill(&self) -> Fill {
        let arena = &mut self.lent.lock().arena;
        // What is wrong with them is found where it matters.
        let _ = self.collect_releases(arena);
        Fill::of(arena.used_bytes(), arena.total_bytes())
    }

    /// Tells the peer at once that nothing follows, whoever still holds the descriptor.
    pub(crate) fn hang_up(&self) {
        // It may have hung up first.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Sends notes that had to wait, if there are any; true if none is left. Whoever waits for memory is to try
    /// again then.
    pub(crate) fn send_notes(&self) -> Result<bool, Closed> {
        let mut lent = self.lent.lock();
        let sent = lent.notes.send(&self.socket);
        let all = lent.notes.is_empty();
        self.has_notes.store(!all, Ordering::SeqCst);
        self.room_came.fetch_or(all, Ordering::SeqCst);
        drop(lent);
        match sent {
            Err(Unsent::Closed(why)) => Err(why),
            Ok(()) | Err(Unsent::Full | Unsent::Refused(_)) => Ok(all),
        }
    }

    /// Returns true if notes wait for the socket.
    pub(crate) fn has_notes(&self) -> bool {
        self.has_notes.load(Ordering::SeqCst)
    }
}

impl Lent {
    /// Returns true if the peer can hardly take another segment yet.
    fn refused_lately(&mut self) -> bool {
        let refused = self.refused_at.filter(|at| at.elapsed() < REFUSAL_PAUSE);
        self.refused_at = refused;
        refused.is_some()
    }

    /// Sends the notes about new segments before any record refers to them.
    fn hand_over(&mut self, socket: &OwnedFd) -> Result<(), Unsent> {
        self.notes.collect(&mut self.arena);
        self.notes.send(socket)
    }
}

/// Bytes of a part: the fewer, the less of a message is copied by one side alone, and the more is told.
pub(crate) fn part_bytes(payload_len: usize) -> usize {
    (payload_len / 8).clamp(16 * 1024, MAX_UNTOLD_BYTES)
}

/// Whether a block holds a frame's head behind its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WithHead(pub(crate) bool);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use ringway_ring::{Endpoint, EndpointConfig};
    use ringway_sys::{Blocking, receive_with_descriptors};

    use super::*;
    use crate::link::shm::{SEGMENT_NOTE_BYTES, SegmentNote};

    /// Writes into the socket until it takes no more; says how much that was.
    fn fill(mut socket: &UnixStream) -> usize {
        socket.set_nonblocking(true).unwrap();
        let junk = [0; SEGMENT_NOTE_BYTES];
        std::iter::from_fn(|| socket.write(&junk).ok()).sum()
    }

    #[test]
    fn a_segment_whose_note_has_to_wait_is_kept_until_it_is_sent() {
        let (here, _there) = Endpoint::pair(&EndpointConfig::default()).unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let junk = fill(&socket);
        let blocks = Blocks::new(here.arena, Arc::new(socket.into()), PeerCan::default());
        for _ in 0..3 {
            let refused = blocks.allocate(100_000).unwrap_err();
            assert_eq!(refused, SendError::Blocked(Lack::Memory));
            assert!(!blocks.wait(), "no room has come");
            assert!(!blocks.send_notes().unwrap());
        }
        assert!(!blocks.should_retry());
        peer.read_exact(&mut vec![0; junk]).unwrap();
        assert!(blocks.send_notes().unwrap() && !blocks.has_notes());
        assert!(blocks.should_retry(), "who waits is told");
        let block = blocks.allocate(100_000).unwrap();
        // Once, though it was tried so often.
        let mut note = [0; SEGMENT_NOTE_BYTES];
        let mut receive = || receive_with_descriptors(peer.as_fd(), &mut note, 1, Blocking::Never);
        assert_eq!(receive().unwrap().descriptors.len(), 1);
        assert!(receive().is_err());
        assert_eq!(SegmentNote::decode(&note).id, block.reference().segment);
    }

    /// Whoever looks at the arena meanwhile, for another block or to trim it: the release is not to be seen any more.
    #[test]
    fn a_release_of_which_another_took_note_is_told_to_those_that_wait() {
        let (mut here, there) = Endpoint::pair(&EndpointConfig::default()).unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let blocks = Blocks::new(here.arena, Arc::new(socket.into()), PeerCan::default());
        let mut under_way = Vec::new();
        for take_note in [
            (|blocks| blocks.fill().used_bytes == 0) as fn(&Blocks) -> bool,
            |blocks| blocks.trim(Instant::now(), Duration::ZERO).is_ok(),
            |blocks| blocks.allocate(20_000).is_ok(),
        ] {
            while let Ok(block) = blocks.allocate_piece(20_000, &mut under_way) {
                let reference = block.reference();
                let record = here.producer.reserve_with_block(0, block);
                record.map_err(|(error, _)| error).unwrap().commit();
                under_way.push(reference);
            }
            assert!(!blocks.wait());
            blocks.should_retry();
            blocks.wait();
            assert!(!blocks.should_retry(), "nothing has gone back");
            under_way
                .iter()
                .for_each(|block| there.peer_arena.release(*block));
            assert!(take_note(&blocks));
            assert!(blocks.should_retry());
        }
    }
}
