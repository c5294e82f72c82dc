//! What is told of a large message while it is written, before the frame that lends its block.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use prost::Message;
use ringway_proto::bench::Payload;
use ringway_ring::{BlockRef, SegmentId};
use ringway_sys::{Blocking, send_with_descriptors};
use ringway_wire::{Capabilities, FrameHeader, Kind};

use crate::regions::{memfd, sealed};
use crate::{SHM, assert_hung_up, besiege, hello_with, join, join_with, segment_note};

/// With shared memory: copies what is told of.
pub(crate) const READS_AHEAD: Capabilities = Capabilities(16);
const FILLED: Kind = Kind::Link(0x80);
const LEN: u32 = 100_000;

pub(crate) fn told(block: BlockRef, filled: u32) -> Vec<u8> {
    let header = FrameHeader {
        head_len: 24,
        message_len: filled,
        ..FrameHeader::new(FILLED)
    };
    [&header.encode()[..], &block.encode()].concat()
}

/// A message that fills a block nearly, encoded.
fn encoded() -> Vec<u8> {
    let message = Payload {
        sequence: 7,
        data: vec![9; LEN as usize - 100].into(),
    };
    message.encode_to_vec()
}

#[test]
fn notes_that_lie() {
    besiege(|root| {
        for (what, lengths) in [
            ("more than the block has", &[LEN + 1][..]),
            ("4 GiB", &[u32::MAX]),
            ("less than before", &[2000, 1999]),
            ("nothing after something", &[2000, 0]),
        ] {
            let mut attacker = join(root);
            let block = attacker.block(LEN).reference();
            for filled in lengths {
                attacker.record(&told(block, *filled));
            }
            assert_hung_up(what, &attacker.stream);
        }
        let block = BlockRef {
            segment: ringway_ring::SegmentId(0),
            offset: 0,
            len: LEN,
            index: 0,
            generation: 0,
        };
        let good = told(block, 1);
        let reserved = [&good[..good.len() - 1], &[1]].concat();
        let short = &good[..good.len() - 1];
        let long = [&good[..], &[0]].concat();
        for (what, record) in [
            ("a segment that nobody has sent", &good[..]),
            ("a reserved word", &reserved),
            ("less than a block's name", short),
            ("more than that", &long),
        ] {
            let mut attacker = join(root);
            attacker.record(record);
            assert_hung_up(what, &attacker.stream);
        }
        for (what, told_of) in [
            (
                "outside of its segment",
                BlockRef {
                    offset: u32::MAX,
                    ..block
                },
            ),
            (
                "longer than its segment",
                BlockRef {
                    len: u32::MAX,
                    ..block
                },
            ),
        ] {
            let mut attacker = join(root);
            drop(attacker.block(LEN));
            attacker.record(&told(told_of, 1));
            assert_hung_up(what, &attacker.stream);
        }
        // Told of whole, and then lent as less than that.
        let mut attacker = join(root);
        let mut block = attacker.block(LEN);
        attacker.record(&told(block.reference(), LEN));
        block.truncate(LEN as usize - 1);
        attacker.lend(block);
        assert_hung_up("shorter in the end", &attacker.stream);
        // A note beside a block that it lends: it is one or the other.
        let mut attacker = join(root);
        let block = attacker.block(LEN);
        let note = told(block.reference(), 1);
        let producer = &mut attacker.endpoint.producer;
        let mut reservation = producer.reserve_with_block(note.len(), block).unwrap();
        reservation.copy_from_slice(&note);
        reservation.commit();
        attacker.bell.ring().unwrap();
        assert_hung_up("a note that lends", &attacker.stream);
    });
}

/// Blocks that are told of and given up, one after the other and in turns, and one that is lent at last.
#[test]
fn blocks_that_are_given_up() {
    besiege(|root| {
        let mut attacker = join(root);
        for _ in 0..3 {
            let (first, second) = (attacker.block(LEN), attacker.block(LEN));
            for filled in [1000, LEN / 2, LEN] {
                attacker.record(&told(first.reference(), filled));
                attacker.record(&told(second.reference(), filled));
            }
        }
        let mut block = attacker.block(LEN);
        let encoded = encoded();
        block.truncate(encoded.len());
        let (told_of, rest) = encoded.split_at(40_000);
        block.as_mut_slice()[..40_000].copy_from_slice(told_of);
        attacker.record(&told(block.reference(), 40_000));
        block.as_mut_slice()[40_000..].copy_from_slice(rest);
        attacker.lend(block);
        assert_eq!(attacker.ending().kind, Kind::Response);
    });
}

/// Each record names a segment whose note comes behind a thousand others, which the peer sends meanwhile.
#[test]
fn segments_behind_a_flood_of_notes() {
    const SEGMENTS: u32 = 32;
    const OTHERS: u32 = 1 << 20;
    const BYTES: usize = 4096;
    besiege(|root| {
        let mut attacker = join(root);
        let stream = attacker.stream.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            // Never asleep, so that the socket is never empty.
            let say = |id, len: usize, descriptors: &[BorrowedFd<'_>]| {
                let note = segment_note(id, len as u64);
                let socket = stream.as_fd();
                while let Err(ringway_sys::Error::Io(error)) =
                    send_with_descriptors(socket, &note, descriptors, Blocking::Never)
                    && error.kind() == ErrorKind::WouldBlock
                {
                    std::hint::spin_loop();
                }
            };
            let other = memfd(BYTES, sealed());
            for id in 0..SEGMENTS {
                for _ in 0..500 {
                    say(OTHERS, BYTES, &[other.as_fd()]);
                    say(OTHERS, 0, &[]);
                }
                say(id, BYTES, &[memfd(BYTES, sealed()).as_fd()]);
            }
        });
        // The socket is full by then: a record whose segment is not under way is a lie.
        std::thread::sleep(Duration::from_millis(5));
        for id in 0..SEGMENTS {
            let block = BlockRef {
                segment: SegmentId(id),
                offset: 0,
                len: u32::try_from(BYTES).unwrap(),
                index: 0,
                generation: 0,
            };
            attacker.record(&told(block, 1));
        }
        flood.join().unwrap();
    });
}

/// A peer that says that it reads ahead is told, another one is not.
#[test]
fn only_who_asks_is_told() {
    besiege(|root| {
        for (capabilities, expected) in [
            (SHM, &[][..]),
            (
                Capabilities(SHM.0 | READS_AHEAD.0),
                &[16_384, 32_768, 49_152, 65_536, 81_920, 98_304],
            ),
        ] {
            let mut peer = join_with(root, &hello_with(capabilities));
            let mut block = peer.block(LEN);
            let encoded = encoded();
            block.truncate(encoded.len());
            block.as_mut_slice().copy_from_slice(&encoded);
            peer.lend(block);
            let mut filled = Vec::new();
            let answer = peer.wait_for(|header| {
                if header.kind == FILLED {
                    filled.push(header.message_len);
                }
                header.kind == Kind::Response
            });
            assert_eq!(answer.message_len as usize, encoded.len());
            assert_eq!(filled, expected, "{capabilities:?}");
        }
    });
}
