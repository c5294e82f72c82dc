//! What comes over the socket once the connection stands, and rings that mean nothing.

use std::os::fd::AsFd;

use ringway_sys::EventFd;
use rustix::fs::SealFlags;

use crate::regions::{memfd, region_with, sealed};
use crate::{assert_hung_up, besiege, hello, is_hung_up, join, segment_note as note, send};

#[test]
fn segment_notes_that_lie() {
    besiege(|root| {
        let len = 1 << 20;
        let segment = memfd(len, sealed());
        let (segment, len) = (segment.as_fd(), len as u64);
        let unsealed = memfd(1 << 20, SealFlags::empty());
        let file = tempfile::tempfile().unwrap();
        for (what, note, descriptors) in [
            ("no descriptor", note(0, len).to_vec(), vec![]),
            (
                "two descriptors",
                note(0, len).to_vec(),
                vec![segment, segment],
            ),
            ("a short note", vec![0; 3], vec![segment]),
            (
                "longer than its file",
                note(0, len + 1).to_vec(),
                vec![segment],
            ),
            ("4 EiB", note(0, 1 << 62).to_vec(), vec![segment]),
            ("unsealed", note(0, len).to_vec(), vec![unsealed.as_fd()]),
            ("a file", note(0, len).to_vec(), vec![file.as_fd()]),
        ] {
            let attacker = join(root);
            send(&attacker.stream, &note, &descriptors);
            assert_hung_up(what, &attacker.stream);
        }
        let attacker = join(root);
        send(&attacker.stream, &note(0, len), &[segment]);
        send(&attacker.stream, &note(1, len), &[segment]);
        assert_hung_up("the same segment again", &attacker.stream);
        let (attacker, another) = (join(root), memfd(1 << 20, sealed()));
        send(&attacker.stream, &note(0, len), &[segment]);
        send(&attacker.stream, &note(0, len), &[another.as_fd()]);
        assert_hung_up("another one of that id", &attacker.stream);
    });
}

#[test]
fn a_second_handshake() {
    besiege(|root| {
        let attacker = join(root);
        send(&attacker.stream, &hello().encode().unwrap(), &[]);
        assert_hung_up("hello again", &attacker.stream);
        let attacker = join(root);
        let (region, bell) = (region_with(&[]), EventFd::new().unwrap());
        send(&attacker.stream, b"R", &[region.as_fd(), bell.as_fd()]);
        assert_hung_up("another region", &attacker.stream);
    });
}

/// The record names a block of a segment that nobody has sent.
#[test]
fn a_segment_that_never_arrives() {
    besiege(|root| {
        let mut attacker = join(root);
        let block = attacker.endpoint.arena.allocate(100_000).unwrap();
        drop(attacker.endpoint.arena.new_segments());
        attacker.lend(block);
        assert_hung_up("no segment", &attacker.stream);
    });
}

/// Wakes the server without end and says nothing.
#[test]
fn a_storm_of_rings() {
    besiege(|root| {
        let attacker = join(root);
        for _ in 0..20_000 {
            attacker.bell.ring().unwrap();
        }
        // No rule is broken: the connection lives, and its end is the attacker's own.
        assert!(!is_hung_up(&attacker.stream));
    });
}
