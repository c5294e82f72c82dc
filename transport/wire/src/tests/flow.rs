//! Credit: stalls and resumes, bounds memory, and never strands anybody.

use super::pair::{Pair, Seen};
use crate::limits::MESSAGE_OVERHEAD_BYTES;
use crate::*;

fn small() -> Config {
    Config {
        stream_window_bytes: 10_000,
        connection_window_bytes: 100_000,
        ..Config::default()
    }
}

/// Less than the calls want together.
fn tight() -> Config {
    Config {
        connection_window_bytes: 25_000,
        ..small()
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

const LARGE_BYTES: usize = 200 << 20;

/// Begins a message in pieces, of which the first one goes.
fn begin_large(pair: &mut Pair, call: CallId) -> Result<(), SendError> {
    let client = &mut pair.client.conn;
    let piece = client.send_piece(call, LARGE_BYTES, 1 << 20, Flags::END)?;
    pair.client_sends(piece, &[]);
    Ok(())
}

fn finish_large(pair: &mut Pair, call: CallId) {
    let client = &mut pair.client.conn;
    let left = LARGE_BYTES - (1 << 20);
    let piece = client
        .send_piece(call, LARGE_BYTES, left, Flags::END)
        .unwrap();
    pair.client_sends(piece, &[]);
    pair.settle();
}

#[test]
fn a_large_message_holds_up_large_ones_alone() {
    let mut pair = Pair::new();
    let uploads = [(); 2].map(|()| pair.request(None, Flags::NONE));
    begin_large(&mut pair, uploads[0]).unwrap();
    // Calls and streams beside it go on, and come to their ends.
    let stream = stream(&mut pair);
    for _ in 0..100 {
        let call = pair.unary(1000);
        pair.settle();
        pair.respond(call, 1000);
        pair.server_message(stream, 1000);
        pair.settle();
        pair.client.conn.release(call);
        pair.client.conn.consumed(stream, 1000);
    }
    assert_eq!(
        begin_large(&mut pair, uploads[1]),
        Err(SendError::LargeBlocked)
    );
    assert!(!pair.client.conn.has_large_credit() && pair.client.conn.has_credit());
    finish_large(&mut pair, uploads[0]);
    pair.client.take();
    pair.server
        .conn
        .consumed(uploads[0], u32::try_from(LARGE_BYTES).unwrap());
    pair.settle();
    assert!(pair.client.take().contains(&Seen::WritableAll));
    begin_large(&mut pair, uploads[1]).unwrap();
    pair.settle();
    // Given up half-way, it leaves its credit to the next one.
    pair.client.conn.cancel(uploads[1], code::CANCELLED);
    pair.settle();
    assert!(pair.client.conn.has_large_credit());
    assert_eq!((pair.client.error, pair.server.error), (None, None));
}

#[test]
fn a_peer_of_the_version_before_has_one_window_for_all() {
    let mut pair = Pair::without(Capabilities::LARGE_WINDOW);
    let upload = pair.request(None, Flags::NONE);
    begin_large(&mut pair, upload).unwrap();
    assert!(!pair.client.conn.has_credit() && !pair.client.conn.has_large_credit());
    finish_large(&mut pair, upload);
    pair.server
        .conn
        .consumed(upload, u32::try_from(LARGE_BYTES).unwrap());
    pair.settle();
    assert!(pair.client.conn.has_credit());
    assert!(!pair.client.arrived.is_empty() && pair.client.error.is_none());
}

#[test]
fn the_connection_stalls_all_and_resumes() {
    let mut pair = Pair::with(&tight(), &tight());
    let calls: Vec<_> = (0..8).map(|_| stream(&mut pair)).collect();
    let sent = calls.iter().map(|call| fill(&mut pair, *call, 936));
    let sent: Vec<_> = sent.collect();
    // A base share each, as long as there is more than the reserve.
    assert!(
        sent[..4]
            .iter()
            .all(|sent| *sent == (5, SendError::ShareBlocked))
    );
    assert_eq!(sent[4], (4, SendError::ShareBlocked));
    assert_eq!(sent[5], (0, SendError::ShareBlocked));
    let unaries: Vec<_> = (0..3).map(|_| pair.unary(1)).collect();
    pair.settle();
    pair.server.take();
    pair.respond(unaries[0], 4000);
    let blocked = pair
        .server
        .conn
        .send_response(unaries[1], 0, 1, Flags::NONE);
    assert_eq!(blocked, Err(SendError::ConnectionBlocked));
    // A status needs no credit.
    pair.trailers(unaries[1], code::OK);
    for _ in 0..4 {
        pair.client.conn.consumed(calls[0], 936);
    }
    pair.settle();
    assert!(pair.server.take().contains(&Seen::WritableAll));
    pair.respond(unaries[2], 1);
    assert_eq!(pair.client.error, None);
}

/// One stream's messages, each consumed as soon as it has come.
fn read_along(pair: &mut Pair, call: CallId, messages: usize) {
    let mut left = messages;
    while left > 0 {
        let (sent, error) = fill_at_most(pair, call, left);
        pair.settle();
        for _ in 0..sent {
            pair.client.conn.consumed(call, 936);
        }
        pair.settle();
        assert!(
            sent > 0,
            "a stream that is read stands still: {error:?}, {left} are left"
        );
        left -= sent;
        pair.client.seen.clear();
        pair.server.seen.clear();
    }
}

fn fill_at_most(pair: &mut Pair, call: CallId, messages: usize) -> (usize, Option<SendError>) {
    for sent in 0..messages {
        match pair.server.conn.send_message(call, 936, Flags::NONE) {
            Ok(header) => pair.server_sends(header, &[]),
            Err(error) => return (sent, Some(error)),
        }
    }
    (messages, None)
}

#[test]
fn a_thousand_streams_that_nobody_reads_leave_room_for_others() {
    let mut pair = Pair::new();
    // It began in plenty, and what its reader took was not worth a grant yet.
    let before = stream(&mut pair);
    read_along(&mut pair, before, 900);
    // One that is read as long as that pays stops as well, and takes what it can get.
    for _ in 0..3 {
        let stopped = stream(&mut pair);
        read_along(&mut pair, stopped, 5_000);
        fill(&mut pair, stopped, 936);
    }
    let mut unread = Vec::new();
    for _ in 0..1000 {
        let call = stream(&mut pair);
        assert_eq!(fill(&mut pair, call, 936).1, SendError::ShareBlocked);
        unread.push(call);
    }
    pair.settle();
    read_along(&mut pair, before, 20_000);
    let after = stream(&mut pair);
    read_along(&mut pair, after, 20_000);
    for len in [10, 100_000, 4 << 20, 10] {
        let call = pair.unary(900);
        pair.settle();
        pair.respond(call, len);
        pair.settle();
        pair.client.conn.release(call);
    }
    // Read at last, they go on.
    for call in unread.iter().rev().take(10) {
        pair.client.conn.consumed(*call, 936);
        pair.settle();
        pair.server
            .conn
            .send_message(*call, 936, Flags::NONE)
            .unwrap();
    }
    assert_eq!((pair.client.error, pair.server.error), (None, None));
}

#[test]
fn requests_are_charged_too() {
    let mut pair = Pair::with(&tight(), &tight());
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
    let mut pair = Pair::with(&tight(), &tight());
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
    let mut pair = Pair::with(&tight(), &tight());
    let stuck = [stream(&mut pair), stream(&mut pair)];
    for call in stuck {
        fill(&mut pair, call, 936);
    }
    pair.settle();
    // 10,000 of 25,000 are held for ever. The rest has to come round again and again.
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
            (1..=10).contains(&credits),
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
        credits < 1000,
        "{credits} credit frames for 100,000 messages"
    );
}

#[test]
fn streams_that_nobody_reads_use_up_the_plenty_long_before_the_credit() {
    let mut pair = Pair::new();
    assert!(pair.server.conn.has_plenty());
    let mut streams = 0;
    while pair.server.conn.has_plenty() {
        let call = stream(&mut pair);
        pair.server_message(call, 24 * 1024);
        streams += 1;
    }
    assert!((100..200).contains(&streams), "{streams}");
    for _ in streams..1000 {
        let call = stream(&mut pair);
        assert!(fill(&mut pair, call, 8 * 1024).0 > 0);
    }
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

/// Answers that nobody reads before their calls are released, and those that come too late.
#[test]
fn large_answers_that_nobody_read_give_their_credit_back() {
    let large = limits::LARGE_MESSAGE_BYTES as usize + 1;
    let mut pair = Pair::new();
    for is_late in [false, true] {
        // More than the window of large messages would bear if nothing came back.
        for _ in 0..10 {
            let call = pair.unary(1);
            pair.settle();
            pair.respond(call, large);
            if is_late {
                pair.client.conn.cancel(call, code::CANCELLED);
            }
            pair.settle();
            pair.client.conn.release(call);
            pair.settle();
        }
    }
    pair.assert_clean();
}

#[test]
fn a_request_uses_up_its_call_s_window() {
    let mut pair = Pair::new();
    let window = limits::DEFAULT_STREAM_WINDOW_BYTES as usize;
    let call = pair.request(Some(window), Flags::NONE);
    assert_eq!(pair.client.conn.can_send(call), Err(SendError::Blocked));
    pair.settle();
    pair.server.conn.consumed(call, window as u32);
    pair.settle();
    assert_eq!(pair.client.conn.can_send(call), Ok(()));
}
