//! An endpoint against a peer that writes anything into its region, between any two calls.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz region`

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringway_ring::mock::{Hostile, RING_BYTES, SLOTS};
use ringway_ring::{Corrupt, Endpoint, Inbox, SegmentId};

const SEGMENT_BYTES: usize = 8192;

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
    Ring { at: u16, words: [u32; 4] },
    Take,
    Collect,
    Allocate { len: u16 },
    Reserve { len: u16 },
}

/// The peer, and how far an honest one would be.
struct Peer {
    hostile: Hostile,
    produced: u64,
    consumed: u64,
}

impl Peer {
    fn apply(&mut self, step: &Step) {
        let Self { hostile, produced, consumed } = self;
        match *step {
            Step::Produce { words } => {
                *produced = produced.wrapping_add(u64::from(words % 513) * 8);
                hostile.set_producer_index(*produced);
            }
            Step::Consume { words } => {
                *consumed = consumed.wrapping_add(u64::from(words % 64) * 8);
                hostile.set_consumer_cursor(*consumed);
            }
            Step::ProducerIndex(index) => hostile.set_producer_index(index),
            Step::ConsumerCursor(cursor) => hostile.set_consumer_cursor(cursor),
            Step::SleepWord(word) => hostile.set_sleep_word(word),
            Step::RoomWord(word) => hostile.set_room_word(word),
            Step::ReleaseIndex(index) => hostile.set_release_index(index % 32),
            Step::Release { slot, index, generation } => {
                let slot = usize::from(slot) % SLOTS;
                hostile.set_release(slot, u32::from(index % 16), u32::from(generation % 4));
            }
            Step::Record { at, len, flags, block } => {
                let mut words = [0; 8];
                words[0] = u32::from(len);
                words[1] = u32::from(flags % 4);
                for (word, claimed) in words[2..].iter_mut().zip(block) {
                    *word = u32::from(claimed);
                }
                words[2] %= 2;
                hostile.set_ring(usize::from(at) % (RING_BYTES / 8) * 8, &words);
            }
            Step::Ring { at, words } => {
                hostile.set_ring(usize::from(at) % (RING_BYTES / 4) * 4, &words);
            }
            Step::Take | Step::Collect | Step::Allocate { .. } | Step::Reserve { .. } => {}
        }
    }
}

/// The endpoint under test, and the first error that it gave: every later one must be the same.
struct Victim {
    endpoint: Endpoint,
    inbox: Inbox,
    verdict: Option<Corrupt>,
}

impl Victim {
    fn new(mut endpoint: Endpoint) -> Self {
        endpoint
            .peer_arena
            .add_segment(SegmentId(0), SEGMENT_BYTES, Hostile::segment(SEGMENT_BYTES))
            .expect("a valid segment");
        Self { endpoint, inbox: Inbox::default(), verdict: None }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Take => self.take(),
            Step::Collect => {
                let collected = self.endpoint.arena.collect_releases();
                self.judge(collected.map(|count| assert!(count <= SLOTS)));
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
        let Endpoint { peer_arena, pool, .. } = &self.endpoint;
        for record in self.inbox.records().map_while(Result::ok) {
            let Some(reference) = record.block else { continue };
            if let Ok(mut copy) = peer_arena.begin_copy(pool, reference) {
                copy.copy_to(reference.len / 2).expect("half of a block in range");
                let bytes = copy.finish(reference.len).expect("a block in range");
                assert_eq!(bytes.len(), reference.len as usize);
                peer_arena.release(reference);
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
    let (hostile, endpoint) = Hostile::facing(0);
    let mut peer = Peer { hostile, produced: 0, consumed: 0 };
    let mut victim = Victim::new(endpoint);
    for step in &steps {
        peer.apply(step);
        victim.apply(step);
    }
});
