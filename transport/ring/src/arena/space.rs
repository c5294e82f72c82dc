//! Which bytes of which segment are free. Plain numbers in private memory.
//!
//! Freed extents first go to a short stack, from which the same size is served again while it is
//! still in the cache; only what falls off the stack is merged with its neighbours and found by
//! first fit.

use std::time::{Duration, Instant};

use crate::SegmentId;

/// Extents start and end at multiples of this.
const GRANULE_BYTES: usize = 4096;

/// How many freed extents are kept as they are.
const RECENT: usize = 32;

/// `len` rounded up to what an extent can have; nothing is rounded to one granule too.
pub(super) fn granules(len: usize) -> usize {
    len.max(1).next_multiple_of(GRANULE_BYTES)
}

/// A range of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) segment: SegmentId,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            segment: SegmentId(u32::MAX),
            offset: 0,
            len: 0,
        }
    }
}

#[derive(Debug)]
struct Segment {
    id: SegmentId,
    len: u32,
    /// The peer could not take it: nothing of it is given out any more.
    aside: bool,
    /// Offset and length of each free range, sorted, no two adjacent.
    free: Vec<(u32, u32)>,
    /// Bytes given out and not freed: zero means wholly free.
    used: u32,
    /// Since which trim it is known to be wholly free without a break.
    idle_since: Option<Instant>,
}

impl Segment {
    fn take(&mut self, len: u32) -> Option<u32> {
        let at = self.free.iter().position(|(_, free)| *free >= len)?;
        let (offset, free) = self.free[at];
        if free == len {
            self.free.remove(at);
        } else {
            self.free[at] = (offset + len, free - len);
        }
        Some(offset)
    }

    fn merge(&mut self, offset: u32, len: u32) {
        let at = self.free.partition_point(|(start, _)| *start < offset);
        self.free.insert(at, (offset, len));
        self.join_next(at);
        if at > 0 {
            self.join_next(at - 1);
        }
    }

    fn join_next(&mut self, at: usize) {
        let (offset, len) = self.free[at];
        if let Some((next, next_len)) = self.free.get(at + 1).copied()
            && offset + len == next
        {
            self.free[at] = (offset, len + next_len);
            self.free.remove(at + 1);
        }
    }
}

/// All segments' free ranges.
#[derive(Debug, Default)]
pub(super) struct Space {
    segments: Vec<Segment>,
    /// Freed last, used first. Counted as free in `used`, but not yet in `free`.
    recent: Vec<Extent>,
}

impl Space {
    /// Bytes given out and not freed.
    pub(super) fn used_bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.used as usize)
            .sum()
    }

    /// A range of at least `len` bytes, or `None` if no segment has one.
    pub(super) fn allocate(&mut self, len: usize) -> Option<Extent> {
        let len = u32::try_from(granules(len)).ok()?;
        let extent = self
            .take_recent(len)
            .or_else(|| self.first_fit(len))
            .or_else(|| {
                self.settle();
                self.first_fit(len)
            })?;
        let segment = self.segment(extent.segment)?;
        segment.used += extent.len;
        segment.idle_since = None;
        Some(extent)
    }

    pub(super) fn free(&mut self, extent: Extent) {
        if let Some(segment) = self.segment(extent.segment) {
            segment.used -= extent.len;
            segment.idle_since = None;
            if segment.aside {
                return self.merge(extent);
            }
        }
        if self.recent.len() == RECENT {
            let coldest = self.recent.remove(0);
            self.merge(coldest);
        }
        self.recent.push(extent);
    }

    pub(super) fn add_segment(&mut self, id: SegmentId, len: u32) {
        self.segments.push(Segment {
            id,
            len,
            aside: false,
            free: vec![(0, len)],
            used: 0,
            idle_since: None,
        });
    }

    /// Gives out nothing more of a segment; false if there is no such one.
    pub(super) fn set_aside(&mut self, id: SegmentId) -> bool {
        // What lies ready to be given out again may be of it.
        self.settle();
        let segment = self.segment(id);
        segment.map(|segment| segment.aside = true).is_some()
    }

    /// Returns true if a segment that is not set aside has room for `len` bytes, once they are free.
    pub(super) fn may_fit(&self, len: usize) -> bool {
        let mut usable = self.segments.iter().filter(|segment| !segment.aside);
        usable.any(|segment| segment.len as usize >= granules(len))
    }

    /// Forgets the segments that are set aside and wholly free.
    pub(super) fn take_aside(&mut self) -> Vec<SegmentId> {
        self.take_segments(|segment| segment.aside && segment.used == 0)
    }

    /// Forgets the segments that are wholly free.
    pub(super) fn take_free(&mut self) -> Vec<SegmentId> {
        self.take_segments(|segment| segment.used == 0)
    }

    /// Forgets the segments that have been wholly free for `idle`, and marks those that are from now.
    pub(super) fn take_idle(&mut self, now: Instant, idle: Duration) -> Vec<SegmentId> {
        self.take_segments(|segment| {
            let since = *segment.idle_since.get_or_insert(now);
            let is_due = segment.aside || now.saturating_duration_since(since) >= idle;
            segment.used == 0 && is_due
        })
    }

    fn take_segments(&mut self, mut leaves: impl FnMut(&mut Segment) -> bool) -> Vec<SegmentId> {
        let left: Vec<_> = self
            .segments
            .extract_if(.., |segment| leaves(segment))
            .map(|segment| segment.id)
            .collect();
        self.recent.retain(|extent| !left.contains(&extent.segment));
        left
    }

    /// The extent freed last that is large enough and wastes no more than a quarter.
    fn take_recent(&mut self, len: u32) -> Option<Extent> {
        let fits = |extent: &Extent| extent.len >= len && extent.len - len <= len / 4;
        let at = self.recent.iter().rposition(fits)?;
        Some(self.recent.remove(at))
    }

    fn first_fit(&mut self, len: u32) -> Option<Extent> {
        let mut usable = self.segments.iter_mut().filter(|segment| !segment.aside);
        usable.find_map(|segment| {
            let offset = segment.take(len)?;
            Some(Extent {
                segment: segment.id,
                offset,
                len,
            })
        })
    }

    /// Gives up on the warm extents, to join them into larger ones.
    fn settle(&mut self) {
        for extent in std::mem::take(&mut self.recent) {
            self.merge(extent);
        }
    }

    fn merge(&mut self, extent: Extent) {
        if let Some(segment) = self.segment(extent.segment) {
            segment.merge(extent.offset, extent.len);
        }
    }

    fn segment(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.id == id)
    }
}
