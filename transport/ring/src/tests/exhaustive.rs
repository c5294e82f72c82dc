//! The arithmetic of records and indices, with every value of rings so small that all of them can be tried. Wider
//! rings differ in their mask alone.

use crate::layout::RECORD_ALIGN;
use crate::mock::{Hostile, RING_BYTES, config};
use crate::record::{BLOCK, BLOCK_REF_BYTES, HEADER_BYTES, PAD, records};
use crate::{Corrupt, Endpoint, Inbox, ReserveError};

/// Rings that hold a few records each.
const SMALL: [usize; 3] = [32, 64, 128];

/// The first record as the format's description has it, by sums that can't overflow: how many bytes it takes, and
/// how many of them are inline. A PAD has none.
fn expected(published: usize, to_end: usize, len: u32, flags: u32) -> Option<(u64, Option<u64>)> {
    let room = published.min(to_end) as u64;
    if room < HEADER_BYTES as u64 {
        return None;
    }
    let len = u64::from(len);
    match flags {
        PAD => {
            let total = len + HEADER_BYTES as u64;
            (total == to_end as u64 && total <= published as u64).then_some((total, None))
        }
        0 | BLOCK => {
            let block = if flags == BLOCK { BLOCK_REF_BYTES } else { 0 };
            let used = (HEADER_BYTES + block) as u64 + len;
            let total = used.div_ceil(RECORD_ALIGN as u64) * RECORD_ALIGN as u64;
            (total <= room).then_some((total, Some(len)))
        }
        _ => None,
    }
}

/// Covers, for rings of 32, 64 and 128 bytes: each place of the first record, also where positions wrap around
/// 2^64; each published length; each length of the record up to beyond the ring and at the end of its type; each of
/// the flags and three that there are not; with reserved words of zero.
#[test]
fn each_record_of_a_small_ring_is_parsed_or_refused_as_described() {
    let mut cases = 0_u64;
    for ring_bytes in SMALL {
        let ring = ring_bytes as u64;
        for start in [0, u64::MAX - ring + 1] {
            for at in (0..ring).step_by(RECORD_ALIGN) {
                for published in (0..=ring_bytes).step_by(RECORD_ALIGN) {
                    let lens = (0..=u32::try_from(ring_bytes).unwrap() + 16)
                        .chain((0..16).map(|below| u32::MAX - below));
                    for len in lens {
                        for flags in [0, PAD, BLOCK, PAD | BLOCK, 4, u32::MAX] {
                            check(ring_bytes, start + at, published, len, flags);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 500_000, "{cases}");
}

fn check(ring_bytes: usize, position: u64, published: usize, len: u32, flags: u32) {
    let mut bytes = vec![0; published];
    for (at, byte) in [len.to_le_bytes(), flags.to_le_bytes()]
        .concat()
        .iter()
        .enumerate()
    {
        if let Some(place) = bytes.get_mut(at) {
            *place = *byte;
        }
    }
    let to_end = ring_bytes - usize::try_from(position % ring_bytes as u64).unwrap();
    let case = (ring_bytes, position, published, len, flags);
    let mut parsed = records(&bytes, position, ring_bytes);
    match expected(published, to_end, len, flags) {
        _ if published == 0 => assert!(parsed.next().is_none(), "{case:?}"),
        None => {
            assert!(matches!(parsed.next(), Some(Err(_))), "{case:?}");
            assert!(parsed.next().is_none(), "it ends after an error: {case:?}");
        }
        Some((_, Some(inline))) => {
            let first = parsed.next().unwrap().unwrap();
            assert_eq!(first.bytes.len() as u64, inline, "{case:?}");
            assert_eq!(first.block.is_some(), flags == BLOCK, "{case:?}");
        }
        // What follows a PAD is zeroes: empty records, as long as there are whole ones.
        Some((total, None)) => {
            let rest = (published as u64 - total) / HEADER_BYTES as u64;
            assert_eq!(parsed.map(Result::unwrap).count() as u64, rest, "{case:?}");
        }
    }
}

/// Numbers at which sums of indices could go wrong.
fn starts() -> [u64; 5] {
    let below = |end: u64| end - RECORD_ALIGN as u64;
    [0, RING_BYTES as u64, below(1 << 32), 1 << 63, u64::MAX - 7]
}

/// Distances from a cursor: each around zero and around the ring's size, and each power of two with its neighbours.
fn distances() -> Vec<u64> {
    let ring = RING_BYTES as u64;
    let around = |middle: u64| (0..=40).map(move |step| middle.wrapping_sub(20).wrapping_add(step));
    let powers = (0..64).flat_map(|bit| [(1 << bit) - 1, 1_u64 << bit, (1 << bit) + 1]);
    around(0).chain(around(ring)).chain(powers).collect()
}

/// Covers those distances from cursors at the ends of 32 and 64 bits: an index is believed if it is aligned and not
/// more than a ring ahead, and no other.
#[test]
fn an_index_is_believed_if_and_only_if_it_is_within_the_ring() {
    for start in starts() {
        for distance in distances() {
            let index = start.wrapping_add(distance);
            let (hostile, mut victim) = Hostile::facing(start);
            hostile.set_producer_index(index);
            let taken = victim.consumer.take(&mut Inbox::default());
            let is_right =
                distance <= RING_BYTES as u64 && distance.is_multiple_of(RECORD_ALIGN as u64);
            assert_eq!(
                taken.is_ok(),
                is_right,
                "{start:#x} {distance:#x}: {taken:?}"
            );
            if let Ok(bytes) = taken {
                assert_eq!(bytes as u64, distance);
            }
        }
    }
}

/// The same of the peer's cursor, when one record and the padding before it are published.
#[test]
fn a_cursor_is_believed_if_and_only_if_it_is_within_what_was_published() {
    const LEN: usize = 512;
    for start in starts() {
        let around = (0..=60).map(|step| LEN as u64 - 20 + step);
        for distance in distances().into_iter().chain(around) {
            let (hostile, mut victim) = Hostile::facing(start);
            let end = victim.producer.reserve(LEN).unwrap().commit();
            let published = end.0.wrapping_sub(start);
            hostile.set_consumer_cursor(start.wrapping_add(distance));
            let seen = victim.producer.peer_cursor();
            let is_right = distance <= published && distance.is_multiple_of(RECORD_ALIGN as u64);
            assert_eq!(seen.is_ok(), is_right, "{start:#x} {distance:#x}: {seen:?}");
        }
    }
}

/// Covers each length of a record from each eighth place of the ring: it comes out as it went in, or is too large.
#[test]
fn each_length_fits_wherever_the_ring_stands() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let mut inbox = Inbox::default();
    let max = here.producer.max_inline();
    for len in 0..=max + 16 {
        let reserved = here.producer.reserve(len).map(|mut reservation| {
            reservation.fill(u8::try_from(len % 251).unwrap());
            reservation.commit()
        });
        match reserved {
            Ok(_) if len <= max => {}
            Err(ReserveError::TooLarge { .. }) if len > max => continue,
            other => panic!("{len} of {max}: {other:?}"),
        }
        there.consumer.take(&mut inbox).unwrap();
        let records: Result<Vec<_>, Corrupt> = inbox.records().collect();
        let records = records.unwrap();
        assert_eq!(records.len(), 1, "{len}");
        assert_eq!(
            records[0].bytes,
            vec![u8::try_from(len % 251).unwrap(); len]
        );
    }
}
