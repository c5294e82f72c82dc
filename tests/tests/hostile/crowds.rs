//! One peer that floods over as many connections as it may hold.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway_ring::{BlockRef, Inbox, SegmentId};
use ringway_wire::{Capabilities, FrameHeader, Kind};

use crate::ahead::{READS_AHEAD, told};
use crate::frames::{request, unary_head};
use crate::regions::{memfd, sealed};
use crate::siege::{MAX_CONNECTIONS, lasts};
use crate::{
    Joined, SHM, assert_timed_out, besiege, besiege_heavily, hello, hello_with, join_with,
    segment_note, send,
};

/// Beside those of the test and of the honest client.
const CROWD: usize = MAX_CONNECTIONS - 4;

/// Joins over and over, floods each connection in turn, and goes.
fn crowd(root: &Path, hello: &ringway_wire::Hello, mut flood: impl FnMut(usize, &mut Joined)) {
    let mut crowd: Vec<_> = (0..CROWD).map(|_| join_with(root, hello)).collect();
    let began = Instant::now();
    while began.elapsed() < lasts() {
        for (nth, attacker) in crowd.iter_mut().enumerate() {
            flood(nth, attacker);
        }
    }
    for attacker in &crowd {
        attacker.stream.shutdown(Shutdown::Write).unwrap();
    }
    for attacker in &crowd {
        // Later than one that holds a single connection: they wait for one another.
        assert_timed_out("gone", &attacker.stream);
    }
    // Its places are free a moment later.
    std::thread::sleep(Duration::from_millis(20));
}

/// Small calls, as many as a pass takes, over and over: none of it breaks a rule.
#[test]
fn many_connections_that_flood_small_calls() {
    flood_small_calls(200);
}

/// So few that none of the connections presses.
#[test]
fn many_connections_that_flood_a_few_calls_each() {
    flood_small_calls(31);
}

/// Has each connection of a crowd make so many calls at once, when the last ones are answered.
fn flood_small_calls(calls: u64) {
    besiege(move |root| {
        let head = unary_head();
        let (mut batches, mut answers) = ([0; CROWD], [calls; CROWD]);
        let mut inbox = Inbox::default();
        crowd(root, &hello(), |nth, attacker| {
            attacker.endpoint.consumer.take(&mut inbox).unwrap();
            let ended = inbox.records().filter(|record| {
                let header = record.as_ref().unwrap().bytes.first_chunk().unwrap();
                let kind = FrameHeader::decode(header).unwrap().kind;
                matches!(kind, Kind::Response | Kind::Trailers | Kind::Reset)
            });
            answers[nth] += ended.count() as u64;
            if answers[nth] < calls {
                return;
            }
            answers[nth] = 0;
            batches[nth] += 1;
            for slot in 0..calls {
                let call = (batches[nth] << 32) | slot;
                let record = [&request(call, &head).encode()[..], &head].concat();
                let producer = &mut attacker.endpoint.producer;
                let mut reservation = producer.reserve(record.len()).unwrap();
                reservation.copy_from_slice(&record);
                reservation.commit();
            }
            let _ = attacker.bell.ring();
        });
    });
}

/// Notes of what is filled, of one block and another by turns: each has the server copy a block from its begin.
#[test]
fn many_connections_that_have_blocks_copied() {
    const BLOCK: u32 = 256 << 10;
    /// As many as a pass may copy; less where copies are not optimised, of which each takes 0.5 ms.
    const NOTES: usize = if cfg!(debug_assertions) { 8 } else { 20 };
    besiege_heavily(|root| {
        let segment = memfd(2 * BLOCK as usize, sealed());
        let block = |index| BlockRef {
            segment: SegmentId(0),
            offset: index * BLOCK,
            len: BLOCK,
            index,
            generation: 0,
        };
        let notes = [told(block(0), BLOCK), told(block(1), BLOCK)];
        let mut met = [false; CROWD];
        let hello = hello_with(Capabilities(SHM.0 | READS_AHEAD.0));
        crowd(root, &hello, |nth, attacker| {
            if !std::mem::replace(&mut met[nth], true) {
                let note = segment_note(0, 2 * u64::from(BLOCK));
                send(&attacker.stream, &note, &[segment.as_fd()]);
            }
            if attacker.endpoint.producer.fill().unwrap().0 > 0 {
                return;
            }
            for note in notes.iter().cycle().take(NOTES) {
                let producer = &mut attacker.endpoint.producer;
                if !producer.has_room(note.len()) {
                    break;
                }
                let mut reservation = producer.reserve(note.len()).unwrap();
                reservation.copy_from_slice(note);
                reservation.commit();
            }
            let _ = attacker.bell.ring();
        });
    });
}
