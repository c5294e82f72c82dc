//! Peers that break no rule of the memory, and none of the frames, but of good manners: who never read, never ring,
//! ring without end, or are always one ahead.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway_sys::EventFd;
use ringway_tests::resident_bytes;
use ringway_wire::{Flags, FrameHeader, Kind, Method, RequestHead};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_setfl};

use crate::frames::{FIRST_CALL, request, unary_head};
use crate::regions::{REGION_BYTES, memfd, region_with, sealed};
use crate::{
    Joined, assert_hung_up, besiege, besiege_from, connect, greet, hello, is_hung_up, join,
    read_hello, segment_note, send,
};

/// How long an attack without an end of its own lasts.
const SIEGE: Duration = Duration::from_millis(300);

fn head_with_timeout(path: &str, timeout: Duration) -> Vec<u8> {
    let head = RequestHead {
        timeout: Some(timeout),
        ..RequestHead::new(Method::Inline(path))
    };
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    bytes
}

impl Joined {
    /// Publishes a record if there is room; does not ring.
    fn publish(&mut self, header: FrameHeader, rest: &[u8]) -> bool {
        let bytes = [&header.encode()[..], rest].concat();
        if !self.endpoint.producer.has_room(bytes.len()) {
            return false;
        }
        let mut reservation = self.endpoint.producer.reserve(bytes.len()).unwrap();
        reservation.copy_from_slice(&bytes);
        reservation.commit();
        true
    }
}

/// Takes no answer, ever: the calls meet their deadlines, and the server's memory stays within bounds.
#[test]
fn a_cursor_that_stands_still() {
    besiege(|siege| {
        let before = resident_bytes();
        let mut attacker = join(siege);
        let timeout = Duration::from_millis(100);
        let head = head_with_timeout("/ringway.bench.v1.Bench/Unary", timeout);
        // An echo of 8 KiB each: four of them fill the ring of answers.
        let payload: Vec<u8> = [0x12, 0x80, 0x40].into_iter().chain([7; 8192]).collect();
        let len = u32::try_from(payload.len()).unwrap();
        let rest = [&head[..], &payload].concat();
        let began = Instant::now();
        let mut slot = 0;
        while began.elapsed() < SIEGE && slot < 10_000 {
            let header = FrameHeader {
                payload_len: len,
                message_len: len,
                ..request(FIRST_CALL | slot, &head)
            };
            if attacker.publish(header, &rest) {
                slot += 1;
            } else {
                std::thread::yield_now();
            }
            // It may have hung up: that is no crime either.
            let _ = attacker.bell.ring();
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{} MiB for {slot} calls", grown >> 20);
        let began = Instant::now();
        while siege.seen.inside() > 1 {
            assert!(began.elapsed() < Duration::from_secs(5), "deadlines fire");
            std::thread::yield_now();
        }
    });
}

/// What is told of early, and changes until the end: the server decodes one consistent copy.
#[test]
fn a_payload_that_changes_while_it_is_read() {
    const LEN: usize = 400_000;
    besiege(|siege| {
        for _ in 0..8 {
            let mut attacker = join(siege);
            let mut block = attacker.block(u32::try_from(LEN).unwrap());
            let reference = block.reference();
            let told = |filled: usize| {
                let header = FrameHeader {
                    head_len: 24,
                    message_len: u32::try_from(filled).unwrap(),
                    ..FrameHeader::new(Kind::Link(0x80))
                };
                [&header.encode()[..], &reference.encode()].concat()
            };
            let begin = [0x12, 0xfc, 0xb4, 0x18];
            let memory = block.as_mut_slice();
            memory[..4].copy_from_slice(&begin);
            for filled in (16_384..LEN).step_by(16_384) {
                attacker.record(&told(filled));
                // Behind what it has told of, over and over.
                for round in 0..4 {
                    block.as_mut_slice()[4..filled].fill(round);
                }
                // Also what the message's own structure is made of.
                block.as_mut_slice()[..4].copy_from_slice(&[0xff; 4]);
                block.as_mut_slice()[..4].copy_from_slice(&begin);
            }
            attacker.lend(block);
            let ending = attacker.ending();
            assert!(matches!(ending.kind, Kind::Response | Kind::Trailers));
        }
    });
}

/// The size of an offered memfd changes without pause while it is looked at.
#[test]
fn a_size_that_changes_between_the_checks() {
    besiege_from(2, |siege| {
        let bell = EventFd::new().unwrap();
        for round in 0..16_u64 {
            let region = memfd(REGION_BYTES, SealFlags::empty());
            let (ended, file) = (
                Arc::new(AtomicBool::new(false)),
                region.try_clone().unwrap(),
            );
            let end = Arc::clone(&ended);
            let changing = std::thread::spawn(move || {
                let began = Instant::now();
                while !end.load(Ordering::Relaxed) {
                    // Refused once it is sealed.
                    let _ = file.set_len(4096);
                    let _ = file.set_len(REGION_BYTES as u64);
                    if began.elapsed() > Duration::from_micros(200 * round) {
                        let _ = rustix::fs::fcntl_add_seals(&file, sealed());
                    }
                }
            });
            let stream = greet(siege);
            send(&stream, b"R", &[region.as_fd(), bell.as_fd()]);
            assert_hung_up("a size that changes", &stream);
            ended.store(true, Ordering::Relaxed);
            changing.join().unwrap();
        }
    });
}

/// An honest region whose doorbell is full, of a peer that sleeps: each answer would ring. Where a thread of the server
/// loses its CPU amid such a ring, the doorbell seems to hold it up, and the connection ends.
#[test]
fn a_doorbell_that_is_full() {
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    static CUTS: AtomicU32 = AtomicU32::new(0);
    besiege(|siege| {
        let mut attacker = join(siege);
        let full = (u64::MAX - 1).to_ne_bytes();
        // Whatever it is made of: until it takes no more.
        for _ in 0..100_000 {
            if rustix::io::write(attacker.own_bell.as_fd(), &full).is_err() {
                break;
            }
        }
        let head = unary_head();
        for call in 0..100 {
            attacker.endpoint.consumer.arm();
            attacker.frame(request(FIRST_CALL | call, &head), &head);
            let ends = |kind| matches!(kind, Kind::Response | Kind::Trailers | Kind::Reset);
            let Some(ending) = attacker.wait_unless_cut_off(|header| ends(header.kind)) else {
                CUTS.fetch_add(1, Ordering::Relaxed);
                return;
            };
            assert_eq!(ending.kind, Kind::Response);
            ANSWERS.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (answers, cuts) = (
        ANSWERS.load(Ordering::Relaxed),
        CUTS.load(Ordering::Relaxed),
    );
    assert!(
        answers >= 100 * cuts,
        "cut off {cuts} times, with {answers} answers"
    );
}

/// Its peer would wait for ever in write(2), and every call of that worker with it: `O_NONBLOCK` belongs to both. Its
/// owner may fill the doorbell again as soon as it is emptied.
#[test]
fn a_doorbell_that_blocks_who_rings_it() {
    for fills_again in [false, true] {
        besiege(move |siege| {
            let mut attacker = join(siege);
            let bell = attacker.own_bell.as_fd().try_clone_to_owned().unwrap();
            rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            fcntl_setfl(&bell, OFlags::empty()).unwrap();
            let head = unary_head();
            let ended = Arc::new(AtomicBool::new(false));
            let filling = fills_again.then(|| {
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || {
                    // Waits while it is full, and for good in the end: nobody reads it.
                    fcntl_setfl(&bell, OFlags::NONBLOCK).unwrap();
                    while !ended.load(Ordering::Relaxed) {
                        // Full is what it shall be.
                        let _ = rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes());
                        fcntl_setfl(&bell, OFlags::empty()).unwrap();
                        std::thread::sleep(Duration::from_micros(50));
                        fcntl_setfl(&bell, OFlags::NONBLOCK).unwrap();
                    }
                })
            });
            // A ring that comes while the doorbell does not block is lost, and no crime.
            for call in 0..200 {
                attacker.endpoint.consumer.arm();
                if !attacker.publish(request(FIRST_CALL | call, &head), &head) {
                    break;
                }
                let _ = attacker.bell.ring();
                std::thread::sleep(Duration::from_millis(1));
                if is_hung_up(&attacker.stream) {
                    break;
                }
            }
            assert_hung_up("a doorbell that blocks", &attacker.stream);
            ended.store(true, Ordering::Relaxed);
            filling
                .into_iter()
                .for_each(|filling| filling.join().unwrap());
        });
    }
}

/// Publishes and never rings: what it wrote is found by the second look, which comes once a second, and costs nobody
/// anything.
#[test]
fn a_peer_that_never_rings() {
    besiege(|siege| {
        let mut attacker = join(siege);
        let head = unary_head();
        // The server comes to rest first.
        std::thread::sleep(Duration::from_millis(50));
        for call in 0..10 {
            assert!(attacker.publish(request(FIRST_CALL | call, &head), &head));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!is_hung_up(&attacker.stream));
        let began = Instant::now();
        let mut answers = 0;
        attacker.wait_for(|header| {
            answers += u32::from(header.kind == Kind::Response);
            answers == 10
        });
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    });
}

/// Gone between publish and wake: the call is seen all the same. Gone before it publishes: there is none.
#[test]
fn a_peer_that_dies_before_it_rings() {
    besiege(|siege| {
        // The client beside it calls as well, with sequence 0 and without a stream.
        let head = head_with_timeout("/ringway.bench.v1.Bench/ClientStream", SIEGE);
        let open = FrameHeader {
            flags: Flags::NONE,
            ..request(FIRST_CALL, &head)
        };
        let messages = siege.seen.received();
        let message = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            ..FrameHeader::new(Kind::Message)
        };
        let mut attacker = join(siege);
        let bytes = [&open.encode()[..], &head].concat();
        let mut reservation = attacker.endpoint.producer.reserve(bytes.len()).unwrap();
        reservation.copy_from_slice(&bytes);
        // Dropped without a commit, as by a process that dies here.
        drop(reservation);
        drop(attacker);
        let mut attacker = join(siege);
        std::thread::sleep(Duration::from_millis(20));
        assert!(attacker.publish(open, &head) && attacker.publish(message, &[]));
        drop(attacker);
        let began = Instant::now();
        while siege.seen.received() == messages && began.elapsed() < SIEGE {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        let received = siege.seen.received() - messages;
        assert!(received <= 1, "{received} messages of one");
        assert_eq!(siege.seen.committed(), 0);
    });
}

/// A retired segment that comes with a descriptor, and a hello that does.
#[test]
fn descriptors_beside_what_takes_none() {
    besiege(|siege| {
        let file = tempfile::tempfile().unwrap();
        let mut attacker = join(siege);
        drop(attacker.block(100_000));
        send(&attacker.stream, &segment_note(0, 0), &[file.as_fd()]);
        assert_hung_up("a retired segment with a descriptor", &attacker.stream);
        for byte in [0, 1, 60] {
            let mut stream = connect(siege);
            let hello = hello().encode().unwrap();
            let (before, rest) = hello.split_at(byte);
            stream.write_all(before).unwrap();
            send(&stream, rest, &[file.as_fd(); 16]);
            read_hello(&stream);
            let (region, bell) = (region_with(&[]), EventFd::new().unwrap());
            send(&stream, b"R", &[region.as_fd(), bell.as_fd()]);
            drop(stream);
        }
    });
}

/// Segments of legal size, added and retired without pause by two threads.
#[test]
fn a_flood_of_segment_notes() {
    besiege(|siege| {
        let attacker = join(siege);
        let segment = memfd(4096, sealed());
        let began = Instant::now();
        while began.elapsed() < SIEGE && !is_hung_up(&attacker.stream) {
            for id in 0..64 {
                send(
                    &attacker.stream,
                    &segment_note(id, 4096),
                    &[segment.as_fd()],
                );
                send(&attacker.stream, &segment_note(id, 0), &[]);
            }
        }
    });
}

/// Rings without pause for a while, whatever the server does.
#[test]
fn a_storm_of_rings_beside_calls() {
    besiege(|siege| {
        let attacker = join(siege);
        let began = Instant::now();
        while began.elapsed() < SIEGE {
            attacker.bell.ring().unwrap();
        }
    });
}

/// The ring is never empty when the server looks again.
#[test]
fn a_writer_that_is_always_one_ahead() {
    besiege(|siege| {
        let mut attacker = join(siege);
        let head = RequestHead::new(Method::Inline("/ringway.bench.v1.Bench/ClientStream"));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let open = FrameHeader {
            flags: Flags::NONE,
            ..request(FIRST_CALL, &bytes)
        };
        attacker.frame(open, &bytes);
        // Of no consequence, and without a cost in credit.
        let credit = FrameHeader {
            call: FIRST_CALL,
            ..FrameHeader::new(Kind::Credit)
        };
        let began = Instant::now();
        while began.elapsed() < SIEGE {
            if !attacker.publish(credit, &[]) {
                std::hint::spin_loop();
            }
        }
        // It may have hung up: that is its right.
        let _ = attacker.bell.ring();
    });
}

/// Messages of one byte, as fast as the ring takes them, without regard to credit.
#[test]
fn a_flood_of_small_messages() {
    besiege(|siege| {
        let mut attacker = join(siege);
        let head = RequestHead::new(Method::Inline("/ringway.bench.v1.Bench/ClientStream"));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let open = FrameHeader {
            flags: Flags::NONE,
            ..request(FIRST_CALL, &bytes)
        };
        attacker.frame(open, &bytes);
        let message = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            payload_len: 2,
            message_len: 2,
            ..FrameHeader::new(Kind::Message)
        };
        let began = Instant::now();
        while began.elapsed() < SIEGE && !is_hung_up(&attacker.stream) {
            for _ in 0..256 {
                if !attacker.publish(message, &[8, 1]) {
                    break;
                }
            }
            // It may have hung up meanwhile.
            let _ = attacker.bell.ring();
        }
    });
}

/// A memfd that can still be sealed, by flags that no Ringway peer sends.
#[test]
fn a_memfd_that_allows_no_seals() {
    besiege(|siege| {
        let file = rustix::fs::memfd_create("ringway-hostile", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, REGION_BYTES as u64).unwrap();
        let stream = greet(siege);
        let bell = EventFd::new().unwrap();
        send(&stream, b"R", &[file.as_fd(), bell.as_fd()]);
        assert_hung_up("no seals", &stream);
    });
}
