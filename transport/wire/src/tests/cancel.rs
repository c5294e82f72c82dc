//! Cancellation at each point of a call, and giving up what was not sent.

use std::time::Duration;

use super::pair::{Pair, Seen};
use crate::*;

#[test]
fn before_anything_was_sent() {
    let mut pair = Pair::new();
    let call = pair.client.conn.open(pair.now, None).unwrap();
    pair.client.conn.cancel(call, code::CANCELLED);
    pair.settle();
    assert!(
        pair.server.arrived.is_empty(),
        "a peer that never saw a call hears nothing of it"
    );
    assert_eq!(pair.unary(1), call);
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn while_the_request_travels() {
    let mut pair = Pair::new();
    let call = pair.unary(1000);
    pair.client.conn.cancel(call, code::CANCELLED);
    pair.settle();
    assert_eq!(
        pair.server.take().last(),
        Some(&Seen::Reset(call, code::CANCELLED, false))
    );
    assert_eq!(
        pair.server.conn.send_response(call, 0, 1, Flags::NONE),
        Err(SendError::Gone)
    );
    pair.assert_clean();
}

#[test]
fn while_the_answer_travels() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.settle();
    pair.respond(call, 5000);
    pair.client.conn.release(call); // dropped by the application
    let next = pair.unary(1); // must not take the slot before its RESET is out
    assert_ne!(next.slot(), call.slot());
    pair.settle();
    assert_eq!(pair.client.take(), [Seen::Ignored]);
    assert_eq!(
        pair.server.take().last(),
        Some(&Seen::Ignored),
        "the RESET came too late"
    );
    pair.respond(next, 1);
    pair.settle();
    pair.client.conn.release(next);
    pair.assert_clean();
}

#[test]
fn in_the_middle_of_streams() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.client_message(call, 100, Flags::NONE);
    pair.settle();
    pair.server_message(call, 100);
    let piece = pair
        .server
        .conn
        .send_piece(call, 100, 50, Flags::NONE)
        .unwrap();
    pair.server_sends(piece, &[]);
    pair.client.conn.cancel(call, code::CANCELLED);
    assert_eq!(
        pair.client.conn.send_message(call, 1, Flags::NONE),
        Err(SendError::Gone)
    );
    pair.settle();
    assert_eq!(pair.client.take(), [Seen::Ignored, Seen::Ignored]);
    assert_eq!(
        pair.server.conn.send_piece(call, 100, 50, Flags::NONE),
        Err(SendError::Gone)
    );
    pair.assert_clean();
}

#[test]
fn after_the_answer_it_is_a_release() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.settle();
    pair.respond(call, 1);
    pair.settle();
    pair.client.conn.cancel(call, code::CANCELLED);
    pair.client.conn.cancel(call, code::CANCELLED);
    pair.client.conn.release(call);
    pair.settle();
    assert_eq!(pair.server.arrived, [Kind::Request]);
    assert_eq!(pair.unary(1).slot(), call.slot());
    assert_ne!(pair.unary(1).slot(), call.slot(), "released once");
}

#[test]
fn by_the_server() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    pair.server.conn.cancel(call, code::ABORTED);
    pair.client_message(call, 10, Flags::NONE);
    pair.settle();
    assert_eq!(
        pair.client.take(),
        [Seen::Reset(call, code::ABORTED, false)]
    );
    assert_eq!(pair.server.take().last(), Some(&Seen::Ignored));
    pair.client.conn.release(call);
    assert_eq!(pair.unary(1).slot(), call.slot());
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn by_both_at_once() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        let call = pair.unary(1);
        pair.settle();
        pair.server.conn.cancel(call, code::ABORTED);
        pair.client.conn.cancel(call, code::CANCELLED);
        pair.settle();
    }
    assert_eq!((pair.client.error, pair.server.error), (None, None));
    pair.assert_clean();
}

/// The server wants to end a call, but has not sent that yet when the client resets it and uses
/// the slot again: what it wanted to say must not hit the new call, nor stand in its way.
#[test]
fn an_end_that_was_not_sent_is_forgotten() {
    let mut pair = Pair::new();
    let now = pair.now;
    let call = pair.unary(1);
    pair.settle();
    pair.server.conn.cancel(call, code::ABORTED);
    pair.client.conn.cancel(call, code::CANCELLED);
    let reset = pair.client.conn.poll_transmit().unwrap();
    assert_eq!(
        pair.server.conn.handle_frame(now, &reset.header, &[]),
        Ok(Event::Ignored)
    );
    let next = pair.unary(1);
    assert_eq!(next.slot(), call.slot());
    pair.settle();
    assert!(matches!(pair.server.take()[..], [_, Seen::Request { .. }]));
    assert!(pair.client.arrived.is_empty());
}

#[test]
fn a_request_that_was_not_written_is_taken_back() {
    let config = Config {
        connection_window_bytes: 4096,
        ..Config::default()
    };
    let mut pair = Pair::with(&config, &config);
    let used = pair.unary(1);
    pair.settle();
    pair.respond(used, 1);
    pair.settle();
    pair.client.conn.release(used);
    // More often than the window would bear if nothing came back.
    for _ in 0..100 {
        let conn = &mut pair.client.conn;
        let call = conn.open(pair.now, None).unwrap();
        let header = conn.request_frame(call, 0, Some(1000), Flags::END).unwrap();
        conn.retract(&header);
        let call = conn.open(pair.now, None).unwrap();
        conn.request_frame(call, 0, Some(1000), Flags::END).unwrap();
        conn.cancel(call, code::CANCELLED);
        conn.abandon_open(call);
        assert!(conn.poll_transmit().is_none());
    }
    let call = pair.unary(1000);
    assert_eq!((call.slot(), call.generation()), (0, 2));
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn many_cancelled_calls_leave_nothing() {
    let mut pair = Pair::new();
    for _ in 0..1000 {
        let calls: Vec<_> = (0..4).map(|_| pair.unary(10_000)).collect();
        for call in &calls[1..] {
            pair.client.conn.cancel(*call, code::CANCELLED);
        }
        pair.settle();
        pair.respond(calls[0], 10_000);
        pair.settle();
        pair.client.conn.release(calls[0]);
    }
    pair.assert_clean();
    assert!(pair.client.conn.open(pair.now, None).unwrap().slot() < 4);
}

#[test]
fn a_call_that_was_answered_is_not_taken_back() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    let headers = pair.server.conn.send_headers(call, 0).unwrap();
    pair.server_sends(headers, &[]);
    pair.settle();
    pair.client.conn.abandon_open(call);
    assert!(pair.client.conn.is_open(call));
    assert_ne!(pair.unary(1).slot(), call.slot());
    pair.settle();
    assert_eq!(pair.server.error, None);
}

/// The application still holds the call, so no other one takes its slot.
#[test]
fn a_request_that_expired_unwritten_keeps_its_slot_until_it_is_released() {
    let mut pair = Pair::new();
    let deadline = Some(pair.now + Duration::from_millis(1));
    let conn = &mut pair.client.conn;
    let call = conn.open(pair.now, deadline).unwrap();
    conn.request_frame(call, 2, None, Flags::END).unwrap();
    conn.handle_timeout(pair.now + Duration::from_millis(2));
    conn.abandon_open(call);
    let next = conn.open(pair.now, None).unwrap();
    assert_ne!(next.slot(), call.slot());
    conn.release(call);
    assert_eq!(conn.open(pair.now, None), Ok(call), "the peer never saw it");
}

#[test]
fn a_message_that_was_not_written_gives_its_credit_back() {
    let config = Config {
        connection_window_bytes: 20_000,
        ..Config::default()
    };
    let mut pair = Pair::with(&config, &config);
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    // More often than either window would bear if nothing came back.
    for _ in 0..100 {
        let conn = &mut pair.client.conn;
        let unsent = conn.send_message(call, 1000, Flags::NONE).unwrap();
        conn.retract(&unsent);
    }
    pair.client_message(call, 1000, Flags::END);
    pair.settle();
    assert_eq!(pair.server.error, None);
}
