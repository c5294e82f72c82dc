//! An endpoint against a peer that writes anything into its region, between any two calls.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz region`

#![no_main]

use std::os::fd::OwnedFd;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringway_ring::{
    Corrupt, Endpoint, EndpointConfig, Inbox, OwnRegion, PeerRegion, RegionConfig, RegionLimits,
    SegmentId,
};
use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create},
    io::pread,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

const RING_BYTES: usize = 4096;
const RELEASE_SLOTS: usize = 8;
const REGION_BYTES: usize = 4096 + RING_BYTES;
const SEGMENT_BYTES: usize = 8192;

/// The offsets of the region's layout, as a peer of another make would know them.
const PRODUCER_INDEX_AT: usize = 128;
const CONSUMER_CURSOR_AT: usize = 256;
const SLEEP_WORD_AT: usize = 384;
const ROOM_WORD_AT: usize = 512;
const RELEASE_INDEX_AT: usize = 640;
const RELEASE_LIST_AT: usize = 1024;

#[derive(Debug, Arbitrary)]
enum Step {
    /// Moves the producer index on by records' worth of bytes, as an honest peer would.
    Produce { words: u16 },
    /// Moves the consumer cursor on likewise.
    Consume { words: u16 },
    ProducerIndex(u64),
    ConsumerCursor(u64),
    SleepWord(u32),
    RoomWord(u32),
    ReleaseIndex(u64),
    Release { slot: u8, index: u8, generation: u8 },
    /// A record that is nearly right.
    Record { at: u16, len: u8, flags: u8, block: [u16; 5] },
    Ring { at: u16, bytes: [u8; 16] },
    Take,
    Collect,
    Allocate { len: u16 },
    Reserve { len: u16 },
}

/// A region mapped for writing by the peer, for good.
struct Hostile {
    base: *mut u8,
    len: usize,
    produced: u64,
    consumed: u64,
}

impl Hostile {
    /// Allocated, mapped, filled by `prepare`, sealed: like an honest one.
    fn sealed(len: usize, prepare: impl FnOnce(&mut Self)) -> (Self, OwnedFd) {
        let file = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .expect("memfd_create");
        fallocate(&file, FallocateFlags::empty(), 0, len as u64).expect("fallocate");
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0) };
        let base = base.expect("mmap").cast();
        let mut hostile = Self { base, len, produced: 0, consumed: 0 };
        prepare(&mut hostile);
        let seals =
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).expect("seals");
        (hostile, file)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        for (offset, byte) in (at..self.len).zip(bytes) {
            // SAFETY: `offset` is below the mapping's length; nobody holds a reference into it.
            unsafe { self.base.add(offset).write_volatile(*byte) };
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Produce { words } => {
                self.produced = self.produced.wrapping_add(u64::from(words % 513) * 8);
                self.write(PRODUCER_INDEX_AT, &self.produced.to_le_bytes());
            }
            Step::Consume { words } => {
                self.consumed = self.consumed.wrapping_add(u64::from(words % 64) * 8);
                self.write(CONSUMER_CURSOR_AT, &self.consumed.to_le_bytes());
            }
            Step::ProducerIndex(index) => self.write(PRODUCER_INDEX_AT, &index.to_le_bytes()),
            Step::ConsumerCursor(cursor) => self.write(CONSUMER_CURSOR_AT, &cursor.to_le_bytes()),
            Step::SleepWord(word) => self.write(SLEEP_WORD_AT, &word.to_le_bytes()),
            Step::RoomWord(word) => self.write(ROOM_WORD_AT, &word.to_le_bytes()),
            Step::ReleaseIndex(index) => self.write(RELEASE_INDEX_AT, &(index % 32).to_le_bytes()),
            Step::Release { slot, index, generation } => {
                let at = RELEASE_LIST_AT + usize::from(slot) % RELEASE_SLOTS * 8;
                self.write(at, &u32::from(index % 16).to_le_bytes());
                self.write(at + 4, &u32::from(generation % 4).to_le_bytes());
            }
            Step::Record { at, len, flags, block } => {
                let at = REGION_BYTES - RING_BYTES + usize::from(at) % (RING_BYTES / 8) * 8;
                self.write(at, &u32::from(len).to_le_bytes());
                self.write(at + 4, &u32::from(flags % 4).to_le_bytes());
                for (place, word) in block.iter().enumerate() {
                    let word = if place == 0 { word % 2 } else { *word };
                    self.write(at + 8 + place * 4, &u32::from(word).to_le_bytes());
                }
                self.write(at + 28, &[0; 4]);
            }
            Step::Ring { at, bytes } => {
                let at = REGION_BYTES - RING_BYTES + usize::from(at) % RING_BYTES;
                self.write(at, &bytes);
            }
            Step::Take | Step::Collect | Step::Allocate { .. } | Step::Reserve { .. } => {}
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // SAFETY: the range that `sealed` mapped, and nothing refers to it any more.
        unsafe { munmap(self.base.cast(), self.len) }.expect("munmap");
    }
}

/// The endpoint under test, and the first error that it gave: every later one must be the same.
struct Victim {
    endpoint: Endpoint,
    inbox: Inbox,
    verdict: Option<Corrupt>,
}

impl Victim {
    fn facing(own: OwnRegion, peer: OwnedFd, config: &EndpointConfig) -> Self {
        let peer = PeerRegion::map(peer, &RegionLimits::default()).expect("a valid header");
        let mut endpoint = Endpoint::join(own, peer, config).expect("two regions");
        let (_, segment) = Hostile::sealed(SEGMENT_BYTES, |_| ());
        endpoint
            .peer_arena
            .add_segment(SegmentId(0), SEGMENT_BYTES, segment)
            .expect("a valid segment");
        Self { endpoint, inbox: Inbox::default(), verdict: None }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Take => self.take(),
            Step::Collect => {
                let collected = self.endpoint.arena.collect_releases();
                self.judge(collected.map(|count| assert!(count <= RELEASE_SLOTS)));
            }
            Step::Allocate { len } => {
                if let Ok(mut block) = self.endpoint.arena.allocate(usize::from(len)) {
                    block.as_mut_slice().fill(1);
                    let record = self.endpoint.producer.reserve_with_block(0, block);
                    _ = record.map(|reservation| reservation.commit());
                }
            }
            Step::Reserve { len } => {
                if let Ok(mut reservation) = self.endpoint.producer.reserve(usize::from(len)) {
                    reservation.fill(2);
                    reservation.commit();
                }
                _ = self.endpoint.producer.peer_must_be_woken();
                let cursor = self.endpoint.producer.peer_cursor();
                self.judge(cursor.map(drop));
            }
            _ => {}
        }
    }

    fn take(&mut self) {
        let taken = self.endpoint.consumer.take(&mut self.inbox);
        self.judge(taken.map(|bytes| assert!(bytes <= RING_BYTES)));
        assert!(self.inbox.records().count() <= RING_BYTES / 8 + 1);
        let mut bytes = Vec::new();
        for record in self.inbox.records().map_while(Result::ok) {
            let Some(reference) = record.block else { continue };
            bytes.clear();
            if self.endpoint.peer_arena.copy_block(reference, &mut bytes).is_ok() {
                assert_eq!(bytes.len(), reference.len as usize);
                self.endpoint.peer_arena.release(reference);
            }
        }
        _ = self.endpoint.consumer.peer_waits_for_room();
    }

    fn judge(&mut self, result: Result<(), Corrupt>) {
        match (result, self.verdict) {
            (Err(corrupt), None) => self.verdict = Some(corrupt),
            (Err(corrupt), Some(verdict)) => assert_eq!(corrupt, verdict),
            (Ok(()), verdict) => assert_eq!(verdict, None, "poison does not wear off"),
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let region = RegionConfig { ring_bytes: RING_BYTES, release_slots: RELEASE_SLOTS };
    let config = EndpointConfig { region, ..EndpointConfig::default() };
    let own = OwnRegion::create(&config.region).expect("a region");
    let (mut hostile, descriptor) = Hostile::sealed(REGION_BYTES, |hostile| {
        // An honest header, which is the victim's own.
        let mut header = [0; 128];
        pread(own.descriptor(), &mut header, 0).expect("pread");
        hostile.write(0, &header);
    });
    let mut victim = Victim::facing(own, descriptor, &config);
    for step in &steps {
        hostile.apply(step);
        victim.apply(step);
    }
});
