//! Credit: stalls and resumes, bounds memory, and never strands anybody.

use super::pair::{Pair, Seen};
use crate::limits::MESSAGE_OVERHEAD_BYTES;
use crate::*;

fn small() -> Config {
    Config {
        stream_window_bytes: 10_000,
        connection_window_bytes: 25_000,
        ..Config::default()
    }
}

/// A server stream whose client does not read.
fn fill(pair: &mut Pair, call: CallId, len: usize) -> (usize, SendError) {
    let mut sent = 0;
    loop {
        match pair.server.conn.send_message(call, len, Flags::NONE) {
            Ok(header) => pair.server_sends(header, &[]),
            Err(error) => return (sent, error),
        }
        sent += 1;
    }
}

fn stream(pair: &mut Pair) -> CallId {
    let call = pair.request(None, Flags::END);
    pair.settle();
    call
}

#[test]
fn a_stream_stalls_and_resumes() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    let (sent, error) = fill(&mut pair, call, 936);
    assert_eq!(
        (sent, error),
        (10, SendError::Blocked),
        "1,000 bytes each, overhead included"
    );
    pair.settle();
    assert!(
        pair.server
            .take()
            .iter()
            .all(|seen| !matches!(seen, Seen::Writable(_)))
    );
    for _ in 0..10 {
        pair.client.conn.consumed(call, 936);
    }
    pair.settle();
    assert_eq!(pair.server.take(), [Seen::Writable(call)]);
    assert_eq!(fill(&mut pair, call, 936).0, 10);
    pair.settle();
    assert_eq!(pair.client.error, None);
}

#[test]
fn a_message_larger_than_the_window_goes_and_only_one() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    assert_eq!(fill(&mut pair, call, 1_000_000), (1, SendError::Blocked));
    pair.settle();
    pair.client.conn.consumed(call, 1_000_000);
    pair.settle();
    assert_eq!(fill(&mut pair, call, 1_000_000), (1, SendError::Blocked));
    pair.settle();
    assert_eq!(pair.client.error, None);
}

#[test]
fn a_message_that_began_is_not_held_up() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    for _ in 0..100 {
        let piece = pair
            .server
            .conn
            .send_piece(call, 1_000_000, 10_000, Flags::NONE)
            .unwrap();
        pair.server_sends(piece, &[]);
    }
    let next = pair.server.conn.send_piece(call, 10, 5, Flags::NONE);
    assert_eq!(next, Err(SendError::Blocked));
    pair.settle();
    assert_eq!(pair.client.error, None);
}

#[test]
fn the_connection_stalls_all_and_resumes() {
    let mut pair = Pair::with(&small(), &small());
    let calls: Vec<_> = (0..4).map(|_| stream(&mut pair)).collect();
    let sent: Vec<_> = calls
        .iter()
        .map(|call| fill(&mut pair, *call, 936))
        .collect();
    assert_eq!(sent[0], (10, SendError::Blocked));
    assert_eq!(sent[2], (5, SendError::ConnectionBlocked));
    let unary = pair.unary(1);
    pair.settle();
    pair.server.take();
    let blocked = pair.server.conn.send_response(unary, 0, 1, Flags::NONE);
    assert_eq!(blocked, Err(SendError::ConnectionBlocked));
    // A status needs no credit.
    pair.trailers(unary, code::OK);
    pair.client.conn.consumed(calls[0], 936);
    pair.settle();
    assert_eq!(pair.server.take(), [Seen::WritableAll]);
    assert_eq!(pair.client.error, None);
}

#[test]
fn requests_are_charged_too() {
    let mut pair = Pair::with(&small(), &small());
    let first = pair.unary(20_000);
    pair.unary(20_000);
    let third = pair.client.conn.open(pair.now, None).unwrap();
    let blocked = pair
        .client
        .conn
        .request_frame(third, 2, Some(1), Flags::END);
    assert_eq!(blocked, Err(SendError::ConnectionBlocked));
    pair.settle();
    pair.respond(first, 1);
    pair.settle();
    assert!(pair.client.take().contains(&Seen::WritableAll));
    pair.send_request(third, Some(1), Flags::END, None);
    pair.settle();
    assert_eq!(pair.server.error, None);
}

/// Whatever a peer does within its credit, what a receiver holds stays below the windows and one
/// message.
#[test]
fn windows_bound_memory() {
    let mut pair = Pair::with(&small(), &small());
    let calls: Vec<_> = (0..100).map(|_| stream(&mut pair)).collect();
    for len in [0, 1, 100, 5000] {
        for call in &calls {
            fill(&mut pair, *call, len);
        }
    }
    pair.settle();
    let overhead = u64::from(MESSAGE_OVERHEAD_BYTES);
    let held: u64 = pair
        .client
        .take()
        .iter()
        .map(|seen| match seen {
            Seen::Message(message) => u64::from(message.message_len) + overhead,
            _ => 0,
        })
        .sum();
    assert!(held <= 25_000 + 5000 + overhead, "holds {held}");
}

#[test]
fn empty_messages_are_bounded_too() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    let sent = fill(&mut pair, call, 0).0;
    assert!(
        sent <= 10_000 / MESSAGE_OVERHEAD_BYTES as usize + 1,
        "{sent}"
    );
}

#[test]
fn a_reader_that_stopped_does_not_starve_the_others() {
    let mut pair = Pair::with(&small(), &small());
    let stuck = [stream(&mut pair), stream(&mut pair)];
    for call in stuck {
        fill(&mut pair, call, 936);
    }
    pair.settle();
    // 20,000 of 25,000 are held for ever. The rest has to come round again and again.
    for _ in 0..1000 {
        let call = pair.unary(900);
        pair.settle();
        pair.respond(call, 900);
        pair.settle();
        pair.client.conn.release(call);
    }
    assert_eq!((pair.client.error, pair.server.error), (None, None));
}

#[test]
fn hot_calls_rarely_need_a_credit_frame() {
    let mut pair = Pair::new();
    for _ in 0..100_000 {
        let call = pair.unary(64);
        pair.settle();
        pair.respond(call, 64);
        pair.settle();
        pair.client.conn.release(call);
        pair.server.seen.clear();
        pair.client.seen.clear();
    }
    for side in [&pair.client, &pair.server] {
        let credits = side
            .arrived
            .iter()
            .filter(|kind| **kind == Kind::Credit)
            .count();
        assert!(
            (1..=3).contains(&credits),
            "{credits} credit frames in 100,000 calls"
        );
    }
    pair.assert_clean();
}

#[test]
fn a_full_window_is_not_granted_message_by_message() {
    let mut pair = Pair::new();
    let call = stream(&mut pair);
    let mut sent = 0;
    while sent < 100_000 {
        sent += fill(&mut pair, call, 936).0;
        pair.settle();
        pair.client.seen.clear();
        pair.client.conn.consumed(call, 936);
    }
    let credits = pair
        .server
        .arrived
        .iter()
        .filter(|kind| **kind == Kind::Credit)
        .count();
    assert!(
        credits < 200,
        "{credits} credit frames for 100,000 messages"
    );
}

#[test]
fn what_a_finished_call_left_unread_comes_back() {
    let mut pair = Pair::with(&small(), &small());
    for _ in 0..50 {
        let call = pair.request(None, Flags::NONE);
        pair.client_message(call, 5000, Flags::NONE);
        pair.settle();
        pair.server_message(call, 5000);
        pair.trailers(call, code::OK);
        // Late at the server: its credit comes back as well.
        pair.client_message(call, 4000, Flags::NONE);
        pair.settle();
        pair.client.conn.release(call);
        pair.settle();
    }
    pair.assert_clean();
}

#[test]
fn too_much_consumed_is_not_believed() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    pair.server_message(call, 100);
    pair.settle();
    for _ in 0..10 {
        pair.client.conn.consumed(call, 1_000_000);
        pair.client.conn.consumed_batch(call, u32::MAX, u64::MAX);
    }
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn a_batch_counts_like_its_messages() {
    let mut pair = Pair::with(&small(), &small());
    let call = stream(&mut pair);
    fill(&mut pair, call, 936);
    pair.settle();
    pair.client.conn.consumed_batch(call, 10, 9360);
    pair.settle();
    assert_eq!(fill(&mut pair, call, 936).0, 10);
}
