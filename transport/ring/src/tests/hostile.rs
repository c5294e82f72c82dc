//! Each thing that a peer may write into its region, and the error that names it.
//! The numbers are those of the list of hostile acts that this project is tested against.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::mock::{Hostile, RING_BYTES, SLOTS};
use crate::{
    ArenaError, BlockRef, Corrupt, Endpoint, Inbox, ReserveError, SegmentId, record::BLOCK,
    record::PAD,
};

const RING: u64 = RING_BYTES as u64;

fn taken(start: u64, index: u64) -> Result<usize, Corrupt> {
    let (hostile, mut victim) = Hostile::facing(start);
    hostile.set_producer_index(index);
    let result = victim.consumer.take(&mut Inbox::default());
    if let Err(corrupt) = result {
        hostile.set_producer_index(start);
        assert_eq!(
            victim.consumer.take(&mut Inbox::default()),
            Err(corrupt),
            "poisoned"
        );
        assert_eq!(
            victim.producer.reserve(1).err(),
            Some(ReserveError::Poisoned(corrupt))
        );
        assert!(matches!(victim.arena.allocate(1), Err(ArenaError::Poisoned(c)) if c == corrupt));
    }
    result
}

/// 1, 2, 3
#[test]
fn a_producer_index_is_believed_only_within_the_ring() {
    assert_eq!(taken(0, RING), Ok(RING_BYTES));
    let beyond = |cursor, index| Corrupt::ProducerIndexBeyondRing {
        index,
        cursor,
        ring_bytes: RING,
    };
    assert_eq!(taken(0, RING + 8), Err(beyond(0, RING + 8)));
    assert_eq!(
        taken(0, u64::from(u32::MAX)),
        Err(beyond(0, u64::from(u32::MAX)))
    );
    assert_eq!(
        taken(64, 56),
        Err(Corrupt::ProducerIndexMovedBack {
            index: 56,
            cursor: 64
        })
    );
    assert_eq!(
        taken(64, 0),
        Err(Corrupt::ProducerIndexMovedBack {
            index: 0,
            cursor: 64
        })
    );
    assert_eq!(
        taken(0, u64::MAX),
        Err(Corrupt::ProducerIndexMovedBack {
            index: u64::MAX,
            cursor: 0
        })
    );
    assert_eq!(
        taken(0, 12),
        Err(Corrupt::ProducerIndexUnaligned { index: 12 })
    );
}

/// 3
#[test]
fn an_index_may_wrap() {
    let start = u64::MAX - 7;
    assert_eq!(taken(start, 0), Ok(8));
    assert_eq!(taken(start, RING - 8), Ok(RING_BYTES));
    assert!(matches!(
        taken(start, RING),
        Err(Corrupt::ProducerIndexBeyondRing { .. })
    ));
    assert!(matches!(
        taken(start, start - 8),
        Err(Corrupt::ProducerIndexMovedBack { .. })
    ));
    assert!(matches!(
        taken(start, u64::MAX),
        Err(Corrupt::ProducerIndexUnaligned { .. })
    ));
}

/// Runs `victim` while a second thread calls `scribble` without pause.
fn under_fire(scribble: impl Fn(u32) + Sync, victim: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut word = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                word = word.wrapping_mul(0x9E37_79B1).wrapping_add(1);
                scribble(word >> 4);
            }
        });
        victim();
        stop.store(true, Ordering::Relaxed);
    });
}

/// 4, 41: a look at an index that changes without pause is bounded, and ends with its name.
#[test]
fn an_index_that_changes_without_pause_is_survived() {
    for _ in 0..50 {
        let (hostile, mut victim) = Hostile::facing(0);
        let scribble = |word| hostile.set_producer_index(u64::from(word % 600) * 8);
        under_fire(scribble, || {
            let mut inbox = Inbox::default();
            let looks = (0..2000).map(|_| victim.consumer.take(&mut inbox));
            for corrupt in looks.filter_map(Result::err) {
                let named = matches!(
                    corrupt,
                    Corrupt::ProducerIndexMovedBack { .. }
                        | Corrupt::ProducerIndexBeyondRing { .. }
                );
                assert!(named, "{corrupt}");
            }
        });
    }
}

/// 11, 12: records that change while they are read; what is parsed is one copy of them.
#[test]
fn records_that_change_without_pause_are_read_once() {
    let (hostile, mut victim) = Hostile::facing(0);
    let scribble = |word: u32| {
        let at = (word >> 8) as usize % (RING_BYTES / 8) * 8;
        hostile.set_ring(at, &[word % 64, word % 5 / 2]);
    };
    under_fire(scribble, || {
        let (mut inbox, mut parsed) = (Inbox::default(), 0);
        for look in 1..5_000 {
            hostile.set_producer_index(look * RING);
            assert_eq!(victim.consumer.take(&mut inbox), Ok(RING_BYTES));
            let once: Vec<_> = inbox.records().collect();
            assert_eq!(once, inbox.records().collect::<Vec<_>>());
            parsed += once.len();
        }
        assert!(parsed > 0);
    });
}

fn cursor_read(start: u64, records: usize, cursor: u64) -> Result<(), Corrupt> {
    let (hostile, mut victim) = Hostile::facing(start);
    for _ in 0..records {
        victim.producer.reserve(8).unwrap().commit();
    }
    hostile.set_consumer_cursor(cursor);
    victim.producer.peer_cursor().map(drop)
}

/// 5
#[test]
fn a_consumer_cursor_is_believed_only_within_what_was_published() {
    assert_eq!(cursor_read(0, 2, 16), Ok(()));
    assert_eq!(cursor_read(0, 2, 32), Ok(()));
    assert_eq!(
        cursor_read(0, 2, 40),
        Err(Corrupt::ConsumerCursorAhead {
            cursor: 40,
            published: 32
        })
    );
    assert_eq!(
        cursor_read(64, 2, 56),
        Err(Corrupt::ConsumerCursorMovedBack {
            cursor: 56,
            seen: 64
        })
    );
    assert_eq!(
        cursor_read(0, 2, 17),
        Err(Corrupt::ConsumerCursorUnaligned { cursor: 17 })
    );
    let start = u64::MAX - 7;
    assert_eq!(cursor_read(start, 2, 8), Ok(()));
    // 8 bytes of padding to the ring's end, then the two records.
    assert_eq!(cursor_read(start, 2, 32), Ok(()));
    assert!(matches!(
        cursor_read(start, 2, 40),
        Err(Corrupt::ConsumerCursorAhead { .. })
    ));
}

/// 6
#[test]
fn a_frozen_consumer_cursor_fills_the_ring_and_no_more() {
    let (hostile, mut victim) = Hostile::facing(0);
    let mut records = 0;
    let full = loop {
        match victim.producer.reserve(120) {
            Ok(reservation) => _ = reservation.commit(),
            Err(error) => break error,
        }
        records += 1;
    };
    assert_eq!((full, records), (ReserveError::Full, RING_BYTES / 128));
    assert!(!victim.producer.has_room(0));
    hostile.set_consumer_cursor(RING);
    assert!(victim.producer.has_room(120));
}

fn parsed(offset: u64, words: &[u32], published: usize) -> Result<usize, Corrupt> {
    let (hostile, mut victim) = Hostile::facing(offset);
    hostile.set_ring(usize::try_from(offset).unwrap() % RING_BYTES, words);
    hostile.set_producer_index(offset + published as u64);
    let mut inbox = Inbox::default();
    assert_eq!(victim.consumer.take(&mut inbox), Ok(published));
    inbox
        .records()
        .try_fold(0, |count, record| record.map(|_| count + 1))
}

/// 7, 9
#[test]
fn a_record_ends_with_what_was_published_and_with_the_ring() {
    assert_eq!(parsed(0, &[8, 0], 16), Ok(1));
    let refused = |position, len, available| {
        Err(Corrupt::RecordLength {
            position,
            len,
            available,
        })
    };
    assert_eq!(parsed(0, &[9, 0], 16), refused(0, 9, 8));
    assert_eq!(parsed(0, &[0x1_0040, 0], 128), refused(0, 0x1_0040, 120));
    assert_eq!(parsed(0, &[u32::MAX, 0], 128), refused(0, u32::MAX, 120));
    assert_eq!(parsed(0, &[0, BLOCK], 24), refused(0, 0, 0));
    assert_eq!(parsed(0, &[1, BLOCK], 32), refused(0, 1, 0));
    assert_eq!(parsed(RING - 16, &[16, 0], 64), refused(RING - 16, 16, 8));
}

#[test]
fn flags_mean_one_thing() {
    for flags in [3, 4, u32::MAX] {
        assert_eq!(
            parsed(0, &[0, flags], 8),
            Err(Corrupt::RecordFlags { position: 0, flags })
        );
    }
    let reserved = [0, BLOCK, 0, 0, 0, 0, 0, 1];
    assert_eq!(
        parsed(0, &reserved, 32),
        Err(Corrupt::BlockReserved {
            position: 0,
            reserved: 1
        })
    );
}

#[test]
fn padding_reaches_exactly_to_the_end_of_the_ring() {
    assert_eq!(parsed(RING - 16, &[8, PAD], 16), Ok(0));
    for (at, len) in [
        (0, 8),
        (RING - 16, 0),
        (RING - 16, 16),
        (RING - 16, u32::MAX),
        (RING - 24, 8),
    ] {
        let refused = Err(Corrupt::PadMisplaced { position: at, len });
        assert_eq!(parsed(at, &[len, PAD], 24), refused, "{len} at {at}");
    }
    // Of the right length, but published in part.
    let (position, len) = (RING - 24, 16);
    let refused = Err(Corrupt::PadMisplaced { position, len });
    assert_eq!(parsed(position, &[len, PAD], 16), refused);
    // A whole ring of padding ends, and a second one is not reached.
    assert_eq!(
        parsed(0, &[u32::try_from(RING).unwrap() - 8, PAD], RING_BYTES),
        Ok(0)
    );
}

/// 10
#[test]
fn empty_records_are_valid_and_bounded_by_the_ring() {
    assert_eq!(parsed(0, &[], RING_BYTES), Ok(RING_BYTES / 8));
}

/// How many bytes of a block come out.
fn copied(victim: &Endpoint, block: BlockRef) -> Result<usize, Corrupt> {
    let copy = victim.peer_arena.begin_copy(&victim.pool, block)?;
    copy.finish(block.len).map(|bytes| bytes.len())
}

/// 8, 13
#[test]
fn a_block_lies_within_a_segment_that_is_known() {
    let (hostile, mut victim) = Hostile::facing(0);
    let (_, descriptor) = crate::sealed::create("segment", 8192, false, None).unwrap();
    victim
        .peer_arena
        .add_segment(SegmentId(7), 8192, descriptor)
        .unwrap();
    let block = |segment, offset, len| BlockRef {
        segment: SegmentId(segment),
        offset,
        len,
        index: 0,
        generation: 0,
    };
    assert_eq!(copied(&victim, block(7, 0, 8192)), Ok(8192));
    assert_eq!(copied(&victim, block(7, 8192, 0)), Ok(0));
    let segment = SegmentId(8);
    let unknown = Err(Corrupt::BlockSegmentUnknown { segment });
    assert_eq!(copied(&victim, block(8, 0, 1)), unknown);
    assert!(
        victim.peer_arena.block(block(7, 1, 2)).is_ok(),
        "a missing segment may yet arrive"
    );
    drop(hostile);

    for (offset, len) in [
        (1, 8192),
        (8193, 0),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (4096, u32::MAX - 4095),
    ] {
        let (_hostile, mut victim) = Hostile::facing(0);
        let (_, descriptor) = crate::sealed::create("segment", 8192, false, None).unwrap();
        victim
            .peer_arena
            .add_segment(SegmentId(7), 8192, descriptor)
            .unwrap();
        let (segment, segment_bytes) = (SegmentId(7), 8192);
        let refused = Corrupt::BlockOutOfRange {
            segment,
            offset,
            len,
            segment_bytes,
        };
        assert_eq!(copied(&victim, block(7, offset, len)), Err(refused));
        assert_eq!(
            victim.consumer.take(&mut Inbox::default()),
            Err(refused),
            "poisoned"
        );
    }
}

/// A victim that lent block 0 of generation 0, and has block 1 in writing.
fn released(entries: &[(u32, u32)], index: u64) -> Result<usize, Corrupt> {
    let (hostile, mut victim) = Hostile::facing(0);
    let lent = victim.arena.allocate(100).unwrap();
    let _writing = victim.arena.allocate(100).unwrap();
    victim
        .producer
        .reserve_with_block(0, lent)
        .unwrap()
        .commit();
    for (slot, (index, generation)) in entries.iter().enumerate() {
        hostile.set_release(slot, *index, *generation);
    }
    hostile.set_release_index(index);
    let result = victim.arena.collect_releases();
    if let Err(corrupt) = result {
        assert_eq!(victim.arena.collect_releases(), Err(corrupt), "poisoned");
        assert_eq!(victim.consumer.take(&mut Inbox::default()), Err(corrupt));
    }
    result
}

/// 13, 15
#[test]
fn only_what_is_lent_is_released_and_only_once() {
    assert_eq!(released(&[(0, 0)], 1), Ok(1));
    let stale = |index, generation| Err(Corrupt::ReleaseStale { index, generation });
    assert_eq!(released(&[(0, 0), (0, 0)], 2), stale(0, 0));
    assert_eq!(released(&[(0, 1)], 1), stale(0, 1));
    assert_eq!(
        released(&[(1, 0)], 1),
        Err(Corrupt::ReleaseNotLent { index: 1 }),
        "in writing"
    );
    assert_eq!(
        released(&[(2, 0)], 1),
        Err(Corrupt::ReleaseNotLent { index: 2 }),
        "never used"
    );
    let (index, slots) = (8, SLOTS);
    assert_eq!(
        released(&[(8, 0)], 1),
        Err(Corrupt::ReleaseUnknownBlock { index, slots })
    );
    let (index, slots) = (u32::MAX, SLOTS);
    assert_eq!(
        released(&[(index, 0)], 1),
        Err(Corrupt::ReleaseUnknownBlock { index, slots })
    );
}

#[test]
fn a_release_index_is_believed_only_within_the_list() {
    let jumped = |index| {
        Err(Corrupt::ReleaseIndexJumped {
            index,
            read: 0,
            slots: SLOTS as u64,
        })
    };
    assert_eq!(released(&[], 9), jumped(9));
    assert_eq!(
        released(&[], u64::from(u32::MAX)),
        jumped(u64::from(u32::MAX))
    );
    let back = Err(Corrupt::ReleaseIndexMovedBack {
        index: u64::MAX,
        read: 0,
    });
    assert_eq!(released(&[], u64::MAX), back);
}

/// 30, 31: a toggled word costs at most one doorbell per value shown.
#[test]
fn a_sleep_word_is_rung_for_once_per_value() {
    let (hostile, mut victim) = Hostile::facing(0);
    let mut rings = |word| {
        hostile.set_sleep_word(word);
        victim.producer.peer_must_be_woken()
    };
    assert_eq!(
        [0, 1, 1, 2, 1, 5].map(&mut rings),
        [false, true, false, false, false, true]
    );
    assert_eq!(
        [u32::MAX - 2, u32::MAX - 2, 0, u32::MAX, u32::MAX - 1].map(&mut rings),
        [true, false, false, false, false]
    );
}
