//! The blocks of this side's arena, and the notes about its segments.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_ring::{Arena, BlockRef, BlockWriter, SegmentId};
use ringway_sys::{Blocking, send_with_descriptors};

use super::{MAX_UNTOLD_BYTES, SEGMENT_NOTE_BYTES, misbehaved};
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

/// Pieces of one message that the peer may have before it gives one back.
const MAX_PIECES: usize = 4;

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

    /// Makes room for a piece of a message, unless those `under_way` are enough: more of them would be more memory,
    /// and would be no sooner at the peer.
    pub(crate) fn allocate_piece(
        &self,
        len_bytes: usize,
        under_way: &mut Vec<BlockRef>,
    ) -> Result<BlockWriter, SendError> {
        let mut arena = self.arena.lock();
        collect_releases(&mut arena)?;
        under_way.retain(|block| arena.is_in_use(block));
        if under_way.len() >= MAX_PIECES {
            return Err(SendError::Blocked(Lack::Memory));
        }
        self.allocate_in(&mut arena, len_bytes)
    }

    /// Makes room for so much.
    pub(crate) fn allocate(&self, len_bytes: usize) -> Result<BlockWriter, SendError> {
        let mut arena = self.arena.lock();
        collect_releases(&mut arena)?;
        self.allocate_in(&mut arena, len_bytes)
    }

    fn allocate_in(&self, arena: &mut Arena, len_bytes: usize) -> Result<BlockWriter, SendError> {
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
        self.hand_over_segments(arena)?;
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

fn collect_releases(arena: &mut Arena) -> Result<(), SendError> {
    if arena.may_have_room() {
        arena
            .collect_releases()
            .map_err(|corrupt| SendError::Closed(misbehaved(corrupt)))?;
    }
    Ok(())
}

/// Bytes of a part: the fewer, the less of a message is copied by one side alone, and the more is told.
pub(crate) fn part_bytes(payload_len: usize) -> usize {
    (payload_len / 8).clamp(16 * 1024, MAX_UNTOLD_BYTES)
}

/// Whether a block holds a frame's head behind its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WithHead(pub(crate) bool);
