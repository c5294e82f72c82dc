//! The attacks on a server, done to a client: by servers that offer no regions, lie in their memory, never read, ring
//! without end, or are always one ahead.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway_ring::Inbox;
use ringway_sys::EventFd;
use ringway_wire::{Config, Flags, FrameHeader, Hello, Kind, ResponseHead, Role};
use rustix::fs::SealFlags;

use crate::beset::{False, beset};
use crate::regions::{
    REGION_BYTES, lying_words, memfd, no_doorbells, no_regions, region_with, sealed,
};
use crate::servers::{Link, greet_client};
use crate::siege::HANDSHAKE_TIMEOUT;
use crate::{
    Joined, NAME, SHM, assert_hung_up, assert_timed_out, exchange_regions, is_hung_up,
    segment_note, send,
};

/// Longer than any client stays.
const LIMIT: Duration = Duration::from_secs(10);

/// Offers this as region and doorbell.
fn offer(stream: &UnixStream, region: BorrowedFd<'_>, bell: BorrowedFd<'_>) {
    greet_client(stream, Link::Shm);
    send(stream, b"R", &[region, bell]);
}

/// Waits until the client goes.
fn wait_for_end(stream: &UnixStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_timed_out("the client", stream);
}

/// Waits until the client hangs up, which has to come soon after the lie that was told it just now.
fn wait_to_be_found_out(stream: &UnixStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_hung_up("the client", stream);
}

/// An honest handshake.
fn join(stream: UnixStream) -> Option<Joined> {
    greet_client(&stream, Link::Shm);
    exchange_regions(stream)
}

impl Joined {
    /// Takes what the client has written: the call ids of its requests.
    fn requests(&mut self, inbox: &mut Inbox) -> Vec<u64> {
        self.endpoint.consumer.take(inbox).unwrap();
        let headers = inbox.records().filter_map(|record| {
            let header = record.unwrap().bytes.first_chunk().copied()?;
            FrameHeader::decode(&header).ok()
        });
        headers
            .filter(|header| header.kind == Kind::Request)
            .map(|header| header.call)
            .collect()
    }

    /// Publishes a frame if there is room, without a ring.
    fn whisper(&mut self, header: FrameHeader, rest: &[u8]) -> bool {
        let bytes = [&header.encode()[..], rest].concat();
        let Ok(mut reservation) = self.endpoint.producer.reserve(bytes.len()) else {
            return false;
        };
        reservation.copy_from_slice(&bytes);
        reservation.commit();
        true
    }
}

#[test]
fn what_is_no_region() {
    let (regions, bell) = (no_regions(), EventFd::new().unwrap());
    beset(False::found_out(Link::Shm, move |stream, nth| {
        let (_, region) = &regions[nth % regions.len()];
        offer(&stream, region.as_fd(), bell.as_fd());
        wait_to_be_found_out(&stream);
    }));
}

#[test]
fn regions_whose_words_lie() {
    let bell = EventFd::new().unwrap();
    beset(False::found_out(Link::Shm, move |stream, nth| {
        let words = lying_words();
        let (_, words) = words[nth % words.len()];
        offer(&stream, region_with(words).as_fd(), bell.as_fd());
        wait_to_be_found_out(&stream);
    }));
}

#[test]
fn what_is_no_doorbell() {
    let (bells, region) = (no_doorbells(), region_with(&[]));
    beset(False::found_out(Link::Shm, move |stream, nth| {
        let (_, bell) = &bells[nth % bells.len()];
        offer(&stream, region.as_fd(), bell.as_fd());
        wait_to_be_found_out(&stream);
    }));
}

/// The size of an offered memfd changes without pause while it is looked at.
#[test]
fn a_size_that_changes_between_the_checks() {
    let bell = EventFd::new().unwrap();
    beset(False::refused(Link::Shm, move |stream, nth| {
        let region = memfd(REGION_BYTES, SealFlags::empty());
        let changing = std::thread::spawn({
            let file = region.try_clone().unwrap();
            move || {
                for round in 0..nth.min(50) {
                    // Refused once it is sealed.
                    let _ = file.set_len(4096);
                    let _ = file.set_len(REGION_BYTES as u64);
                    if round > nth / 2 {
                        let _ = rustix::fs::fcntl_add_seals(&file, sealed());
                    }
                }
            }
        });
        offer(&stream, region.as_fd(), bell.as_fd());
        wait_for_end(&stream);
        changing.join().unwrap();
    }));
}

/// Says only so much of its hello, and then nothing.
#[test]
fn a_handshake_stalled_at_each_byte() {
    beset(False::refused(Link::Shm, |mut stream, nth| {
        crate::read_hello(&stream);
        let hello = Hello::new(Role::Server, &Config::default(), 9, NAME, SHM);
        let hello = hello.encode().unwrap();
        let _ = stream.write_all(&hello[..nth % hello.len()]);
        std::thread::sleep(2 * HANDSHAKE_TIMEOUT);
    }));
}

/// What no server sends over the socket once the connection stands.
#[test]
fn segment_notes_that_lie() {
    let (segment, file) = (memfd(4096, sealed()), tempfile::tempfile().unwrap());
    let unsealed = memfd(4096, SealFlags::empty());
    beset(False::refused(Link::Shm, move |stream, nth| {
        let Some(joined) = join(stream) else { return };
        let hello = Hello::new(Role::Server, &Config::default(), 9, NAME, SHM);
        let notes: [(Vec<u8>, Vec<BorrowedFd<'_>>); 7] = [
            (segment_note(0, 4096).to_vec(), vec![]),
            (segment_note(0, 4096).to_vec(), vec![segment.as_fd(); 2]),
            (vec![0; 3], vec![segment.as_fd()]),
            (segment_note(0, 4097).to_vec(), vec![segment.as_fd()]),
            (segment_note(0, 4096).to_vec(), vec![unsealed.as_fd()]),
            (segment_note(0, 0).to_vec(), vec![file.as_fd()]),
            (hello.encode().unwrap(), vec![]),
        ];
        let (note, descriptors) = &notes[nth % notes.len()];
        send(&joined.stream, note, descriptors);
        wait_to_be_found_out(&joined.stream);
    }));
}

/// Records that are no frames.
#[test]
fn records_that_lie() {
    beset(False::found_out(Link::Shm, |stream, nth| {
        let Some(mut joined) = join(stream) else {
            return;
        };
        let mut records = vec![Vec::new(), vec![1; 23], vec![0; 24], vec![99; 24]];
        let header = FrameHeader {
            call: 1 << 32,
            head_len: 5,
            ..FrameHeader::new(Kind::Trailers)
        };
        // A head beyond its record.
        records.push(header.encode().to_vec());
        joined.record(&records[nth % records.len()]);
        wait_to_be_found_out(&joined.stream);
    }));
}

/// Takes no request, ever: calls meet their deadlines.
#[test]
fn a_cursor_that_stands_still() {
    beset(False::refused(Link::Shm, |stream, _| {
        if let Some(joined) = join(stream) {
            wait_for_end(&joined.stream);
        }
    }));
}

/// Rings without end, and says nothing.
#[test]
fn a_storm_of_rings() {
    beset(False::refused(Link::Shm, |stream, _| {
        let Some(joined) = join(stream) else { return };
        while !is_hung_up(&joined.stream) {
            for _ in 0..100 {
                joined.bell.ring().unwrap();
            }
        }
    }));
}

/// The ring is never empty when the client looks again.
#[test]
fn a_writer_that_is_always_one_ahead() {
    beset(False::refused(Link::Shm, |stream, _| {
        let Some(mut joined) = join(stream) else {
            return;
        };
        while !is_hung_up(&joined.stream) {
            for _ in 0..100 {
                joined.whisper(FrameHeader::new(Kind::Link(0x90)), &[]);
            }
            joined.bell.ring().unwrap();
        }
    }));
}

/// Segments of legal size, added and retired without pause.
#[test]
fn a_flood_of_segment_notes() {
    let segment = memfd(4096, sealed());
    beset(False::refused(Link::Shm, move |stream, _| {
        let Some(joined) = join(stream) else { return };
        while !is_hung_up(&joined.stream) {
            for id in 0..16 {
                send(&joined.stream, &segment_note(id, 4096), &[segment.as_fd()]);
                send(&joined.stream, &segment_note(id, 0), &[]);
            }
        }
    }));
}

/// A message of a stream that nobody asked for so many times.
fn small_message(call: u64) -> FrameHeader {
    FrameHeader {
        call,
        flags: Flags::HAS_MESSAGE,
        payload_len: 2,
        message_len: 2,
        ..FrameHeader::new(Kind::Message)
    }
}

/// Messages of one byte, as fast as the ring takes them, without regard to credit.
#[test]
fn a_flood_of_small_messages() {
    beset(False::refused(Link::Shm, |stream, _| {
        let Some(mut joined) = join(stream) else {
            return;
        };
        let (mut inbox, mut calls) = (Inbox::default(), Vec::new());
        while !is_hung_up(&joined.stream) {
            calls.extend(joined.requests(&mut inbox));
            for call in &calls {
                for _ in 0..100 {
                    joined.whisper(small_message(*call), &[8, 1]);
                }
            }
            joined.bell.ring().unwrap();
        }
    }));
}

/// The same over a socket, and one that reads nothing, and one that breaks off within a frame.
#[test]
fn a_socket_that_floods_stalls_or_breaks_off() {
    beset(False::refused(Link::Socket, |mut stream, nth| {
        greet_client(&stream, Link::Socket);
        let message = [&small_message(1 << 32).encode()[..], &[8, 1]].concat();
        match nth % 3 {
            // Some hundred KiB, and then the end.
            0 => drop(stream.write_all(&message.repeat(10_000))),
            1 => {
                std::thread::sleep(Duration::from_millis(300));
                wait_for_end(&stream);
            }
            _ => {
                let _ = stream.write_all(&message[..nth % message.len()]);
            }
        }
    }));
}

/// Descriptors beside what takes none: they are closed, and the connection goes on or ends.
#[test]
fn descriptors_beside_what_takes_none() {
    let file = tempfile::tempfile().unwrap();
    for link in [Link::Shm, Link::Socket] {
        let file = file.try_clone().unwrap();
        beset(False::refused(link, move |stream, nth| {
            greet_client(&stream, link);
            let bytes = FrameHeader::new(Kind::Link(0x90)).encode();
            send(&stream, &bytes[..1 + nth % 20], &[file.as_fd(); 16]);
            wait_for_end(&stream);
        }));
    }
}

/// An answer in a block that changes without pause while it is read: the client decodes one consistent copy.
#[test]
fn an_answer_that_changes_while_it_is_read() {
    const LEN: u32 = 400_000;
    beset(False::new(Link::Shm, |stream, _| {
        let Some(mut joined) = join(stream) else {
            return;
        };
        let mut inbox = Inbox::default();
        let head = ResponseHead::default();
        let mut bytes = vec![0; head.encoded_len()];
        head.encode(&mut bytes);
        while !is_hung_up(&joined.stream) {
            for call in joined.requests(&mut inbox) {
                let mut block = joined.block(LEN);
                block.as_mut_slice()[..4].copy_from_slice(&[0x12, 0xfc, 0xb4, 0x18]);
                let header = FrameHeader {
                    call,
                    flags: Flags::HAS_MESSAGE,
                    head_len: u32::try_from(bytes.len()).unwrap(),
                    payload_len: LEN,
                    message_len: LEN,
                    ..FrameHeader::new(Kind::Response)
                };
                let record = [&header.encode()[..], &bytes].concat();
                let told = [
                    &FrameHeader {
                        head_len: 24,
                        message_len: LEN / 2,
                        ..FrameHeader::new(Kind::Link(0x80))
                    }
                    .encode()[..],
                    &block.reference().encode(),
                ]
                .concat();
                joined.record(&told);
                for round in 0..20 {
                    block.as_mut_slice()[..].fill(round);
                }
                let producer = &mut joined.endpoint.producer;
                let mut reservation = producer.reserve_with_block(record.len(), block).unwrap();
                reservation.copy_from_slice(&record);
                reservation.commit();
                joined.bell.ring().unwrap();
            }
        }
    }));
}

/// Answers, and never rings: the client finds the answer by itself, or its call meets its deadline.
#[test]
fn a_server_that_never_rings() {
    beset(False::new(Link::Shm, |stream, _| {
        let Some(mut joined) = join(stream) else {
            return;
        };
        let (mut inbox, head) = (Inbox::default(), ResponseHead::default());
        let mut bytes = vec![0; head.encoded_len()];
        head.encode(&mut bytes);
        while !is_hung_up(&joined.stream) {
            for call in joined.requests(&mut inbox) {
                let header = FrameHeader {
                    call,
                    flags: Flags::HAS_MESSAGE,
                    head_len: u32::try_from(bytes.len()).unwrap(),
                    ..FrameHeader::new(Kind::Response)
                };
                joined.whisper(header, &bytes);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }));
}
