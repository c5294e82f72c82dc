//! Where each word of a region lies, and how large its parts may be.
//!
//! ```text
//! 0        header: magic, version, sizes (written before sealing, never again)
//! 128      producer index        u64, bytes published since the start
//! 256      consumer cursor       u64, bytes consumed of the peer's ring
//! 384      sleep word            u32, a count and whether this side's consumer looks
//! 388      sleep CPU             u32, where it went to sleep
//! 512      room word             u32, the same for a producer that waits for room
//! 640      release index         u64, releases written since the start
//! 1024     release list          u64 each: blocks of the peer's arena given back
//! control  ring                  a power of two
//! ```
//!
//! Each word that changes has 128 bytes to itself, because the adjacent-line prefetcher of current
//! processors moves lines in pairs. The sleep CPU changes with the sleep word alone.

use crate::RegionError;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"RINGWAY\0");
pub(crate) const VERSION: u32 = 1;

pub(crate) const MAGIC_AT: usize = 0;
pub(crate) const VERSION_AT: usize = 8;
pub(crate) const RING_BYTES_AT: usize = 12;
pub(crate) const RELEASE_SLOTS_AT: usize = 16;
pub(crate) const CONTROL_BYTES_AT: usize = 20;
pub(crate) const REGION_BYTES_AT: usize = 24;

pub(crate) const PRODUCER_INDEX_AT: usize = 128;
pub(crate) const CONSUMER_CURSOR_AT: usize = 256;
pub(crate) const SLEEP_WORD_AT: usize = 384;
pub(crate) const SLEEP_CPU_AT: usize = 388;
pub(crate) const ROOM_WORD_AT: usize = 512;
pub(crate) const RELEASE_INDEX_AT: usize = 640;
pub(crate) const RELEASE_LIST_AT: usize = 1024;

/// Records start at multiples of this, so that a header is never torn by the ring's end.
pub(crate) const RECORD_ALIGN: usize = 8;

const MIN_RING_BYTES: usize = 4096;
const MAX_RING_BYTES: usize = 1 << 30;
const MAX_RELEASE_SLOTS: usize = 1 << 16;

/// Sizes of the region that this side creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionConfig {
    /// Bytes of the ring: a power of two, at least a page. A record may take half of it.
    pub ring_bytes: usize,
    /// How many blocks of the peer's arena may be out at once: a power of two.
    pub release_slots: usize,
}

impl Default for RegionConfig {
    /// 32 KiB of ring, 256 blocks: nine pages in all.
    fn default() -> Self {
        Self {
            ring_bytes: 32 * 1024,
            release_slots: 256,
        }
    }
}

/// What this side accepts of a peer's region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionLimits {
    /// Largest region that is mapped.
    pub max_bytes: usize,
}

impl Default for RegionLimits {
    /// 2 MiB: a ring of 1 MiB, control words, and to spare.
    fn default() -> Self {
        Self {
            max_bytes: 2 * 1024 * 1024,
        }
    }
}

/// The sizes of one region, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) ring_bytes: usize,
    pub(crate) release_slots: usize,
    /// Everything before the ring.
    pub(crate) control_bytes: usize,
}

impl Layout {
    /// Checks the sizes against what a region can have.
    pub(crate) fn new(config: &RegionConfig) -> Result<Self, RegionError> {
        let page = rustix::param::page_size();
        let min_ring = MIN_RING_BYTES.max(page);
        power_of_two("ring_bytes", config.ring_bytes, min_ring, MAX_RING_BYTES)?;
        power_of_two("release_slots", config.release_slots, 1, MAX_RELEASE_SLOTS)?;
        let control = RELEASE_LIST_AT + config.release_slots * size_of::<u64>();
        Ok(Self {
            ring_bytes: config.ring_bytes,
            release_slots: config.release_slots,
            control_bytes: control.next_multiple_of(page),
        })
    }

    pub(crate) fn region_bytes(&self) -> usize {
        self.control_bytes + self.ring_bytes
    }

    /// Where in the ring a position since the start falls.
    pub(crate) fn ring_offset(&self, position: u64) -> usize {
        ring_offset(position, self.ring_bytes)
    }
}

/// Where in a ring of `ring_bytes` (a power of two) a position falls.
pub(crate) fn ring_offset(position: u64, ring_bytes: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the mask leaves less than a usize"
    )]
    let offset = (position & (ring_bytes as u64 - 1)) as usize;
    offset
}

fn power_of_two(
    name: &'static str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), RegionError> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(RegionError::Config {
        name,
        value,
        min,
        max,
    })
}
