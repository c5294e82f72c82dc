//! The receiver's view of the peer's arena: segments mapped read-only, blocks copied out once.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    BlockRef, BufferPool, Corrupt, PooledBuffer, RegionError, SegmentId,
    copy::Way,
    mapping::Mapping,
    poison::Poison,
    release::ReleaseList,
    sealed::{self, FileId},
};

/// What this side accepts of the peer's arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Largest segment.
    pub max_segment_bytes: usize,
    /// Most bytes of all segments together.
    pub max_total_bytes: usize,
    /// Most segments.
    pub max_segments: usize,
}

impl Default for SegmentLimits {
    /// What [`ArenaConfig`](crate::ArenaConfig)'s default needs.
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_segment_bytes: 16 * MIB,
            max_total_bytes: 64 * MIB,
            max_segments: 64,
        }
    }
}

/// Reads the blocks that the peer lends, and gives them back.
///
/// ```
/// # use ringway_ring::{Endpoint, EndpointConfig, Inbox};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default())?;
/// # let mut block = there.arena.allocate(100_000)?;
/// # block.as_mut_slice().fill(7);
/// # let segments = there.arena.new_segments();
/// # there.producer.reserve_with_block(0, block).map_err(|(error, _)| error)?.commit();
/// for segment in segments {
///     here.peer_arena.add_segment(segment.id, segment.len, segment.descriptor)?;
/// }
/// let mut inbox = Inbox::default();
/// here.consumer.take(&mut inbox)?;
/// for record in inbox.records() {
///     if let Some(reference) = record?.block {
///         let block = here.peer_arena.block(reference)?; // no lock is needed from here on
///         let payload = block.copy_to_bytes(&here.pool);
///         drop(block); // gives it back to the peer
///         assert_eq!(payload, vec![7; 100_000]);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PeerArena {
    limits: SegmentLimits,
    poison: Poison,
    releases: ReleaseList,
    segments: HashMap<SegmentId, Segment>,
    /// Segments that this process could not take.
    refused: HashSet<SegmentId>,
    total_bytes: usize,
}

/// A segment that is mapped, and the file behind it.
#[derive(Debug)]
struct Segment {
    mapping: Arc<Mapping>,
    file: FileId,
}

impl PeerArena {
    pub(crate) fn new(limits: SegmentLimits, releases: ReleaseList, poison: Poison) -> Self {
        Self {
            limits,
            poison,
            releases,
            segments: HashMap::new(),
            refused: HashSet::new(),
            total_bytes: 0,
        }
    }

    /// Checks and maps a segment that the peer sent, which it claims to be `len` bytes long.
    ///
    /// # Errors
    /// Anything but a sealed, fully allocated memfd of that length, within the limits, with a new id. A memfd
    /// is mapped once: under many ids it would use up this process's mappings at no cost of its owner's.
    pub fn add_segment(
        &mut self,
        id: SegmentId,
        len: usize,
        descriptor: OwnedFd,
    ) -> Result<(), RegionError> {
        self.check_new(id)?;
        let (bytes, file) = sealed::inspect(&descriptor, self.limits.max_segment_bytes)?;
        let known = self.segments.iter().find(|(_, known)| known.file == file);
        if let Some((id, _)) = known {
            return Err(RegionError::SegmentInUse(*id));
        }
        if bytes != len {
            return Err(RegionError::SizeMismatch {
                bytes: bytes as u64,
                claimed: len as u64,
            });
        }
        // No overflow: both are at most a limit, which was given as a number of mappable bytes.
        let total = self.total_bytes.saturating_add(bytes);
        if total > self.limits.max_total_bytes {
            return Err(RegionError::TooManyBytes {
                bytes: total as u64,
                limit: self.limits.max_total_bytes as u64,
            });
        }
        let mapping = Mapping::read_only(&descriptor, bytes, false)?;
        let mapping = Arc::new(mapping);
        self.segments.insert(id, Segment { mapping, file });
        self.total_bytes = total;
        Ok(())
    }

    /// Notes a segment that this process could not take. Its blocks can't be read, but can be
    /// [given back](Self::release), until the peer drops it.
    ///
    /// # Errors
    /// An id that is in use, or more segments than the limit.
    pub fn refuse_segment(&mut self, id: SegmentId) -> Result<(), RegionError> {
        self.check_new(id)?;
        self.refused.insert(id);
        Ok(())
    }

    /// Returns true if the segment was refused, and its peer has not dropped it since.
    pub fn is_refused(&self, id: SegmentId) -> bool {
        self.refused.contains(&id)
    }

    fn check_new(&self, id: SegmentId) -> Result<(), RegionError> {
        if self.segments.contains_key(&id) || self.is_refused(id) {
            return Err(RegionError::SegmentInUse(id));
        }
        let limit = self.limits.max_segments;
        if self.segments.len() + self.refused.len() >= limit {
            return Err(RegionError::TooManySegments { limit });
        }
        Ok(())
    }

    /// Forgets a segment that the peer has dropped; says whether it was there. Blocks that are still
    /// held keep its memory.
    pub fn remove_segment(&mut self, id: SegmentId) -> bool {
        if self.refused.remove(&id) {
            return true;
        }
        let Some(removed) = self.segments.remove(&id) else {
            return false;
        };
        self.total_bytes -= removed.mapping.len();
        true
    }

    /// Whether a block of this segment can be read. A record may arrive before its segment.
    pub fn has_segment(&self, id: SegmentId) -> bool {
        self.segments.contains_key(&id)
    }

    /// A hold on a block, which gives it back when it drops. Needs this arena no longer.
    ///
    /// Call it once per record: a block given back twice ends the connection at the peer's side.
    ///
    /// # Errors
    /// If the segment is unknown or the block leaves it.
    pub fn block(&self, reference: BlockRef) -> Result<Block, Corrupt> {
        let mapping = Arc::clone(self.checked(&reference)?);
        Ok(Block {
            mapping,
            reference,
            releases: self.releases.clone(),
        })
    }

    /// Begins to copy a block that its writer may still be filling; the block stays lent, if it is.
    ///
    /// # Errors
    /// As for [`block`](Self::block).
    pub fn begin_copy(&self, pool: &BufferPool, reference: BlockRef) -> Result<BlockCopy, Corrupt> {
        // Checked before any room is made for it: the length is the peer's claim.
        let mapping = Arc::clone(self.checked(&reference)?);
        Ok(BlockCopy {
            mapping,
            poison: self.poison.clone(),
            reference,
            buffer: pool.buffer(reference.len as usize),
        })
    }

    /// Gives a block back that was copied by reference.
    pub fn release(&self, reference: BlockRef) {
        self.releases.push(reference.release_entry());
    }

    fn checked(&self, reference: &BlockRef) -> Result<&Arc<Mapping>, Corrupt> {
        self.poison.check()?;
        let segment = reference.segment;
        // Not poisoned by a missing segment: the caller may want to wait for it.
        let mapping = self
            .segments
            .get(&segment)
            .map(|segment| &segment.mapping)
            .ok_or(Corrupt::BlockSegmentUnknown { segment })?;
        let end = u64::from(reference.offset) + u64::from(reference.len);
        if end > mapping.len() as u64 {
            let (offset, len, segment_bytes) = (reference.offset, reference.len, mapping.len());
            return Err(self.poison.set(Corrupt::BlockOutOfRange {
                segment,
                offset,
                len,
                segment_bytes,
            }));
        }
        Ok(mapping)
    }
}

/// The copy of a block that grows as the block does: each of its bytes is read once, when the peer has
/// said that it is there.
#[derive(Debug)]
pub struct BlockCopy {
    mapping: Arc<Mapping>,
    poison: Poison,
    reference: BlockRef,
    buffer: PooledBuffer,
}

impl BlockCopy {
    /// Whether `reference` is the lending that is copied here.
    pub fn is_of(&self, reference: &BlockRef) -> bool {
        self.reference.is_same_lending(reference)
    }

    /// Copies on, up to the block's first `filled` bytes; gives back how many more these are.
    ///
    /// # Errors
    /// If that is less than before, or more than the block has.
    pub fn copy_to(&mut self, filled: u32) -> Result<usize, Corrupt> {
        self.poison.check()?;
        let (copied, len) = (self.buffer.len(), self.reference.len);
        let Some(more) = (filled as usize)
            .checked_sub(copied)
            .filter(|_| filled <= len)
        else {
            return Err(self.poison.set(Corrupt::BlockFilling {
                filled,
                copied,
                len,
            }));
        };
        let start = self.reference.offset as usize + copied;
        let way = Way::of_block(len as usize);
        self.mapping.append_to(start, more, &mut self.buffer, way);
        Ok(more)
    }

    /// The whole block, of which its record says that it has `len` bytes.
    ///
    /// # Errors
    /// As for [`copy_to`](Self::copy_to).
    pub fn finish(mut self, len: u32) -> Result<Bytes, Corrupt> {
        self.copy_to(len)?;
        Ok(self.buffer.freeze())
    }
}

/// A block lent by the peer, in range, to be copied out on any thread without any lock.
///
/// Its drop gives the block back. Then, or after several, ask
/// [`Consumer::peer_waits_for_room`](crate::Consumer::peer_waits_for_room).
#[derive(Debug)]
pub struct Block {
    mapping: Arc<Mapping>,
    reference: BlockRef,
    releases: ReleaseList,
}

impl Block {
    /// The block's length in bytes.
    pub fn len(&self) -> usize {
        self.reference.len as usize
    }

    /// Whether the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.reference.len == 0
    }

    /// Appends the bytes to a vector, in one copy.
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        let (start, way) = (self.reference.offset as usize, Way::of_block(self.len()));
        self.mapping.append_to(start, self.len(), into, way);
    }

    /// The bytes in a reusable buffer, in one copy.
    pub fn copy_to_bytes(&self, pool: &BufferPool) -> Bytes {
        let mut buffer = pool.buffer(self.len());
        self.copy_to(&mut buffer);
        buffer.freeze()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.releases.push(self.reference.release_entry());
    }
}
