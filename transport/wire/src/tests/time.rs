//! Deadlines, keepalive, drain: everything that waits.

use std::time::Duration;

use super::pair::{Pair, Seen};
use crate::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_call_without_deadline_has_no_timer() {
    let mut pair = Pair::new();
    pair.unary(1);
    pair.settle();
    assert_eq!(pair.client.conn.poll_timeout(), None);
    assert_eq!(pair.server.conn.poll_timeout(), None);
}

#[test]
fn both_ends_see_the_deadline() {
    let mut pair = Pair::new();
    let call = pair.request_until(Some(1), Flags::END, Some(100 * MS));
    pair.pass(99 * MS);
    assert!(pair.client.take().is_empty());
    assert_eq!(
        pair.client.conn.deadline(call),
        pair.client.conn.poll_timeout()
    );
    pair.pass(2 * MS);
    assert_eq!(pair.client.take()[0], Seen::Expired(call));
    let server = pair.server.take();
    let expired = Seen::Expired(call);
    let reset = Seen::Reset(call, code::DEADLINE_EXCEEDED, false);
    assert!(
        server.contains(&expired) || server.contains(&reset),
        "{server:?}"
    );
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn the_server_enforces_the_deadline_alone() {
    let mut pair = Pair::new();
    let call = pair.client.conn.open(pair.now, None).unwrap();
    pair.send_request(call, Some(1), Flags::END, Some(50 * MS));
    pair.pass(60 * MS);
    assert_eq!(pair.server.take().last(), Some(&Seen::Expired(call)));
    assert_eq!(
        pair.server.conn.send_response(call, 0, 1, Flags::NONE),
        Err(SendError::Gone)
    );
    let text = "the deadline passed".to_owned();
    assert_eq!(
        pair.client.take(),
        [Seen::Trailers(call, code::DEADLINE_EXCEEDED, text)]
    );
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn what_an_expired_call_left_unread_comes_back() {
    let config = Config {
        connection_window_bytes: 10_000,
        ..Config::default()
    };
    let mut pair = Pair::with(&config, &config);
    for _ in 0..20 {
        let call = pair.client.conn.open(pair.now, None).unwrap();
        pair.send_request(call, Some(8000), Flags::END, Some(MS));
        pair.pass(2 * MS);
        assert_eq!(pair.server.take().last(), Some(&Seen::Expired(call)));
        pair.client.conn.release(call);
    }
    pair.assert_clean();
}

#[test]
fn deadlines_in_the_past() {
    let mut pair = Pair::new();
    let past = pair.client.conn.open(pair.now, Some(pair.now));
    assert_eq!(past, Err(OpenError::DeadlinePassed));
    let call = pair.client.conn.open(pair.now, None).unwrap();
    pair.send_request(call, Some(1), Flags::END, Some(Duration::ZERO));
    pair.settle();
    assert_eq!(
        pair.server.take(),
        [Seen::Refused(call, code::DEADLINE_EXCEEDED)]
    );
    assert!(matches!(
        pair.client.take()[..],
        [Seen::Trailers(_, code::DEADLINE_EXCEEDED, _)]
    ));
}

/// A server's limit holds for calls with a later deadline, and for those without one.
#[test]
fn no_call_outlives_the_server_s_limit() {
    let limited = Config {
        call_timeout: Some(10 * MS),
        ..Config::default()
    };
    for asked in [None, Some(Duration::from_secs(60))] {
        let mut pair = Pair::with(&Config::default(), &limited);
        let call = pair.request_until(Some(1), Flags::END, asked);
        pair.settle();
        let deadline = pair.server.conn.deadline(call);
        assert_eq!(deadline, Some(pair.now + 10 * MS), "{asked:?}");
        pair.pass(11 * MS);
        assert_eq!(pair.server.take().last(), Some(&Seen::Expired(call)));
    }
}

#[test]
fn a_deadline_beyond_all_time_is_none() {
    let mut pair = Pair::new();
    let call = pair.client.conn.open(pair.now, None).unwrap();
    pair.send_request(call, Some(1), Flags::END, Some(Duration::MAX));
    pair.settle();
    pair.respond(call, 1);
    pair.settle();
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn a_call_that_expires_before_it_was_sent() {
    let mut pair = Pair::new();
    let call = pair
        .client
        .conn
        .open(pair.now, Some(pair.now + MS))
        .unwrap();
    pair.pass(2 * MS);
    assert_eq!(pair.client.take(), [Seen::Expired(call)]);
    let gone = pair.client.conn.request_frame(call, 2, None, Flags::END);
    assert_eq!(gone, Err(SendError::Gone));
    pair.client.conn.abandon_open(call);
    pair.client.conn.release(call);
    assert_eq!(pair.unary(1), call, "the peer never saw the id");
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn an_answer_to_a_call_that_expired_before_it_was_sent() {
    let mut pair = Pair::new();
    let deadline = Some(pair.now + MS);
    let call = pair.client.conn.open(pair.now, deadline).unwrap();
    pair.pass(2 * MS);
    let trailers = FrameHeader {
        call: call.to_wire(),
        ..FrameHeader::new(Kind::Trailers)
    };
    pair.server_sends(trailers, &[]);
    pair.settle();
    let call = call.to_wire();
    assert_eq!(pair.client.error, Some(ProtocolError::UnknownCall { call }));
}

#[test]
fn answered_calls_do_not_expire() {
    let mut pair = Pair::new();
    let call = pair.request_until(Some(1), Flags::END, Some(10 * MS));
    pair.settle();
    pair.respond(call, 1);
    pair.settle();
    assert_eq!(pair.client.conn.poll_timeout(), None);
    assert_eq!(pair.server.conn.poll_timeout(), None);
    pair.pass(20 * MS);
    assert_eq!(pair.client.take(), [Seen::Response(call, 1)]);
}

#[test]
fn deadlines_of_finished_calls_do_not_pile_up() {
    let mut pair = Pair::new();
    let forever = pair.request_until(Some(1), Flags::END, Some(10 * MS));
    for _ in 0..10_000 {
        let call = pair.request_until(Some(1), Flags::END, Some(Duration::from_secs(3600)));
        pair.settle();
        pair.respond(call, 1);
        pair.settle();
        pair.client.conn.release(call);
        pair.now -= 2 * pair.latency;
    }
    assert!(pair.client.conn.deadlines_kept() < 200);
    assert!(pair.server.conn.deadlines_kept() < 200);
    assert!(pair.client.conn.is_open(forever));
}

fn watched(while_idle: bool) -> Config {
    let keepalive = KeepAlive {
        interval: 1000 * MS,
        timeout: 200 * MS,
        while_idle,
    };
    Config {
        keepalive: Some(keepalive),
        ..Config::default()
    }
}

#[test]
fn a_living_peer_answers_pings() {
    let mut pair = Pair::with(&watched(true), &Config::default());
    pair.pass(10_000 * MS);
    let pings = pair
        .server
        .arrived
        .iter()
        .filter(|kind| **kind == Kind::Ping)
        .count();
    assert!((9..=10).contains(&pings), "{pings}");
    assert!(!pair.client.conn.is_closed());
    pair.assert_clean();
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut pair = Pair::with(&watched(false), &Config::default());
    pair.pass(5000 * MS);
    assert_eq!(
        pair.server.arrived,
        [],
        "nothing is asked while nothing is in flight"
    );
    pair.server_hangs = true;
    pair.unary(1);
    pair.pass(1100 * MS);
    assert!(pair.client.take().is_empty());
    pair.pass(200 * MS);
    assert_eq!(pair.client.take(), [Seen::PeerSilent]);
    assert!(pair.client.conn.is_closed());
    assert_eq!(
        pair.client.conn.open(pair.now, None),
        Err(OpenError::Closed)
    );
    assert_eq!(pair.client.conn.poll_timeout(), None);
}

#[test]
fn a_busy_peer_needs_no_ping() {
    let mut pair = Pair::with(&watched(true), &Config::default());
    let call = pair.unary(1);
    for _ in 0..20 {
        pair.pass(500 * MS);
        pair.server_message(call, 1);
    }
    pair.settle();
    assert!(!pair.server.arrived.contains(&Kind::Ping));
}

#[test]
fn pings_of_the_caller() {
    let mut pair = Pair::new();
    let tokens: Vec<_> = std::iter::from_fn(|| pair.client.conn.ping()).collect();
    assert_eq!(tokens.len(), limits::MAX_PINGS_OUTSTANDING - 2);
    pair.settle();
    let expected: Vec<_> = tokens.into_iter().map(Seen::Pong).collect();
    assert_eq!(pair.client.take(), expected);
    assert!(pair.client.conn.ping().is_some());
}

#[test]
fn drain_serves_what_is_in_flight_and_what_was_sent_before_it_was_known() {
    let mut pair = Pair::new();
    let before = pair.unary(1);
    pair.settle();
    pair.server.conn.drain();
    pair.server.conn.drain();
    let crossing = pair.unary(1);
    pair.settle();
    assert!(pair.server.conn.is_draining() && !pair.server.conn.is_drained());
    assert!(matches!(&pair.client.take()[..], [Seen::GoAway(code::OK, text)] if !text.is_empty()));
    assert_eq!(
        pair.client.conn.open(pair.now, None),
        Err(OpenError::GoingAway)
    );
    for call in [before, crossing] {
        pair.respond(call, 1);
        pair.settle();
        assert_eq!(pair.client.take(), [Seen::Response(call, 1)]);
        pair.client.conn.release(call);
    }
    assert!(pair.server.conn.is_drained() && pair.client.conn.is_drained());
    pair.assert_clean();
}

#[test]
fn a_call_opened_after_the_drain_may_be_sent_elsewhere() {
    let mut pair = Pair::new();
    let slow = pair.client.conn.open(pair.now, None).unwrap();
    pair.server.conn.drain();
    pair.settle();
    pair.send_request(slow, Some(1), Flags::END, None);
    pair.settle();
    assert_eq!(pair.server.take(), [Seen::Refused(slow, code::UNAVAILABLE)]);
    assert_eq!(
        pair.client.take().last(),
        Some(&Seen::Reset(slow, code::UNAVAILABLE, true))
    );
    pair.client.conn.release(slow);
    pair.assert_clean();
}

#[test]
fn a_client_drains_by_itself() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.client.conn.drain();
    assert_eq!(
        pair.client.conn.open(pair.now, None),
        Err(OpenError::GoingAway)
    );
    pair.settle();
    pair.respond(call, 1);
    pair.settle();
    assert!(pair.client.conn.is_drained());
}

#[test]
fn close_says_why() {
    let mut pair = Pair::new();
    pair.unary(1);
    pair.settle();
    let long = "ä".repeat(5000);
    pair.server.conn.close(code::INTERNAL, &long);
    pair.settle();
    let seen = pair.client.take();
    assert!(matches!(&seen[..], [Seen::GoAway(code::INTERNAL, text)]
        if text.len() == limits::MAX_GOAWAY_TEXT_BYTES as usize));
    assert!(pair.server.conn.poll_transmit().is_none());
    let after = pair
        .server
        .conn
        .handle_frame(pair.now, &FrameHeader::new(Kind::Ping), &[]);
    assert_eq!(after, Err(ProtocolError::Closed));
}
