//! Regions and doorbells that are none, and regions with rings that no sender would write.

use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_ring::{BlockRef, SegmentId};
use ringway_sys::{Blocking, EventFd, receive_with_descriptors};
use ringway_tests::{in_a_process_of_its_own, peak_resident_bytes};
use ringway_wire::FrameHeader;
use ringway_wire::limits::MAX_HEAD_BYTES;
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags};

use crate::frames::{FIRST_CALL, request, unary_head};
use crate::{
    assert_hung_up, besiege, besiege_heavily, connect, greet, hello, is_hung_up, segment_note, send,
};

pub(crate) fn memfd(len: usize, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ringway-hostile", flags).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

pub(crate) fn sealed() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// The default region's sizes: a page of control words, 32 KiB of ring.
pub(crate) const REGION_BYTES: usize = 4096 + 32 * 1024;

/// A region with an honest header and these words beside it.
pub(crate) fn region_with(words: &[(u64, u64)]) -> File {
    let file = memfd(REGION_BYTES, SealFlags::empty());
    write_words(&file, words);
    rustix::fs::fcntl_add_seals(&file, sealed()).unwrap();
    file
}

/// A region with nothing wrong but its seals.
fn region_sealed_with(seals: SealFlags) -> File {
    let file = memfd(REGION_BYTES, SealFlags::empty());
    write_words(&file, &[]);
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn write_words(file: &File, words: &[(u64, u64)]) {
    let word = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    word(0, b"RINGWAY\0");
    word(8, &1_u32.to_le_bytes());
    word(12, &(32 * 1024_u32).to_le_bytes());
    word(16, &256_u32.to_le_bytes());
    word(20, &4096_u32.to_le_bytes());
    word(24, &(REGION_BYTES as u64).to_le_bytes());
    for (at, value) in words {
        word(*at, &value.to_le_bytes());
    }
}

/// Offers these as region and doorbell, and wakes the server should it have taken them.
fn assert_refused(what: &str, root: &Path, region: BorrowedFd<'_>, bell: BorrowedFd<'_>) {
    let stream = greet(root);
    let mut note = [0];
    send(&stream, b"R", &[region, bell]);
    let taken = receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket);
    if let Some(bell) = taken.ok().and_then(|mut taken| taken.descriptors.pop()) {
        EventFd::from_peer(bell).unwrap().ring().unwrap();
    }
    assert_hung_up(what, &stream);
}

/// What is no region, and nothing else is wrong with most of them.
pub(crate) fn no_regions() -> Vec<(String, OwnedFd)> {
    let unallocated = |len: u64, allocate: &dyn Fn(&File)| {
        let file = memfd(4096, SealFlags::empty());
        write_words(&file, &[]);
        file.set_len(len).unwrap();
        allocate(&file);
        rustix::fs::fcntl_add_seals(&file, sealed()).unwrap();
        file
    };
    let region_bytes = REGION_BYTES as u64;
    let nothing = |_: &File| {};
    let behind_the_end = |file: &File| {
        let flags = FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, flags, region_bytes, region_bytes).unwrap();
    };
    let plain_file = tempfile::tempfile().unwrap();
    plain_file.write_all_at(&vec![0; REGION_BYTES], 0).unwrap();
    write_words(&plain_file, &[]);
    let unsealed = [
        SealFlags::SHRINK,
        SealFlags::GROW,
        SealFlags::FUTURE_WRITE,
        SealFlags::SEAL,
    ]
    .map(|missing| {
        let file = region_sealed_with(sealed() - missing);
        (format!("{missing:?} missing"), file.into())
    });
    let others: [(&str, OwnedFd); 11] = [
        ("unsealed", region_sealed_with(SealFlags::empty()).into()),
        (
            "sealed against its owner",
            region_sealed_with(sealed() | SealFlags::WRITE).into(),
        ),
        ("all zeroes", memfd(REGION_BYTES, sealed()).into()),
        ("one page", memfd(4096, sealed()).into()),
        ("1 TiB of nothing", unallocated(1 << 40, &nothing).into()),
        (
            "blocks that are not allocated",
            unallocated(region_bytes, &nothing).into(),
        ),
        (
            "blocks behind its end",
            unallocated(region_bytes, &behind_the_end).into(),
        ),
        ("a file", plain_file.into()),
        ("a device", File::open("/dev/zero").unwrap().into()),
        ("a pipe", std::io::pipe().unwrap().0.into()),
        ("a socket", UnixStream::pair().unwrap().0.into()),
    ];
    let bell = OwnedFd::from(EventFd::new().unwrap());
    let others = others.map(|(what, file)| (what.to_owned(), file));
    let bell = [("an eventfd".to_owned(), bell)];
    unsealed.into_iter().chain(others).chain(bell).collect()
}

#[test]
fn descriptors_that_are_no_regions() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        for (what, region) in no_regions() {
            assert_refused(&what, root, region.as_fd(), bell.as_fd());
        }
    });
}

type Words = &'static [(u64, u64)];

/// Words of a region that no sender would write: offsets and values.
pub(crate) fn lying_words() -> Vec<(&'static str, Words)> {
    vec![
        ("magic", &[(0, 1)]),
        ("version", &[(8, 2 | (32 * 1024) << 32)]),
        ("a ring of no power of two", &[(8, 1 | 33_000 << 32)]),
        ("a ring larger than its file", &[(8, 1 | (1 << 30) << 32)]),
        ("region bytes", &[(24, 1 << 40)]),
        ("an index beyond the ring", &[(128, 32 * 1024 + 8)]),
        ("an index at the end of numbers", &[(128, u64::MAX)]),
        ("an index between records", &[(128, 9)]),
        ("a record beyond the index", &[(128, 32), (4096, 1 << 20)]),
        ("a record of 4 GiB", &[(128, 32), (4096, 0xffff_ffff)]),
        (
            "flags that nobody knows",
            &[(128, 32), (4096, 0xff << 32 | 24)],
        ),
        (
            "padding that does not reach the end",
            &[(128, 32), (4096, 1 << 32 | 24)],
        ),
        ("a frame of kind 0", &[(128, 32), (4096, 24)]),
    ]
}

#[test]
fn regions_whose_words_lie() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        for (what, words) in lying_words() {
            assert_refused(what, root, region_with(words).as_fd(), bell.as_fd());
        }
    });
}

/// The server looks at the peer's cursor once it has something to send; until then a lie means
/// nothing.
#[test]
fn cursors_ahead_of_what_was_sent() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        for cursor in [8, 32 * 1024 + 8, u64::MAX] {
            let stream = greet(root);
            send(
                &stream,
                b"R",
                &[region_with(&[(256, cursor)]).as_fd(), bell.as_fd()],
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// What is no doorbell. None of it but the last would block.
pub(crate) fn no_doorbells() -> Vec<(&'static str, OwnedFd)> {
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    let others: [(_, OwnedFd); 4] = [
        ("a region", region_with(&[]).into()),
        ("a file", tempfile::tempfile().unwrap().into()),
        ("a pipe", std::io::pipe().unwrap().1.into()),
        ("a socket", UnixStream::pair().unwrap().0.into()),
    ];
    for (_, file) in &others {
        rustix::fs::fcntl_setfl(file, OFlags::NONBLOCK).unwrap();
    }
    let blocking = [("a blocking eventfd", blocking.unwrap())];
    others.into_iter().chain(blocking).collect()
}

#[test]
fn descriptors_that_are_no_doorbells() {
    besiege(|root| {
        let region = region_with(&[]);
        for (what, bell) in no_doorbells() {
            assert_refused(what, root, region.as_fd(), bell.as_fd());
        }
        assert_refused("the region again", root, region.as_fd(), region.as_fd());

        let bell = EventFd::new().unwrap();
        for (what, note, descriptors) in [
            ("no descriptors", b"R", vec![]),
            ("a region alone", b"R", vec![region.as_fd()]),
            ("another note", b"X", vec![region.as_fd(), bell.as_fd()]),
            (
                "one too many",
                b"R",
                vec![region.as_fd(), bell.as_fd(), bell.as_fd()],
            ),
            ("sixteen", b"R", vec![bell.as_fd(); 16]),
        ] {
            let stream = greet(root);
            send(&stream, note, &descriptors);
            assert_hung_up(what, &stream);
        }
    });
}

/// Its own region sent back to the server, as if it were the attacker's.
#[test]
fn one_region_for_both_directions() {
    besiege(|root| {
        let stream = greet(root);
        let mut note = [0];
        let received =
            receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket).unwrap();
        let both: Vec<_> = received.descriptors.iter().map(AsFd::as_fd).collect();
        send(&stream, b"R", &both);
        assert_hung_up("the server's own region", &stream);
    });
}

/// Calls whose messages are all the same block, there from the first look on: the server copies no more of
/// them at once than it gave credit for.
#[test]
fn one_block_lent_to_many_calls() {
    if !in_a_process_of_its_own("regions::one_block_lent_to_many_calls") {
        return;
    }
    besiege_heavily(|root| {
        // The longest that the method takes: what is longer is not copied at all.
        const BLOCK: u32 = 4 << 20;
        let head = unary_head();
        let record = |call| {
            let header = FrameHeader {
                payload_len: BLOCK,
                message_len: BLOCK,
                ..request(call, &head)
            };
            [&header.encode()[..], &head].concat()
        };
        let grown = grown_by(root, record, 48, BLOCK, BLOCK as usize);
        assert!(grown < 96 << 20, "{} MiB more", grown >> 20);
    });
}

/// The same of heads, for which no credit is needed.
#[test]
fn one_block_that_is_many_heads() {
    if !in_a_process_of_its_own("regions::one_block_that_is_many_heads") {
        return;
    }
    besiege_heavily(|root| {
        let record = |call| {
            let header = FrameHeader {
                head_len: MAX_HEAD_BYTES,
                ..request(call, &[])
            };
            header.encode().to_vec()
        };
        let grown = grown_by(root, record, 500, MAX_HEAD_BYTES, 2 << 20);
        assert!(grown < 16 << 20, "{} MiB more", grown >> 20);
    });
}

/// Longer than the server takes to meet such a ring.
const COPIES_WITHIN: Duration = Duration::from_millis(100);

/// So much more memory the server ever had once it has met a ring of `calls` records, each with the same
/// block beside it: at least `enough`, as it may look before it has the block, and then copies nothing.
fn grown_by(
    root: &Path,
    record: impl Fn(u64) -> Vec<u8>,
    calls: u64,
    block_bytes: u32,
    enough: usize,
) -> usize {
    let block = BlockRef {
        segment: SegmentId(0),
        offset: 0,
        len: block_bytes,
        index: 0,
        generation: 0,
    };
    let mut ring = Vec::new();
    for call in 0..calls {
        let record = record(FIRST_CALL | call);
        ring.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
        ring.extend(2_u32.to_le_bytes());
        ring.extend(block.encode());
        ring.extend(&record);
        ring.resize(ring.len().next_multiple_of(8), 0);
    }
    let words = ring
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let mut words: Vec<_> = (4096..).step_by(8).zip(words).collect();
    words.push((128, ring.len() as u64));
    let (region, bell) = (region_with(&words), EventFd::new().unwrap());
    let segment = memfd(block_bytes as usize, sealed());
    let note = segment_note(0, block_bytes.into());
    // What the process has had once, it takes again without growing: a second attack is not seen by that.
    static COPIED: AtomicBool = AtomicBool::new(false);
    let before = peak_resident_bytes();
    let grown = || peak_resident_bytes().saturating_sub(before);
    let stream = loop {
        let mut stream = connect(root);
        // It is turned away if too many were just before.
        let _ = stream.write_all(&hello().encode().unwrap());
        send(&stream, b"R", &[region.as_fd(), bell.as_fd()]);
        send(&stream, &note, &[segment.as_fd()]);
        let began = Instant::now();
        while grown() < enough && !is_hung_up(&stream) && began.elapsed() < COPIES_WITHIN {
            std::thread::yield_now();
        }
        if grown() >= enough {
            COPIED.store(true, Ordering::Relaxed);
        }
        if COPIED.load(Ordering::Relaxed) {
            break stream;
        }
    };
    // It may have been cut off already.
    let _ = stream.shutdown(Shutdown::Write);
    assert_hung_up("gone", &stream);
    grown()
}
