//! Any order of operations against a queue of plain vectors.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::mock::{SLOTS, config};
use crate::{
    ArenaConfig, ArenaError, Block, BlockWriter, Endpoint, EndpointConfig, Inbox, ReserveError,
};

#[derive(Debug, Clone)]
enum Operation {
    Commit {
        len: usize,
        fill: u8,
    },
    CommitBatch {
        lens: Vec<usize>,
        fill: u8,
    },
    Abandon {
        len: usize,
    },
    Allocate {
        len: usize,
        fill: u8,
    },
    CommitBlock {
        which: usize,
        len: usize,
        abandon: bool,
    },
    DropWriter {
        which: usize,
    },
    Take,
    Release {
        which: usize,
    },
    Trim,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{
        Abandon, Allocate, Commit, CommitBatch, CommitBlock, DropWriter, Release, Take, Trim,
    };
    let len = || prop_oneof![0..64_usize, 0..2100_usize];
    prop_oneof![
        4 => (len(), any::<u8>()).prop_map(|(len, fill)| Commit { len, fill }),
        2 => (prop::collection::vec(len(), 0..5), any::<u8>()).prop_map(|(lens, fill)| CommitBatch { lens, fill }),
        1 => len().prop_map(|len| Abandon { len }),
        3 => (0..70_000_usize, any::<u8>()).prop_map(|(len, fill)| Allocate { len, fill }),
        3 => (any::<usize>(), 0..100_usize, prop::bool::weighted(0.2))
            .prop_map(|(which, len, abandon)| CommitBlock { which, len, abandon }),
        1 => any::<usize>().prop_map(|which| DropWriter { which }),
        4 => Just(Take),
        3 => any::<usize>().prop_map(|which| Release { which }),
        1 => Just(Trim),
    ]
}

#[derive(Debug, PartialEq, Eq)]
struct Expected {
    inline: Vec<u8>,
    block: Option<Vec<u8>>,
}

struct Model {
    here: Endpoint,
    there: Endpoint,
    expected: VecDeque<Expected>,
    writers: Vec<(BlockWriter, u8)>,
    held: Vec<(Block, Vec<u8>)>,
    inbox: Inbox,
}

impl Model {
    fn new(start: u64) -> Self {
        let arena = ArenaConfig {
            segment_bytes: 65_536,
            max_block_bytes: 69_632,
            max_total_bytes: 204_800,
        };
        let (here, there) =
            Endpoint::pair_at(&EndpointConfig { arena, ..config() }, start).unwrap();
        let (expected, writers, held) = Default::default();
        Self {
            here,
            there,
            expected,
            writers,
            held,
            inbox: Inbox::default(),
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Commit { len, fill } => self.commit(&[len], fill),
            Operation::CommitBatch { lens, fill } => self.commit(&lens, fill),
            Operation::Abandon { len } => drop(self.here.producer.reserve(len)),
            Operation::Allocate { len, fill } => self.allocate(len, fill),
            Operation::CommitBlock {
                which,
                len,
                abandon,
            } => self.commit_block(which, len, abandon),
            Operation::DropWriter { which } => _ = pick(&mut self.writers, which),
            Operation::Take => self.take(),
            Operation::Release { which } => _ = pick(&mut self.held, which),
            Operation::Trim => self.trim(),
        }
    }

    fn commit(&mut self, lens: &[usize], fill: u8) {
        let max = self.here.producer.max_inline();
        let mut batch = self.here.producer.batch();
        for len in lens.iter().copied() {
            match batch.reserve(len) {
                Ok(mut reservation) => {
                    assert_eq!(reservation.len(), len);
                    reservation.fill(fill);
                    reservation.commit();
                    self.expected.push_back(Expected {
                        inline: vec![fill; len],
                        block: None,
                    });
                }
                Err(ReserveError::TooLarge { .. }) => assert!(len > max),
                Err(error) => {
                    assert_eq!(error, ReserveError::Full);
                    // With all taken there is always room.
                    assert!(!self.expected.is_empty());
                }
            }
        }
    }

    fn allocate(&mut self, len: usize, fill: u8) {
        match self.here.arena.allocate(len) {
            Ok(mut writer) => {
                assert_eq!(writer.as_mut_slice().len(), len);
                writer.as_mut_slice().fill(fill);
                self.writers.push((writer, fill));
            }
            Err(ArenaError::TooLarge { .. }) => assert!(len > 69_632),
            Err(error) => {
                assert!(matches!(error, ArenaError::Exhausted), "{error}");
                assert!(self.here.arena.blocks_in_use() > 0);
            }
        }
        assert!(self.here.arena.blocks_in_use() <= SLOTS);
        assert!(self.here.arena.total_bytes() <= 204_800);
    }

    fn commit_block(&mut self, which: usize, len: usize, abandon: bool) {
        self.exchange_segments();
        let Some((mut writer, fill)) = pick(&mut self.writers, which) else {
            return;
        };
        // Nobody wrote to it since: no other writer shares a byte.
        assert!(writer.as_mut_slice().iter().all(|byte| *byte == fill));
        let block = vec![fill; writer.len()];
        match self.here.producer.reserve_with_block(len, writer) {
            Ok(reservation) if abandon => drop(reservation),
            Ok(mut reservation) => {
                reservation.fill(!fill);
                reservation.commit();
                self.expected.push_back(Expected {
                    inline: vec![!fill; len],
                    block: Some(block),
                });
            }
            Err((error, writer)) => {
                assert_eq!(error, ReserveError::Full);
                self.writers.push((writer, fill));
            }
        }
    }

    fn take(&mut self) {
        assert_eq!(self.there.consumer.has_records(), !self.expected.is_empty());
        self.there.consumer.take(&mut self.inbox).unwrap();
        for record in self.inbox.records() {
            let record = record.unwrap();
            let expected = self.expected.pop_front().unwrap();
            assert_eq!(record.bytes, expected.inline);
            assert_eq!(record.block.is_some(), expected.block.is_some());
            if let Some((reference, bytes)) = record.block.zip(expected.block) {
                self.held
                    .push((self.there.peer_arena.block(reference).unwrap(), bytes));
            }
        }
        assert!(self.expected.is_empty());
        for (block, bytes) in &self.held {
            assert_eq!(
                block.copy_to_bytes(&self.there.pool),
                bytes,
                "changed while it was lent"
            );
        }
    }

    fn trim(&mut self) {
        let (now, idle) = (std::time::Instant::now(), std::time::Duration::ZERO);
        for id in self.here.arena.trim(now, idle).unwrap() {
            assert!(self.there.peer_arena.remove_segment(id));
        }
        self.exchange_segments();
    }

    fn exchange_segments(&mut self) {
        for id in self.here.arena.retired_segments() {
            assert!(self.there.peer_arena.remove_segment(id));
        }
        for segment in self.here.arena.new_segments() {
            self.there
                .peer_arena
                .add_segment(segment.id, segment.len, segment.descriptor)
                .unwrap();
        }
    }

    /// Everything comes back in the end.
    fn finish(mut self) {
        self.take();
        self.held.clear();
        self.writers.clear();
        self.exchange_segments();
        self.trim();
        assert_eq!(
            (
                self.here.arena.blocks_in_use(),
                self.here.arena.total_bytes()
            ),
            (0, 0)
        );
        assert!(self.here.producer.has_room(self.here.producer.max_inline()));
    }
}

fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    let at = which.checked_rem(from.len())?;
    Some(from.swap_remove(at))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_matches_a_queue(start in 0..2048_u64, operations in prop::collection::vec(operation(), 1..150)) {
        // Around the point where positions wrap.
        let mut model = Model::new(0_u64.wrapping_sub(start * 8));
        operations.into_iter().for_each(|operation| model.apply(operation));
        model.finish();
    }

    #[test]
    fn any_bytes_parse_or_are_refused(
        words in prop::collection::vec(prop_oneof![0..40_u32, any::<u32>()], 0..256),
        position in any::<u64>(),
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let records: Vec<_> = crate::records(&bytes, position / 8 * 8, 4096).collect();
        let errors = records.iter().filter(|record| record.is_err()).count();
        prop_assert!(records.len() <= bytes.len() / 8 + 1);
        prop_assert!(errors == 0 || errors == 1 && records.last().unwrap().is_err());
    }
}
