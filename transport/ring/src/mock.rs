//! A peer that owns its region and writes whatever it likes into it, at any time. For this crate's
//! tests and for the fuzz target, which is why it is public under `cfg(fuzzing)`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

use crate::{
    Endpoint, EndpointConfig, OwnRegion, PeerRegion, RegionConfig, RegionLimits,
    layout::{self, Layout},
    mapping::Mapping,
    region::write_header,
    sealed,
};

pub const RING_BYTES: usize = 4096;
pub const SLOTS: usize = 8;

pub fn config() -> EndpointConfig {
    let region = RegionConfig {
        ring_bytes: RING_BYTES,
        release_slots: SLOTS,
    };
    EndpointConfig {
        region,
        ..EndpointConfig::default()
    }
}

/// The hostile side of a connection whose other side is under test.
#[derive(Debug)]
pub struct Hostile {
    region: Mapping,
    layout: Layout,
}

impl Hostile {
    /// A valid region, so far, and its descriptor.
    pub fn region() -> (Self, OwnedFd) {
        let layout = Layout::new(&config().region).unwrap();
        let (region, descriptor) =
            sealed::create("hostile", layout.region_bytes(), true, None).unwrap();
        write_header(&region, &layout).unwrap();
        (Self { region, layout }, descriptor)
    }

    /// A victim joined to this peer, both at `start`.
    pub fn facing(start: u64) -> (Self, Endpoint) {
        let (hostile, descriptor) = Self::region();
        hostile.set_producer_index(start);
        hostile.set_consumer_cursor(start);
        let own = OwnRegion::create_at(&config().region, start, None).unwrap();
        let peer = PeerRegion::map(descriptor, &RegionLimits::default()).unwrap();
        let victim = Endpoint::join_at(own, peer, &config(), start).unwrap();
        (hostile, victim)
    }

    /// A segment that any receiver accepts.
    pub fn segment(bytes: usize) -> OwnedFd {
        sealed::create("hostile", bytes, false, None).unwrap().1
    }

    pub fn set_u32(&self, at: usize, value: u32) {
        self.region.atomic_u32(at).store(value, SeqCst);
    }

    pub fn set_u64(&self, at: usize, value: u64) {
        self.region.atomic_u64(at).store(value, SeqCst);
    }

    pub fn set_producer_index(&self, index: u64) {
        self.set_u64(layout::PRODUCER_INDEX_AT, index);
    }

    pub fn set_consumer_cursor(&self, cursor: u64) {
        self.set_u64(layout::CONSUMER_CURSOR_AT, cursor);
    }

    pub fn set_sleep_word(&self, word: u32) {
        self.set_u32(layout::SLEEP_WORD_AT, word);
    }

    pub fn set_room_word(&self, word: u32) {
        self.set_u32(layout::ROOM_WORD_AT, word);
    }

    pub fn set_release_index(&self, index: u64) {
        self.set_u64(layout::RELEASE_INDEX_AT, index);
    }

    pub fn set_release(&self, slot: usize, index: u32, generation: u32) {
        let entry = u64::from(generation) << 32 | u64::from(index);
        self.set_u64(layout::RELEASE_LIST_AT + slot * 8, entry);
    }

    /// Writes words into the ring, as far as it reaches.
    pub fn set_ring(&self, offset: usize, words: &[u32]) {
        let room = (self.layout.ring_bytes - offset) / 4;
        for (at, word) in words.iter().take(room).enumerate() {
            self.set_u32(self.layout.control_bytes + offset + at * 4, *word);
        }
    }
}
