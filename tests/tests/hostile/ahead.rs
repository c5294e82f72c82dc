//! What is told of a large message while it is written, before the frame that lends its block.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;

use prost::Message;
use ringway_proto::bench::Payload;
use ringway_ring::{BlockRef, BlockWriter, Inbox};
use ringway_sys::EventFd;
use ringway_tests::{in_a_process_of_its_own, peak_resident_bytes};
use ringway_wire::{Capabilities, FrameHeader, Kind};

use crate::frames::{FIRST_CALL, request, unary_head};
use crate::regions::{memfd, region_with, sealed};
use crate::{
    Joined, SHM, assert_hung_up, besiege, connect, hello, is_hung_up, join, join_with, send,
};

/// With shared memory: copies what is told of.
const READS_AHEAD: Capabilities = Capabilities(16);
const FILLED: Kind = Kind::Link(0x80);
const LEN: u32 = 100_000;

fn told(block: BlockRef, filled: u32) -> Vec<u8> {
    let header = FrameHeader {
        head_len: 24,
        message_len: filled,
        ..FrameHeader::new(FILLED)
    };
    [&header.encode()[..], &block.encode()].concat()
}

impl Joined {
    /// A block of `LEN` bytes in a segment that the server has.
    fn block(&mut self) -> BlockWriter {
        let block = self.endpoint.arena.allocate(LEN as usize).unwrap();
        for segment in self.endpoint.arena.new_segments() {
            let mut note = [0; 16];
            note[..4].copy_from_slice(&segment.id.0.to_le_bytes());
            note[8..].copy_from_slice(&(segment.len as u64).to_le_bytes());
            send(&self.stream, &note, &[segment.descriptor.as_fd()]);
        }
        block
    }

    /// Lends the block to a call.
    fn lend(&mut self, block: BlockWriter) {
        let head = unary_head();
        let len = u32::try_from(block.len()).unwrap();
        let header = FrameHeader {
            payload_len: len,
            message_len: len,
            ..request(FIRST_CALL, &head)
        };
        let bytes = [&header.encode()[..], &head].concat();
        let producer = &mut self.endpoint.producer;
        let mut reservation = producer.reserve_with_block(bytes.len(), block).unwrap();
        reservation.copy_from_slice(&bytes);
        reservation.commit();
        self.bell.ring().unwrap();
    }
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
            let block = attacker.block().reference();
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
            drop(attacker.block());
            attacker.record(&told(told_of, 1));
            assert_hung_up(what, &attacker.stream);
        }
        // Told of whole, and then lent as less than that.
        let mut attacker = join(root);
        let mut block = attacker.block();
        attacker.record(&told(block.reference(), LEN));
        block.truncate(LEN as usize - 1);
        attacker.lend(block);
        assert_hung_up("shorter in the end", &attacker.stream);
        // A note beside a block that it lends: it is one or the other.
        let mut attacker = join(root);
        let block = attacker.block();
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
            let (first, second) = (attacker.block(), attacker.block());
            for filled in [1000, LEN / 2, LEN] {
                attacker.record(&told(first.reference(), filled));
                attacker.record(&told(second.reference(), filled));
            }
        }
        let mut block = attacker.block();
        let message = Payload {
            sequence: 7,
            data: vec![9; LEN as usize - 100].into(),
        };
        let encoded = message.encode_to_vec();
        block.truncate(encoded.len());
        let (told_of, rest) = encoded.split_at(40_000);
        block.as_mut_slice()[..40_000].copy_from_slice(told_of);
        attacker.record(&told(block.reference(), 40_000));
        block.as_mut_slice()[40_000..].copy_from_slice(rest);
        attacker.lend(block);
        assert_eq!(attacker.ending().kind, Kind::Response);
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
                &[32_768, 65_536, 98_304],
            ),
        ] {
            let mut peer = join_with(root, capabilities);
            let mut block = peer.block();
            let encoded = Payload {
                sequence: 7,
                data: vec![9; LEN as usize - 100].into(),
            };
            let encoded = encoded.encode_to_vec();
            block.truncate(encoded.len());
            block.as_mut_slice().copy_from_slice(&encoded);
            peer.lend(block);
            let (mut filled, mut inbox) = (Vec::new(), Inbox::default());
            let answer = loop {
                peer.endpoint.consumer.take(&mut inbox).unwrap();
                let mut answer = None;
                for record in inbox.records() {
                    let record = record.unwrap();
                    let header = record.bytes.first_chunk().unwrap();
                    let header = FrameHeader::decode(header).unwrap();
                    match header.kind {
                        FILLED => filled.push(header.message_len),
                        Kind::Response => answer = Some(header),
                        _ => {}
                    }
                }
                if let Some(answer) = answer {
                    break answer;
                }
                std::thread::yield_now();
            };
            assert_eq!(answer.message_len as usize, encoded.len());
            assert_eq!(filled, expected, "{capabilities:?}");
        }
    });
}

/// Calls whose messages are all the same block, there from the first look on: the server copies no more of
/// them at once than it gave credit for.
#[test]
fn one_block_lent_to_many_calls() {
    if !in_a_process_of_its_own("ahead::one_block_lent_to_many_calls") {
        return;
    }
    besiege(|root| {
        const BLOCK: usize = 16 << 20;
        const CALLS: u64 = 12;
        let head = unary_head();
        let len = u32::try_from(BLOCK).unwrap();
        let block = BlockRef {
            segment: ringway_ring::SegmentId(0),
            offset: 0,
            len,
            index: 0,
            generation: 0,
        };
        let mut ring = Vec::new();
        for call in 0..CALLS {
            let header = FrameHeader {
                payload_len: len,
                message_len: len,
                ..request(FIRST_CALL | call, &head)
            };
            let inline = [&header.encode()[..], &head].concat();
            ring.extend(u32::try_from(inline.len()).unwrap().to_le_bytes());
            ring.extend(2_u32.to_le_bytes());
            ring.extend(block.encode());
            ring.extend(&inline);
            ring.resize(ring.len().next_multiple_of(8), 0);
        }
        let words = ring
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let mut words: Vec<_> = (4096..).step_by(8).zip(words).collect();
        words.push((128, ring.len() as u64));
        let (region, bell) = (region_with(&words), EventFd::new().unwrap());
        let segment = memfd(BLOCK, sealed());
        let mut note = [0; 16];
        note[8..].copy_from_slice(&(BLOCK as u64).to_le_bytes());
        let before = peak_resident_bytes();
        let grown = || peak_resident_bytes() - before;
        // The server may look before it has the segment, and then copies nothing.
        let stream = loop {
            let mut stream = connect(root);
            stream.write_all(&hello().encode().unwrap()).unwrap();
            send(&stream, b"R", &[region.as_fd(), bell.as_fd()]);
            send(&stream, &note, &[segment.as_fd()]);
            while grown() < BLOCK && !is_hung_up(&stream) {
                std::thread::yield_now();
            }
            if grown() >= BLOCK {
                break stream;
            }
        };
        stream.shutdown(Shutdown::Write).unwrap();
        assert_hung_up("gone", &stream);
        let grown = grown();
        assert!(grown < 6 * BLOCK, "{} MiB more", grown >> 20);
    });
}
