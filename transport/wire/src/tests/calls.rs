//! The four kinds of call, methods by number, ids, refusals.

use super::pair::{Pair, Seen, whole};
use crate::*;

fn request(call: CallId, message: Option<u32>, end: bool) -> Seen {
    Seen::Request {
        call,
        path: "/test.Test/Call".to_owned(),
        message,
        end,
    }
}

#[test]
fn unary() {
    let mut pair = Pair::new();
    for round in 0..3 {
        let call = pair.unary(100);
        assert_eq!(
            (call.slot(), call.generation()),
            (0, round + 1),
            "slots are used again"
        );
        pair.settle();
        assert_eq!(pair.server.take(), [request(call, Some(100), true)]);
        pair.respond(call, 200);
        pair.settle();
        assert_eq!(pair.client.take(), [Seen::Response(call, 200)]);
        assert_eq!(pair.client.conn.calls_in_flight(), 0);
        pair.client.conn.release(call);
    }
    pair.assert_clean();
}

#[test]
fn unary_error() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.settle();
    let status = StatusHead {
        message: "no such pen",
        ..StatusHead::default()
    };
    let mut head = vec![0; status.encoded_len().unwrap()];
    status.encode(&mut head);
    let header = pair
        .server
        .conn
        .send_trailers(call, code::NOT_FOUND, head.len())
        .unwrap();
    pair.server_sends(header, &head);
    pair.settle();
    let text = "no such pen".to_owned();
    assert_eq!(
        pair.client.take(),
        [Seen::Trailers(call, code::NOT_FOUND, text)]
    );
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn server_stream() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.settle();
    let headers = pair.server.conn.send_headers(call, 0).unwrap();
    pair.server_sends(headers, &[]);
    for len in [0, 1, 1000] {
        pair.server_message(call, len);
    }
    pair.trailers(call, code::OK);
    pair.settle();
    let end = Seen::Trailers(call, code::OK, String::new());
    let expected = [
        Seen::Headers(call, 0),
        whole(call, 0),
        whole(call, 1),
        whole(call, 1000),
        end,
    ];
    assert_eq!(pair.client.take(), expected);
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn client_stream() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.client_message(call, 10, Flags::NONE);
    pair.client_message(call, 20, Flags::COMPRESSED);
    let end = pair.client.conn.half_close(call).unwrap();
    pair.client_sends(end, &[]);
    assert_eq!(
        pair.client.conn.half_close(call),
        Err(SendError::HalfClosed)
    );
    assert_eq!(
        pair.client.conn.send_message(call, 1, Flags::NONE),
        Err(SendError::HalfClosed)
    );
    pair.settle();
    let seen = pair.server.take();
    assert_eq!(seen[..2], [request(call, None, false), whole(call, 10)]);
    assert!(matches!(
        seen[2],
        Seen::Message(Message {
            compressed: true,
            message_len: 20,
            ..
        })
    ));
    assert_eq!(seen[3..], [Seen::HalfClosed(call)]);
    pair.respond(call, 5);
    pair.settle();
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn bidi_in_lockstep() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    for len in 0..100_u32 {
        pair.client_message(call, len as usize, Flags::NONE);
        pair.settle();
        assert_eq!(pair.server.take().last(), Some(&whole(call, len)));
        pair.server.conn.consumed(call, len);
        pair.server_message(call, len as usize);
        pair.settle();
        assert_eq!(pair.client.take().last(), Some(&whole(call, len)));
        pair.client.conn.consumed(call, len);
    }
    pair.client_message(call, 7, Flags::END);
    pair.settle();
    let last = pair.server.take();
    assert!(matches!(
        last[..],
        [Seen::Message(Message { end: true, .. })]
    ));
    pair.trailers(call, code::OK);
    pair.settle();
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn server_ends_a_stream_before_the_client_does() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    pair.trailers(call, code::PERMISSION_DENIED);
    // Sent before the client knows.
    pair.client_message(call, 1000, Flags::NONE);
    pair.settle();
    assert_eq!(pair.server.take().last(), Some(&Seen::Ignored));
    assert_eq!(
        pair.client.conn.send_message(call, 1, Flags::NONE),
        Err(SendError::Gone)
    );
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn a_message_in_pieces() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    for _ in 0..3 {
        let piece = pair
            .client
            .conn
            .send_piece(call, 30, 10, Flags::END)
            .unwrap();
        pair.client_sends(piece, &[]);
        let early = pair.client.conn.half_close(call);
        assert!(early.is_err());
    }
    pair.settle();
    let seen = pair.server.take();
    let pieces: Vec<_> = seen[1..]
        .iter()
        .map(|seen| match seen {
            Seen::Message(m) => (m.message_len, m.piece_len, m.first, m.more, m.end),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (30, 10, true, true, false),
        (30, 10, false, true, false),
        (30, 10, false, false, true),
    ];
    assert_eq!(pieces, expected);
    pair.respond(call, 0);
    pair.settle();
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn pieces_that_do_not_add_up_are_not_sent() {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    let conn = &mut pair.client.conn;
    assert_eq!(
        conn.send_piece(call, 10, 11, Flags::NONE),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(
        conn.send_piece(call, 10, 0, Flags::NONE),
        Err(SendError::OutOfOrder)
    );
    let first = conn.send_piece(call, 10, 4, Flags::NONE).unwrap();
    assert_eq!(
        conn.send_piece(call, 11, 4, Flags::NONE),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(
        conn.send_message(call, 10, Flags::NONE),
        Err(SendError::OutOfOrder)
    );
    // Taken back, and sent in other pieces.
    conn.retract(&first);
    let whole = conn.send_message(call, 10, Flags::END).unwrap();
    conn.retract(&whole);
    let again = conn.send_message(call, 10, Flags::END).unwrap();
    pair.client_sends(again, &[]);
    pair.settle();
    pair.respond(call, 0);
    pair.settle();
    pair.client.conn.release(call);
    pair.assert_clean();
}

#[test]
fn nothing_beyond_the_limits_is_sent() {
    let mut pair = Pair::new();
    let too_large = Err(SendError::TooLarge);
    let (head, message) = (limits::MAX_HEAD_BYTES, limits::MAX_MESSAGE_BYTES);
    let (head, message) = (head as usize + 1, message as usize + 1);
    let conn = &mut pair.client.conn;
    let call = conn.open(pair.now, None).unwrap();
    let end = Flags::END;
    assert_eq!(conn.request_frame(call, head, None, end), too_large);
    assert_eq!(conn.request_frame(call, 2, Some(message), end), too_large);
    conn.abandon_open(call);
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    assert_eq!(pair.client.conn.send_message(call, message, end), too_large);
    let server = &mut pair.server.conn;
    assert_eq!(server.send_headers(call, head), too_large);
    assert_eq!(server.send_trailers(call, code::OK, head), too_large);
    let none = Flags::NONE;
    assert_eq!(server.send_response(call, head, 1, none), too_large);
    assert_eq!(server.send_response(call, 0, message, none), too_large);
}

#[test]
fn the_server_answers_in_order() {
    let mut pair = Pair::new();
    let call = pair.unary(1);
    pair.settle();
    let conn = &mut pair.server.conn;
    assert_eq!(conn.half_close(call), Err(SendError::OutOfOrder));
    assert_eq!(
        conn.send_message(call, 1, Flags::END),
        Err(SendError::OutOfOrder)
    );
    conn.send_headers(call, 0).unwrap();
    assert_eq!(conn.send_headers(call, 0), Err(SendError::OutOfOrder));
    assert_eq!(
        conn.send_response(call, 0, 1, Flags::NONE),
        Err(SendError::OutOfOrder)
    );
    assert_eq!(conn.open(pair.now, None), Err(OpenError::NotClient));
    conn.send_piece(call, 10, 5, Flags::NONE).unwrap();
    assert_eq!(
        conn.send_trailers(call, code::OK, 0),
        Err(SendError::OutOfOrder)
    );
    conn.send_trailers(call, code::INTERNAL, 0).unwrap();
    assert_eq!(conn.send_trailers(call, code::OK, 0), Err(SendError::Gone));
    assert_eq!(
        pair.client.conn.send_headers(call, 0),
        Err(SendError::OutOfOrder)
    );
}

#[test]
fn a_method_is_defined_once() {
    let mut pair = Pair::new();
    let first = pair.unary(1);
    assert_eq!(
        pair.client.conn.method(0, "/test.Test/Call"),
        Method::Known(0)
    );
    let second = pair.unary(1);
    pair.settle();
    let expected = [
        request(first, Some(1), true),
        request(second, Some(1), true),
    ];
    assert_eq!(pair.server.take(), expected);
    assert_eq!(pair.server.conn.method_path(0), Some("/test.Test/Call"));
    assert_eq!(pair.server.conn.method_path(1), None);
}

#[test]
fn a_definition_that_was_not_sent_is_made_again() {
    let mut pair = Pair::new();
    let call = pair.client.conn.open(pair.now, None).unwrap();
    assert!(matches!(
        pair.client.conn.method(0, "/a/B"),
        Method::Define(0, _)
    ));
    pair.client.conn.abandon_open(call);
    assert!(matches!(
        pair.client.conn.method(0, "/a/B"),
        Method::Define(0, _)
    ));
    let next = pair.unary(1);
    assert_eq!(
        next, call,
        "the peer never saw the id, so it is the next one"
    );
    pair.settle();
    assert_eq!(pair.server.error, None);
}

#[test]
fn long_paths_and_high_numbers_go_inline() {
    let pair = Pair::new();
    let long = "/".repeat(limits::MAX_REMEMBERED_PATH_BYTES + 1);
    assert_eq!(pair.client.conn.method(1, &long), Method::Inline(&long));
    assert_eq!(
        pair.client.conn.method(u32::MAX, "/a/B"),
        Method::Inline("/a/B")
    );
    let too_long = "/".repeat(limits::MAX_PATH_BYTES + 1);
    let head = RequestHead::new(Method::Inline(&too_long));
    assert_eq!(
        head.encoded_len(),
        Err(HeadError::PathTooLong(too_long.len()))
    );
}

#[test]
fn calls_beyond_the_limit_are_refused_and_the_connection_lives() {
    let server = Config {
        max_concurrent_calls: 2,
        ..Config::default()
    };
    let mut pair = Pair::with(&Config::default(), &server);
    let calls = [pair.unary(10), pair.unary(10), pair.unary(10)];
    pair.settle();
    let refused = Seen::Refused(calls[2], code::RESOURCE_EXHAUSTED);
    assert_eq!(pair.server.take().last(), Some(&refused));
    let seen = pair.client.take();
    assert!(
        matches!(&seen[..], [Seen::Trailers(call, code::RESOURCE_EXHAUSTED, text)]
            if *call == calls[2] && text.contains("too many"))
    );
    pair.client.conn.release(calls[2]);
    for call in &calls[..2] {
        pair.respond(*call, 1);
    }
    pair.settle();
    for call in &calls[..2] {
        pair.client.conn.release(*call);
    }
    let again = pair.unary(1);
    pair.settle();
    pair.respond(again, 1);
    pair.settle();
    pair.client.conn.release(again);
    pair.assert_clean();
}

#[test]
fn a_client_keeps_to_the_slots_agreed() {
    let server = Config {
        call_slots: 2,
        ..Config::default()
    };
    let mut pair = Pair::with(&Config::default(), &server);
    let first = pair.unary(1);
    pair.unary(1);
    let full = Err(OpenError::TooManyCalls { limit: 2 });
    assert_eq!(pair.client.conn.open(pair.now, None), full);
    pair.settle();
    pair.respond(first, 1);
    pair.settle();
    assert_eq!(
        pair.client.conn.open(pair.now, None),
        full,
        "not taken yet, so not free"
    );
    pair.client.conn.release(first);
    assert!(pair.client.conn.open(pair.now, None).is_ok());
}

/// Another connection of the client has what this one leaves.
#[test]
fn a_client_keeps_to_fewer_calls_than_there_are_slots() {
    let mut pair = Pair::new();
    let calls = [pair.unary(1), pair.unary(1), pair.unary(1)];
    pair.client.conn.limit_calls(2);
    let slots = pair.client.conn.call_slots();
    let full = Err(OpenError::TooManyCalls { limit: slots });
    for call in &calls[..2] {
        assert_eq!(pair.client.conn.open(pair.now, None), full);
        pair.settle();
        pair.respond(*call, 1);
        pair.settle();
        pair.client.conn.release(*call);
    }
    let fourth = pair.unary(1);
    assert_eq!(pair.client.conn.open(pair.now, None), full);
    pair.client.conn.limit_calls(u32::MAX);
    assert_eq!(pair.client.conn.call_limit(), slots);
    let fifth = pair.unary(1);
    for call in [calls[2], fourth, fifth] {
        pair.settle();
        pair.respond(call, 1);
        pair.settle();
        pair.client.conn.release(call);
    }
    pair.assert_clean();
}

#[test]
fn generations_go_round() {
    let mut pair = Pair::new();
    for conn in [&mut pair.client.conn, &mut pair.server.conn] {
        conn.set_generation(0, u32::MAX - 1);
    }
    for expected in [u32::MAX, 1, 2] {
        let call = pair.client.conn.open(pair.now, None).unwrap();
        assert_eq!(call.generation(), expected);
        pair.client.conn.abandon_open(call);
        assert_eq!(
            pair.unary(1),
            call,
            "abandoned ids come again across the turn too"
        );
        pair.settle();
        pair.respond(call, 1);
        pair.settle();
        pair.client.conn.release(call);
        // What is late is late across the turn too.
        let late = FrameHeader {
            call: call.to_wire(),
            ..FrameHeader::new(Kind::Reset)
        };
        pair.client_sends(late, &[]);
        pair.settle();
        assert_eq!(pair.server.take().last(), Some(&Seen::Ignored));
    }
    pair.assert_clean();
}

#[test]
fn an_answer_in_flight_survives_out_of_order_requests() {
    let mut pair = Pair::new();
    let first = pair.client.conn.open(pair.now, None).unwrap();
    let second = pair.client.conn.open(pair.now, None).unwrap();
    // Two threads: the second one is quicker.
    pair.send_request(second, Some(1), Flags::END, None);
    pair.send_request(first, Some(1), Flags::END, None);
    pair.settle();
    for call in [first, second] {
        pair.respond(call, 1);
    }
    pair.settle();
    let expected = [Seen::Response(first, 1), Seen::Response(second, 1)];
    assert_eq!(pair.client.take(), expected);
}

#[test]
fn link_frames_pass_through() {
    let mut pair = Pair::new();
    let header = FrameHeader {
        flags: Flags(0xff),
        call: 7,
        payload_len: 9,
        ..FrameHeader::new(Kind::Link(0x83))
    };
    pair.server_sends(header, &[]);
    pair.settle();
    assert_eq!(pair.client.take(), [Seen::Link(header)]);
}

#[test]
fn state_of_a_call_is_small() {
    assert!(size_of::<crate::call::Call>() <= 160);
    assert_eq!(size_of::<Option<CallId>>(), 8);
}
