//! The sender's arena: blocks for payloads too large for the ring, in segments that come and go.
//!
//! - [`space`]: which ranges are free; no memory is touched there
//! - [`block`]: a block being written, and the states that its writer and the arena share
//! - [`filling`]: telling how far that is

mod block;
mod filling;
mod space;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{block::BlockWriter, filling::Filling};
use self::{
    block::{BlockTable, State},
    space::{Extent, Space},
};
use crate::{
    ArenaError, BlockRef, Corrupt, MemoryBudget, RegionError, SegmentId, mapping::Mapping,
    poison::Poison, record::split_release_entry, release::ReleaseReader, sealed,
};

/// Sizes of the arena that this side creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Bytes of a segment; a block that needs more gets one of its own size.
    pub segment_bytes: usize,
    /// Largest block. What is larger has to travel in pieces.
    pub max_block_bytes: usize,
    /// Most bytes that all segments may have together.
    pub max_total_bytes: usize,
}

impl Default for ArenaConfig {
    /// Segments of 2 MiB (a huge page), blocks to 16 MiB, 64 MiB in all.
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            segment_bytes: 2 * MIB,
            max_block_bytes: 16 * MIB,
            max_total_bytes: 64 * MIB,
        }
    }
}

/// A segment that the peer must receive before a record refers to it.
#[derive(Debug)]
pub struct NewSegment {
    /// Its id.
    pub id: SegmentId,
    /// Its length, which the peer compares with the file's.
    pub len: usize,
    /// The sealed memfd.
    pub descriptor: OwnedFd,
}

/// Allocates blocks in memory that this side alone writes, and takes back what the peer releases.
///
/// ```
/// # use ringway_ring::{Endpoint, EndpointConfig};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut here, _there) = Endpoint::pair(&EndpointConfig::default())?;
/// let mut block = here.arena.allocate(100_000)?;
/// block.as_mut_slice().fill(7);
/// for segment in here.arena.new_segments() {
///     // Send segment.id, segment.len and segment.descriptor to the peer.
/// }
/// here.producer.reserve_with_block(0, block).map_err(|(error, _)| error)?.commit();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Arena {
    config: ArenaConfig,
    budget: Option<Arc<MemoryBudget>>,
    poison: Poison,
    releases: ReleaseReader,
    space: Space,
    /// Before the mappings, so that these files are closed when the memory goes.
    unsent: Vec<NewSegment>,
    mappings: Vec<(SegmentId, Arc<Mapping>)>,
    table: Arc<BlockTable>,
    /// Per slot of the table: what it stands for. Private, so a release is judged by this alone.
    blocks: Vec<Slot>,
    free_slots: Vec<u32>,
    next_segment: u32,
    total_bytes: usize,
    retired: Vec<SegmentId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    generation: u32,
    extent: Extent,
}

impl Arena {
    pub(crate) fn new(
        config: ArenaConfig,
        releases: ReleaseReader,
        poison: Poison,
        budget: Option<Arc<MemoryBudget>>,
    ) -> Self {
        // One slot for each entry of the peer's release list: then that list can never overflow.
        let slots = releases.slots();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a release list has at most 65,536 slots"
        )]
        let free_slots = (0..slots as u32).rev().collect();
        Self {
            config,
            budget,
            poison,
            releases,
            space: Space::default(),
            unsent: Vec::new(),
            mappings: Vec::new(),
            table: Arc::new(BlockTable::new(slots)),
            blocks: vec![Slot::default(); slots],
            free_slots,
            next_segment: 0,
            total_bytes: 0,
            retired: Vec::new(),
        }
    }

    /// A block of `len` bytes that is nobody else's until its record is committed.
    ///
    /// The block used last comes first: it is still in the cache. Its bytes are whatever they were.
    ///
    /// # Errors
    /// `Exhausted` until the peer releases something; `TooLarge` for ever; `Memory` if the kernel
    /// or the budget refuses another segment.
    pub fn allocate(&mut self, len: usize) -> Result<BlockWriter, ArenaError> {
        self.allocate_with(len, Self::allocate_in_new_segment)
    }

    /// Allocates a block in a segment that is there, for a peer that can't take another segment now.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate); `NoSegment` if none of them has so much room.
    pub fn allocate_there(&mut self, len: usize) -> Result<BlockWriter, ArenaError> {
        self.allocate_with(len, |arena, len| {
            Err(if arena.space.may_fit(len) {
                ArenaError::Exhausted
            } else {
                ArenaError::NoSegment { len }
            })
        })
    }

    fn allocate_with(
        &mut self,
        len: usize,
        elsewhere: impl FnOnce(&mut Self, usize) -> Result<Extent, ArenaError>,
    ) -> Result<BlockWriter, ArenaError> {
        let max = self.config.max_block_bytes;
        if len > max || u32::try_from(len).is_err() {
            return Err(ArenaError::TooLarge { len, max });
        }
        self.collect_releases()?;
        if self.free_slots.is_empty() {
            return Err(ArenaError::Exhausted);
        }
        let extent = match self.space.allocate(len) {
            Some(extent) => extent,
            None => elsewhere(self, len)?,
        };
        let index = self.free_slots.pop().ok_or(ArenaError::Exhausted)?;
        Ok(self.writer(index, extent, len))
    }

    /// Takes back what the peer has released since the last time. [`allocate`](Self::allocate) does
    /// so by itself.
    ///
    /// # Errors
    /// If the peer releases what it was not lent, or twice.
    pub fn collect_releases(&mut self) -> Result<usize, Corrupt> {
        self.poison.check()?;
        for index in self.table.take_returned() {
            self.free(index);
        }
        let Self {
            releases,
            table,
            blocks,
            space,
            free_slots,
            ..
        } = self;
        let read = releases.read(|entry| {
            let index = accept_release(table, blocks, entry)?;
            free_slot(table, blocks, space, free_slots, index);
            Ok(())
        });
        self.poison.guard(read)
    }

    /// Whether a block that could not be allocated may have become free.
    pub fn may_have_room(&self) -> bool {
        self.has_releases() || self.table.any_returned()
    }

    /// Whether the peer has released something: one load, for whoever waits for memory.
    pub fn has_releases(&self) -> bool {
        self.releases.has_releases()
    }

    /// Segments that the peer does not have yet. Send them after [`retired_segments`].
    ///
    /// [`retired_segments`]: Self::retired_segments
    pub fn new_segments(&mut self) -> Vec<NewSegment> {
        std::mem::take(&mut self.unsent)
    }

    /// Segments dropped since the last time, which the peer should drop as well.
    pub fn retired_segments(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.retired)
    }

    /// Gives out nothing more of a segment that the peer could not take, and drops it once nothing of it is in use;
    /// false if there is no such segment.
    pub fn set_aside(&mut self, id: SegmentId) -> bool {
        let known = self.space.set_aside(id);
        let dropped = self.space.take_aside();
        self.retire(dropped);
        known
    }

    /// Drops segments of which nothing was in use for `idle`, as seen by calls of this method, and
    /// gives back what the peer should drop as well.
    ///
    /// # Errors
    /// As for [`collect_releases`](Self::collect_releases).
    pub fn trim(&mut self, now: Instant, idle: Duration) -> Result<Vec<SegmentId>, Corrupt> {
        self.collect_releases()?;
        let segments = self.space.take_idle(now, idle);
        self.retire(segments);
        Ok(self.retired_segments())
    }

    /// Whether a block is still being written, or lent to the peer and not seen to be released.
    pub fn is_in_use(&self, block: &BlockRef) -> bool {
        let slot = self.blocks.get(block.index as usize);
        slot.is_some_and(|slot| slot.generation == block.generation)
    }

    /// Bytes of all segments.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Bytes of the blocks that are being written or lent to the peer, in whole granules.
    pub fn used_bytes(&self) -> usize {
        self.space.used_bytes()
    }

    /// Blocks being written or lent to the peer.
    pub fn blocks_in_use(&self) -> usize {
        self.blocks.len() - self.free_slots.len()
    }

    fn allocate_in_new_segment(&mut self, len: usize) -> Result<Extent, ArenaError> {
        let bytes = space::granules(len.max(self.config.segment_bytes));
        if self.total_bytes + bytes > self.config.max_total_bytes {
            // Segments that are wholly free, but too small, stand in the way.
            let free = self.space.take_free();
            self.retire(free);
        }
        if self.total_bytes + bytes > self.config.max_total_bytes {
            return Err(ArenaError::Exhausted);
        }
        self.add_segment(bytes).map_err(|error| match error {
            // What is there serves as well, once it is given back.
            RegionError::OverBudget { .. } | RegionError::OverWholeBudget { .. }
                if self.space.may_fit(len) =>
            {
                ArenaError::Exhausted
            }
            error => ArenaError::Memory(error),
        })?;
        self.space.allocate(len).ok_or(ArenaError::Exhausted)
    }

    fn add_segment(&mut self, bytes: usize) -> Result<(), RegionError> {
        let too_large = RegionError::TooLarge {
            bytes: bytes as u64,
            limit: u64::from(u32::MAX),
        };
        let len = u32::try_from(bytes).map_err(|_| too_large)?;
        let (mapping, descriptor) =
            sealed::create("ringway-segment", bytes, false, self.budget.as_ref())?;
        let id = SegmentId(self.next_segment);
        // A connection that went through 2^32 segments would reuse an id long since retired.
        self.next_segment = self.next_segment.wrapping_add(1);
        self.total_bytes += bytes;
        self.space.add_segment(id, len);
        self.mappings.push((id, Arc::new(mapping)));
        self.unsent.push(NewSegment {
            id,
            len: bytes,
            descriptor,
        });
        Ok(())
    }

    /// Forgets segments; their memory goes with the last writer that still refers to it (none does).
    fn retire(&mut self, segments: Vec<SegmentId>) {
        for id in segments {
            let unsent = self.unsent.len();
            self.unsent.retain(|segment| segment.id != id);
            if self.unsent.len() == unsent {
                self.retired.push(id);
            }
            if let Some(at) = self.mappings.iter().position(|(mapped, _)| *mapped == id) {
                let (_, mapping) = self.mappings.swap_remove(at);
                self.total_bytes -= mapping.len();
            }
        }
    }

    fn writer(&mut self, index: u32, extent: Extent, len: usize) -> BlockWriter {
        let slot = &mut self.blocks[index as usize];
        slot.extent = extent;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`allocate` checked that it fits"
        )]
        let reference = BlockRef {
            segment: extent.segment,
            offset: extent.offset,
            len: len as u32,
            index,
            generation: slot.generation,
        };
        let mapping = self.mappings.iter().find(|(id, _)| *id == extent.segment);
        let (_, mapping) = mapping.expect("an extent's segment is mapped until nothing is in use");
        // SAFETY: the extent was free and is now this slot's alone: `space` gives no byte out twice,
        // and takes it back only when this writer is gone and the peer has released it.
        unsafe { BlockWriter::new(reference, Arc::clone(mapping), Arc::clone(&self.table)) }
    }

    fn free(&mut self, index: u32) {
        let Self {
            table,
            blocks,
            space,
            free_slots,
            ..
        } = self;
        free_slot(table, blocks, space, free_slots, index);
    }
}

/// The slot that a release entry frees, if the peer may release it.
fn accept_release(table: &BlockTable, blocks: &[Slot], entry: u64) -> Result<u32, Corrupt> {
    let (index, generation) = split_release_entry(entry);
    let Some(slot) = blocks.get(index as usize) else {
        return Err(Corrupt::ReleaseUnknownBlock {
            index,
            slots: blocks.len(),
        });
    };
    if slot.generation != generation {
        return Err(Corrupt::ReleaseStale { index, generation });
    }
    match table.state(index) {
        State::Lent => Ok(index),
        State::Free | State::Writing => Err(Corrupt::ReleaseNotLent { index }),
    }
}

fn free_slot(
    table: &BlockTable,
    blocks: &mut [Slot],
    space: &mut Space,
    free_slots: &mut Vec<u32>,
    index: u32,
) {
    let slot = &mut blocks[index as usize];
    // A second release of the same lending finds another generation.
    slot.generation = slot.generation.wrapping_add(1);
    table.set(index, State::Free);
    space.free(slot.extent);
    free_slots.push(index);
}
