//! Blocks: reuse, growth, and giving memory back.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::BufMut;

use super::space::{Extent, Space, granules};
use crate::{
    ArenaConfig, ArenaError, BlockRef, BlockWriter, Corrupt, Endpoint, EndpointConfig, Filling,
    Inbox, RegionConfig, SegmentId,
};

const SEGMENT: usize = 65_536;

fn pair() -> (Endpoint, Endpoint) {
    let region = RegionConfig {
        ring_bytes: 4096,
        release_slots: 16,
    };
    let arena = ArenaConfig {
        segment_bytes: SEGMENT,
        max_block_bytes: 4 * SEGMENT,
        max_total_bytes: 4 * SEGMENT,
    };
    Endpoint::pair(&EndpointConfig {
        region,
        arena,
        ..EndpointConfig::default()
    })
    .unwrap()
}

/// Sends the block and has the peer take it; the peer holds it.
fn lend(here: &mut Endpoint, there: &mut Endpoint, block: BlockWriter) -> BlockRef {
    here.producer.reserve_with_block(0, block).unwrap().commit();
    let mut inbox = Inbox::default();
    there.consumer.take(&mut inbox).unwrap();
    let record = inbox.records().next().unwrap().unwrap();
    record.block.unwrap()
}

#[test]
fn the_block_used_last_comes_first() {
    let (mut here, mut there) = pair();
    let (cold, warm) = (
        here.arena.allocate(8000).unwrap(),
        here.arena.allocate(8000).unwrap(),
    );
    let (cold, warm) = (
        lend(&mut here, &mut there, cold),
        lend(&mut here, &mut there, warm),
    );
    there.peer_arena.release(cold);
    there.peer_arena.release(warm);
    assert!(here.arena.has_releases());
    let again = here.arena.allocate(7000).unwrap().reference();
    assert_eq!((again.offset, again.segment), (warm.offset, warm.segment));
    assert!(!here.arena.has_releases());
}

#[test]
fn a_writer_dropped_gives_its_block_back() {
    let (mut here, _there) = pair();
    for _ in 0..100 {
        let writer = here.arena.allocate(SEGMENT).unwrap();
        assert_eq!(writer.reference().segment, SegmentId(0));
    }
    assert_eq!(here.arena.total_bytes(), SEGMENT);
}

#[test]
fn slots_bound_what_is_out() {
    let (mut here, _there) = pair();
    let writers: Vec<_> = (0..16).map(|_| here.arena.allocate(1).unwrap()).collect();
    assert!(matches!(here.arena.allocate(1), Err(ArenaError::Exhausted)));
    drop(writers);
    here.arena.allocate(1).unwrap();
}

#[test]
fn bytes_bound_what_is_allocated() {
    let (mut here, _there) = pair();
    let too_large = here.arena.allocate(4 * SEGMENT + 1);
    assert!(matches!(too_large, Err(ArenaError::TooLarge { .. })));
    let writers: Vec<_> = (0..4)
        .map(|_| here.arena.allocate(SEGMENT).unwrap())
        .collect();
    assert!(matches!(here.arena.allocate(1), Err(ArenaError::Exhausted)));
    drop(writers);
    // Four free segments of the usual size stand in the way of one four times as large.
    let large = here.arena.allocate(4 * SEGMENT).unwrap();
    assert_eq!(here.arena.total_bytes(), 4 * SEGMENT);
    assert_eq!(
        here.arena.new_segments().len(),
        1,
        "the four were never sent"
    );
    assert!(here.arena.retired_segments().is_empty());
    drop(large);
}

#[test]
fn free_neighbours_become_one() {
    let (mut here, _there) = pair();
    let writers: Vec<_> = (0..16)
        .map(|_| here.arena.allocate(SEGMENT / 16).unwrap())
        .collect();
    drop(writers);
    let whole = here.arena.allocate(SEGMENT).unwrap();
    assert_eq!(whole.reference().segment, SegmentId(0));
}

#[test]
fn idle_segments_are_given_back_after_a_while() {
    let (mut here, mut there) = pair();
    let (start, idle) = (Instant::now(), Duration::from_secs(10));
    let (held, dropped) = (
        here.arena.allocate(SEGMENT).unwrap(),
        here.arena.allocate(SEGMENT).unwrap(),
    );
    let segments: Vec<_> = here
        .arena
        .new_segments()
        .into_iter()
        .map(|segment| segment.id)
        .collect();
    assert_eq!(segments, [SegmentId(0), SegmentId(1)]);
    let held = lend(&mut here, &mut there, held);
    drop(dropped);
    assert!(
        here.arena.trim(start, idle).unwrap().is_empty(),
        "only seen idle now"
    );
    assert_eq!(here.arena.trim(start + idle, idle).unwrap(), [SegmentId(1)]);
    there.peer_arena.release(held);
    assert!(here.arena.trim(start + idle, idle).unwrap().is_empty());
    assert_eq!(
        here.arena.trim(start + 2 * idle, idle).unwrap(),
        [SegmentId(0)]
    );
    assert_eq!(here.arena.total_bytes(), 0);
    let next = here.arena.allocate(1).unwrap();
    assert_eq!(
        next.reference().segment,
        SegmentId(2),
        "ids are not used twice"
    );
}

#[test]
fn a_block_is_copied_while_it_is_filled() {
    let (mut here, mut there) = pair();
    let mut writer = here.arena.allocate(5000).unwrap();
    let segment = here.arena.new_segments().remove(0);
    there
        .peer_arena
        .add_segment(segment.id, segment.len, segment.descriptor)
        .unwrap();
    let reference = writer.reference();
    let mut copy = there.peer_arena.begin_copy(&there.pool, reference).unwrap();
    let mut tell = |filled| {
        let more = copy.copy_to(u32::try_from(filled).unwrap()).unwrap();
        assert_eq!(more, 1000);
    };
    let mut filling = Filling::new(writer.as_mut_slice(), 1000, &mut tell);
    (0..500u16).for_each(|number| filling.put_u16_le(number));
    filling.put_slice(&[7; 3500]);
    assert_eq!(filling.remaining_mut(), 500);
    filling.put(&[8; 500][..]);
    // What was copied is not read again.
    writer.as_mut_slice()[..4000].fill(0);
    writer.truncate(4900);
    let reference = lend(&mut here, &mut there, writer);
    assert!(copy.is_of(&reference));
    let bytes = copy.finish(reference.len).unwrap();
    let numbers = (0..500u16).flat_map(u16::to_le_bytes);
    let expected: Vec<u8> = numbers.chain([7; 3500]).chain([8; 400]).collect();
    assert_eq!(bytes, expected);
    there.peer_arena.release(reference);
    let again = here.arena.allocate(5000).unwrap().reference();
    assert_eq!(again.offset, reference.offset);
    let copy = there.peer_arena.begin_copy(&there.pool, again).unwrap();
    assert!(!copy.is_of(&reference), "another lending");
}

#[test]
fn a_block_that_shrinks_is_refused() {
    for (filled, copied, lengths) in [(5001, 0, &[5001][..]), (99, 100, &[100, 99])] {
        let (mut here, mut there) = pair();
        let writer = here.arena.allocate(5000).unwrap();
        let segment = here.arena.new_segments().remove(0);
        there
            .peer_arena
            .add_segment(segment.id, segment.len, segment.descriptor)
            .unwrap();
        let arena = &there.peer_arena;
        let mut copy = arena.begin_copy(&there.pool, writer.reference()).unwrap();
        let refused = lengths.iter().map(|filled| copy.copy_to(*filled)).last();
        let corrupt = Corrupt::BlockFilling {
            filled,
            copied,
            len: 5000,
        };
        assert_eq!(refused, Some(Err(corrupt)));
        assert_eq!(there.consumer.take(&mut Inbox::default()), Err(corrupt));
    }
}

#[test]
fn use_between_two_trims_keeps_a_segment() {
    let (mut here, _there) = pair();
    let (start, idle) = (Instant::now(), Duration::from_secs(10));
    drop(here.arena.allocate(1).unwrap());
    assert!(here.arena.trim(start, idle).unwrap().is_empty());
    drop(here.arena.allocate(1).unwrap());
    assert!(here.arena.trim(start + idle, idle).unwrap().is_empty());
}

#[test]
fn a_block_outlives_its_segment_and_its_writer_the_arena() {
    let (mut here, mut there) = pair();
    let mut writer = here.arena.allocate(5000).unwrap();
    writer.as_mut_slice().fill(9);
    let segment = here.arena.new_segments().remove(0);
    there
        .peer_arena
        .add_segment(segment.id, segment.len, segment.descriptor)
        .unwrap();
    let reference = lend(&mut here, &mut there, writer);
    let mut late = here.arena.allocate(10).unwrap();
    let block = there.peer_arena.block(reference).unwrap();
    assert!(there.peer_arena.remove_segment(segment.id));
    drop(here.arena);
    late.as_mut_slice().fill(1);
    let mut bytes = b"before".to_vec();
    block.copy_to(&mut bytes);
    assert_eq!((bytes.len(), bytes[5], bytes[6]), (5006, b'e', 9));
}

/// Covers all orders of six steps of a segment of four granules: one, two or three granules are asked for, or one of
/// the extents that are out is given back. What is out never overlaps, nothing is refused for which there is room in
/// one piece, and all bytes are there again at the end.
#[test]
fn all_orders_of_taking_and_giving_back_in_a_small_segment() {
    const GRANULES: u32 = 4;
    const STEPS: u32 = 6;
    /// Three lengths to take, and four extents at most to give back.
    const CHOICES: u32 = 3 + GRANULES;
    let granule = u32::try_from(granules(1)).unwrap();
    let mut refused = 0;
    for order in 0..CHOICES.pow(STEPS) {
        let mut space = Space::default();
        space.add_segment(SegmentId(0), GRANULES * granule);
        let mut out: Vec<Extent> = Vec::new();
        for step in 0..STEPS {
            let choice = order / CHOICES.pow(step) % CHOICES;
            if let Some(index) = choice.checked_sub(3) {
                if out.len() <= index as usize {
                    break;
                }
                space.free(out.swap_remove(index as usize));
                continue;
            }
            let len = (choice + 1) * granule;
            let is_free = |at: u32| {
                out.iter()
                    .all(|taken| at < taken.offset || at >= taken.offset + taken.len)
            };
            let has_room = (0..GRANULES).any(|first| {
                let end = first + choice + 1;
                end <= GRANULES && (first..end).all(|at| is_free(at * granule))
            });
            let extent = space.allocate(len as usize - 1);
            assert_eq!(extent.is_some(), has_room, "{order} at {step}");
            refused += u32::from(!has_room);
            let Some(extent) = extent else { continue };
            let end = extent.offset + extent.len;
            assert!(extent.len >= len && end <= GRANULES * granule, "{extent:?}");
            let mut all = (extent.offset..end).step_by(granule as usize);
            assert!(all.all(is_free), "{order} at {step}: taken twice");
            out.push(extent);
        }
        let used: u32 = out.iter().map(|extent| extent.len).sum();
        assert_eq!(space.used_bytes(), used as usize, "{order}");
        out.drain(..).for_each(|extent| space.free(extent));
        let whole = space.allocate((GRANULES * granule) as usize);
        assert_eq!(whole.map(|extent| extent.offset), Some(0), "{order}");
    }
    assert!(refused > 10_000, "{refused}");
}

#[test]
fn a_segment_that_is_set_aside_serves_nobody() {
    let (mut here, mut there) = pair();
    let lent = here.arena.allocate(8000).unwrap();
    let lent = lend(&mut here, &mut there, lent);
    assert_eq!(here.arena.new_segments().len(), 1);
    drop(here.arena.allocate(8000).unwrap());
    // The peer has it, so that it is to hear that it goes.
    drop(here.arena.new_segments());
    there.peer_arena.refuse_segment(lent.segment).unwrap();
    assert!(here.arena.set_aside(lent.segment));
    assert!(!here.arena.set_aside(SegmentId(9)));
    // There is room in it, but for nobody; and no other one is made.
    let none = here.arena.allocate_there(8000);
    assert!(matches!(none, Err(ArenaError::NoSegment { len: 8000 })));
    let other = here.arena.allocate(8000).unwrap().reference().segment;
    assert_ne!(other, lent.segment);
    assert!(here.arena.allocate_there(8000).is_ok());
    // What is under way in it is given back unread, and then it goes.
    there.peer_arena.release(lent);
    let retired = here.arena.trim(Instant::now(), Duration::from_secs(60));
    assert_eq!(retired.unwrap(), [lent.segment]);
    assert!(there.peer_arena.remove_segment(lent.segment));
    assert!(!there.peer_arena.is_refused(lent.segment));
}
