//! Where fuzzers come in: bytes that a hostile peer writes into its region, between any two calls of this side.
//! Public under `cfg(fuzzing)`, for `tests/fuzz`; `cargo test` runs it over the seeds that are kept there.

#![allow(missing_docs, clippy::unwrap_used)]

use self::choices::Choices;
use crate::mock::{Hostile, RING_BYTES, SLOTS};
use crate::{Corrupt, Endpoint, Inbox, SegmentId};

#[path = "../../../tests/fuzz/choices.rs"]
mod choices;

const SEGMENT_BYTES: usize = 8192;
/// Steps of one conversation, at most.
const MAX_STEPS: usize = 2048;

/// An endpoint against a peer that writes anything into its region.
pub fn region(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (hostile, endpoint) = Hostile::facing(0);
    let mut peer = Peer {
        hostile,
        produced: 0,
        consumed: 0,
    };
    let mut victim = Victim::new(endpoint);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            return;
        }
        match choices.byte() % 14 {
            step @ 0..10 => peer.step(step, &mut choices),
            10 => victim.take(),
            11 => victim.collect(),
            12 => victim.lend(choices.number().into()),
            _ => victim.send(choices.number().into()),
        }
    }
}

/// The peer, and how far an honest one would be.
struct Peer {
    hostile: Hostile,
    produced: u64,
    consumed: u64,
}

impl Peer {
    fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        let hostile = &self.hostile;
        match step {
            // As an honest peer would, by some records.
            0 => {
                let bytes = u64::from(choices.number() % 513) * 8;
                self.produced = self.produced.wrapping_add(bytes);
                hostile.set_producer_index(self.produced);
            }
            1 => {
                let bytes = u64::from(choices.number() % 64) * 8;
                self.consumed = self.consumed.wrapping_add(bytes);
                hostile.set_consumer_cursor(self.consumed);
            }
            2 => hostile.set_producer_index(u64::from_le_bytes(choices.array())),
            3 => hostile.set_consumer_cursor(u64::from_le_bytes(choices.array())),
            4 => hostile.set_sleep_word(u32::from_le_bytes(choices.array())),
            5 => hostile.set_room_word(u32::from_le_bytes(choices.array())),
            6 => hostile.set_release_index(u64::from(choices.byte() % 32)),
            7 => {
                let slot = usize::from(choices.byte()) % SLOTS;
                let (index, generation) = (choices.byte() % 16, choices.byte() % 4);
                hostile.set_release(slot, index.into(), generation.into());
            }
            8 => self.write_record(choices),
            _ => {
                let at = usize::from(choices.number()) % (RING_BYTES / 4) * 4;
                let words = std::array::from_fn::<_, 4, _>(|_| u32::from_le_bytes(choices.array()));
                hostile.set_ring(at, &words);
            }
        }
    }

    /// A record that is nearly right.
    fn write_record(&self, choices: &mut Choices<'_>) {
        let at = usize::from(choices.number()) % (RING_BYTES / 8) * 8;
        let mut words = [0; 8];
        words[0] = choices.byte().into();
        words[1] = (choices.byte() % 4).into();
        for word in &mut words[2..7] {
            *word = choices.number().into();
        }
        words[2] %= 2;
        self.hostile.set_ring(at, &words);
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
        let segment = Hostile::segment(SEGMENT_BYTES);
        let arena = &mut endpoint.peer_arena;
        arena
            .add_segment(SegmentId(0), SEGMENT_BYTES, segment)
            .unwrap();
        Self {
            endpoint,
            inbox: Inbox::default(),
            verdict: None,
        }
    }

    fn collect(&mut self) {
        let collected = self.endpoint.arena.collect_releases();
        self.judge(collected.map(|count| assert!(count <= SLOTS)));
    }

    fn lend(&mut self, len: usize) {
        if let Ok(mut block) = self.endpoint.arena.allocate(len) {
            block.as_mut_slice().fill(1);
            let record = self.endpoint.producer.reserve_with_block(0, block);
            let _ = record.map(|reservation| reservation.commit());
        }
    }

    fn send(&mut self, len: usize) {
        if let Ok(mut reservation) = self.endpoint.producer.reserve(len) {
            reservation.fill(2);
            reservation.commit();
        }
        let _ = self.endpoint.producer.peer_must_be_woken();
        let cursor = self.endpoint.producer.peer_cursor();
        self.judge(cursor.map(drop));
    }

    fn take(&mut self) {
        let taken = self.endpoint.consumer.take(&mut self.inbox);
        self.judge(taken.map(|bytes| assert!(bytes <= RING_BYTES)));
        assert!(self.inbox.records().count() <= RING_BYTES / 8 + 1);
        let Endpoint {
            peer_arena, pool, ..
        } = &self.endpoint;
        for record in self.inbox.records().map_while(Result::ok) {
            let Some(reference) = record.block else {
                continue;
            };
            if let Ok(mut copy) = peer_arena.begin_copy(pool, reference) {
                copy.copy_to(reference.len / 2).unwrap();
                let bytes = copy.finish(reference.len).unwrap();
                assert_eq!(bytes.len(), reference.len as usize);
                peer_arena.release(reference);
            }
        }
        let _ = self.endpoint.consumer.peer_waits_for_room();
    }

    fn judge(&mut self, result: Result<(), Corrupt>) {
        match (result, self.verdict) {
            (Err(corrupt), None) => self.verdict = Some(corrupt),
            (Err(corrupt), Some(verdict)) => assert_eq!(corrupt, verdict),
            (Ok(()), verdict) => assert_eq!(verdict, None, "poison does not wear off"),
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_regions() {
        replay("region", super::region);
    }
}
