//! The arithmetic of blocks: which references, fillings and releases of a peer's are believed, with every value of
//! blocks so small that all of them can be tried.

use crate::mock::{Hostile, SLOTS};
use crate::record::BlockRef;
use crate::{BufferPool, Corrupt, Endpoint, SegmentId};

const SEGMENT: SegmentId = SegmentId(3);
const SEGMENT_BYTES: usize = 4096;

fn victim() -> Endpoint {
    let (_, mut victim) = Hostile::facing(0);
    let descriptor = Hostile::segment(SEGMENT_BYTES);
    let added = victim
        .peer_arena
        .add_segment(SEGMENT, SEGMENT_BYTES, descriptor);
    added.unwrap();
    victim
}

fn reference(offset: u32, len: u32) -> BlockRef {
    BlockRef {
        segment: SEGMENT,
        offset,
        len,
        index: 0,
        generation: 0,
    }
}

/// Numbers around which a sum of an offset and a length could go wrong.
fn edges() -> Vec<u32> {
    let segment = u32::try_from(SEGMENT_BYTES).unwrap();
    let powers = (0..32).flat_map(|bit| [(1 << bit) - 1, 1_u32 << bit]);
    let mut edges: Vec<_> = powers
        .chain(segment - 2..=segment + 2)
        .chain(u32::MAX - 1..=u32::MAX)
        .chain((1..4).map(|below| u32::MAX - segment + below))
        .collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Covers offsets and lengths at each power of two and below it, around the segment's length, and at the end of
/// their type: a block is read if all of it lies within its segment, and ends the connection otherwise.
#[test]
fn a_block_is_believed_if_and_only_if_it_is_within_its_segment() {
    let mut here = victim();
    let mut read = 0;
    for offset in edges() {
        for len in edges() {
            let is_right = u64::from(offset) + u64::from(len) <= SEGMENT_BYTES as u64;
            let block = here.peer_arena.block(reference(offset, len));
            let case = (offset, len);
            if is_right {
                let bytes = block.unwrap().copy_to_bytes(&here.pool);
                assert_eq!(bytes.len(), len as usize, "{case:?}");
                read += 1;
                continue;
            }
            let refused = block.map(drop).unwrap_err();
            assert!(
                matches!(refused, Corrupt::BlockOutOfRange { .. }),
                "{case:?}"
            );
            here = victim();
        }
    }
    assert!(read > 100, "{read}");
}

/// Covers, for blocks of up to three bytes, all orders of three fillings up to two bytes beyond the block: each
/// copies what is new, and one that shrinks or leaves the block ends the connection.
#[test]
fn a_filling_is_believed_if_and_only_if_it_grows_within_its_block() {
    let pool = BufferPool::default();
    for len in 0..=3_u32 {
        let fillings = len + 3;
        for order in 0..fillings.pow(3) {
            let here = victim();
            let mut copy = here
                .peer_arena
                .begin_copy(&pool, reference(8, len))
                .unwrap();
            let mut before = 0;
            for step in 0..3 {
                let filled = order / fillings.pow(step) % fillings;
                let copied = copy.copy_to(filled);
                let case = (len, order, step);
                if filled < before || filled > len {
                    let refused = copied.unwrap_err();
                    assert!(matches!(refused, Corrupt::BlockFilling { .. }), "{case:?}");
                    assert!(copy.finish(len).is_err(), "it stays refused: {case:?}");
                    break;
                }
                assert_eq!(copied.unwrap(), (filled - before) as usize, "{case:?}");
                before = filled;
            }
        }
    }
}

/// Covers each place of a table of eight and two beyond it, and the last number, each with generations around that
/// of the block that is lent: its release is taken, once, and no other.
#[test]
fn a_release_is_believed_if_and_only_if_its_block_is_lent() {
    let slots = u32::try_from(SLOTS).unwrap();
    for lendings in 1..=3 {
        for index in (0..slots + 2).chain([u32::MAX]) {
            for generation in (0..5).chain([u32::MAX]) {
                let (hostile, mut here) = Hostile::facing(0);
                let mut releases = 0;
                let mut give_back = |here: &mut Endpoint, index, generation| {
                    hostile.set_release(releases % SLOTS, index, generation);
                    releases += 1;
                    hostile.set_release_index(releases as u64);
                    here.arena.collect_releases()
                };
                let mut lent = lend(&mut here);
                for _ in 1..lendings {
                    assert!(give_back(&mut here, lent.index, lent.generation).is_ok());
                    lent = lend(&mut here);
                }
                let is_right = (index, generation) == (lent.index, lent.generation);
                let case = (lent, index, generation);
                let first = give_back(&mut here, index, generation);
                assert_eq!(first.is_ok(), is_right, "{case:?}");
                let again = give_back(&mut here, index, generation);
                assert!(again.is_err(), "a second time: {case:?}");
            }
        }
    }
}

fn lend(here: &mut Endpoint) -> BlockRef {
    let block = here.arena.allocate(1).unwrap();
    let reference = block.reference();
    let reserved = here.producer.reserve_with_block(0, block).unwrap();
    reserved.commit();
    reference
}
