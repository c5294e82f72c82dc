//! What a peer may try (the numbers are those of the list of threats), and what comes of it:
//! its connection ends, with the rule it broke, or nothing happens at all.

use std::time::Duration;

use super::pair::{Pair, Seen};
use crate::*;

const HOT_HEAD: [u8; 2] = [1, 0];

fn frame(kind: Kind, call: CallId) -> FrameHeader {
    FrameHeader {
        call: call.to_wire(),
        ..FrameHeader::new(kind)
    }
}

fn message(call: CallId, flags: Flags, piece: u32, len: u32) -> FrameHeader {
    let flags = Flags::HAS_MESSAGE | flags;
    FrameHeader {
        flags,
        payload_len: piece,
        message_len: len,
        ..frame(Kind::Message, call)
    }
}

/// A request for a method that is defined already.
fn request(slot: u32, generation: u32) -> FrameHeader {
    let call = u64::from(generation) << 32 | u64::from(slot);
    let head_len = HOT_HEAD.len() as u32;
    FrameHeader {
        call,
        head_len,
        flags: Flags::END,
        ..FrameHeader::new(Kind::Request)
    }
}

/// A pair with one call in flight, in slot 0.
fn pair() -> (Pair, CallId) {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    (pair, call)
}

fn server_says(header: FrameHeader, head: &[u8]) -> Option<ProtocolError> {
    let (mut pair, _) = pair();
    pair.client_sends(header, head);
    pair.settle();
    assert_eq!(pair.server.conn.is_closed(), pair.server.error.is_some());
    if pair.server.error.is_some() {
        // The peer is told, once.
        assert!(matches!(
            pair.client.take()[..],
            [Seen::GoAway(code::INTERNAL, _)]
        ));
    }
    pair.server.error
}

fn client_says(header: FrameHeader, head: &[u8]) -> Option<ProtocolError> {
    let (mut pair, _) = pair();
    pair.server_sends(header, head);
    pair.settle();
    pair.client.error
}

#[test]
fn call_ids() {
    let id = |slot: u32, generation: u32| u64::from(generation) << 32 | u64::from(slot);
    let reused = |call| Some(ProtocolError::CallIdReused { call });
    assert_eq!(
        server_says(request(1, 0), &HOT_HEAD),
        Some(ProtocolError::CallIdZero)
    );
    assert_eq!(server_says(request(0, 1), &HOT_HEAD), reused(id(0, 1)));
    assert_eq!(
        server_says(request(0, 2), &HOT_HEAD),
        reused(id(0, 2)),
        "slot is busy"
    );
    assert_eq!(
        server_says(request(1, 2), &HOT_HEAD),
        reused(id(1, 2)),
        "skipped one"
    );
    assert_eq!(
        server_says(request(1, u32::MAX), &HOT_HEAD),
        reused(id(1, u32::MAX))
    );
    assert_eq!(server_says(request(1, 1), &HOT_HEAD), None);
    let slot = limits::DEFAULT_CALL_SLOTS;
    let out_of_range = ProtocolError::SlotOutOfRange { slot, limit: slot };
    assert_eq!(server_says(request(slot, 1), &HOT_HEAD), Some(out_of_range));
    assert_eq!(server_says(request(slot - 1, 1), &HOT_HEAD), None);
}

#[test]
fn a_finished_id_used_again() {
    let (mut pair, call) = pair();
    pair.trailers(call, code::OK);
    pair.settle();
    pair.client_sends(request(0, 1), &HOT_HEAD);
    pair.settle();
    let reused = ProtocolError::CallIdReused {
        call: call.to_wire(),
    };
    assert_eq!(pair.server.error, Some(reused));
}

/// 16: an answer to an unknown call ends the connection; to a finished one, it is late.
#[test]
fn answers_to_unknown_and_finished_calls() {
    let unknown = |call: CallId| {
        Some(ProtocolError::UnknownCall {
            call: call.to_wire(),
        })
    };
    let never = CallId::new(5, 1).unwrap();
    let next = CallId::new(0, 2).unwrap();
    for call in [never, next] {
        assert_eq!(client_says(frame(Kind::Trailers, call), &[]), unknown(call));
        assert_eq!(
            client_says(message(call, Flags::NONE, 1, 1), &[]),
            unknown(call)
        );
        assert_eq!(server_says(frame(Kind::Reset, call), &[]), unknown(call));
        assert_eq!(
            server_says(message(call, Flags::NONE, 1, 1), &[]),
            unknown(call)
        );
    }
    let (mut pair, call) = pair();
    pair.trailers(call, code::OK);
    pair.settle();
    pair.server_sends(frame(Kind::Trailers, call), &[]);
    pair.server_sends(message(call, Flags::NONE, 9, 9), &[]);
    pair.settle();
    assert_eq!(pair.client.take()[1..], [Seen::Ignored, Seen::Ignored]);
    assert_eq!(pair.client.error, None);
}

#[test]
fn answers_to_a_call_that_was_not_sent_yet() {
    let (mut pair, _) = pair();
    let call = pair.client.conn.open(pair.now, None).unwrap();
    pair.server_sends(frame(Kind::Trailers, call), &[]);
    pair.settle();
    assert_eq!(
        pair.client.error,
        Some(ProtocolError::UnknownCall {
            call: call.to_wire()
        })
    );
}

#[test]
fn roles() {
    let call = CallId::new(0, 1).unwrap();
    for kind in [Kind::Headers, Kind::Trailers] {
        let wrong = Some(ProtocolError::WrongRole { kind: kind.as_u8() });
        assert_eq!(server_says(frame(kind, call), &[]), wrong);
    }
    let wrong = Some(ProtocolError::WrongRole {
        kind: Kind::Request.as_u8(),
    });
    assert_eq!(client_says(request(1, 1), &HOT_HEAD), wrong);
    let half_close = FrameHeader {
        flags: Flags::END,
        ..frame(Kind::Message, call)
    };
    assert!(matches!(
        client_says(half_close, &[]),
        Some(ProtocolError::OutOfOrder { .. })
    ));
}

#[test]
fn a_message_after_half_close() {
    let (mut pair, call) = pair();
    pair.client_message(call, 1, Flags::END);
    pair.client_sends(message(call, Flags::NONE, 1, 1), &[]);
    pair.settle();
    let after = ProtocolError::MessageAfterEnd {
        call: call.to_wire(),
    };
    assert_eq!(pair.server.error, Some(after));
}

#[test]
fn headers_and_responses_out_of_order() {
    let sequences: [&[FrameHeader]; 4] = {
        let call = CallId::new(0, 1).unwrap();
        let headers = frame(Kind::Headers, call);
        let one = message(call, Flags::NONE, 1, 1);
        let response = FrameHeader {
            kind: Kind::Response,
            ..one
        };
        [
            &[headers, headers],
            &[one, headers],
            &[headers, response],
            &[one, response],
        ]
    };
    for sequence in sequences {
        let (mut pair, _) = pair();
        for header in sequence {
            pair.server_sends(*header, &[]);
        }
        pair.settle();
        assert!(matches!(
            pair.client.error,
            Some(ProtocolError::OutOfOrder { .. })
        ));
    }
}

#[test]
fn pieces_that_do_not_add_up() {
    let call = CallId::new(0, 1).unwrap();
    let first = message(call, Flags::MORE, 4, 10);
    let bad: [FrameHeader; 6] = [
        message(call, Flags::CONTINUED, 4, 10), // ends too early
        message(call, Flags::CONTINUED | Flags::MORE, 6, 10), // does not end
        message(call, Flags::CONTINUED, 7, 10), // too long
        message(call, Flags::CONTINUED, 6, 11), // another message
        message(call, Flags::NONE, 1, 1),       // a second one
        FrameHeader {
            flags: Flags::END,
            ..frame(Kind::Message, call)
        },
    ];
    let error = Some(ProtocolError::BadPiece {
        call: call.to_wire(),
    });
    for second in bad {
        let (mut pair, _) = pair();
        pair.client_sends(first, &[]);
        pair.client_sends(second, &[]);
        pair.settle();
        assert_eq!(pair.server.error, error, "{second:?}");
    }
    assert_eq!(
        server_says(message(call, Flags::CONTINUED, 6, 10), &[]),
        error
    );
    let (mut pair, _) = pair();
    pair.server_sends(first, &[]);
    pair.server_sends(frame(Kind::Trailers, call), &[]);
    pair.settle();
    assert_eq!(pair.client.error, error, "OK in the middle of a message");
}

#[test]
fn a_head_of_another_length() {
    let (mut pair, _) = pair();
    let got = pair
        .server
        .conn
        .handle_frame(pair.now, &request(1, 1), &[1]);
    assert_eq!(
        got,
        Err(ProtocolError::HeadLength {
            announced: 2,
            got: 1
        })
    );
}

#[test]
fn credit_overrun() {
    let (mut pair, call) = pair();
    // The stream's window of 4 MiB, and then one message more than that.
    for _ in 0..5 {
        pair.client_sends(message(call, Flags::NONE, 1 << 20, 1 << 20), &[]);
    }
    pair.settle();
    let overrun = |call| Some(ProtocolError::CreditOverrun { call });
    assert_eq!(pair.server.error, overrun(call.to_wire()));

    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.unary(1);
        pair.settle();
    }
    for slot in 2..5 {
        let len = 8 << 20;
        let flags = Flags::HAS_MESSAGE | Flags::END;
        let header = FrameHeader {
            flags,
            payload_len: len,
            message_len: len,
            ..request(slot, 1)
        };
        pair.client_sends(header, &HOT_HEAD);
    }
    pair.settle();
    assert_eq!(pair.server.error, overrun(0));
}

/// A request's message uses up what its call may have under way, so the next one has no credit.
#[test]
fn credit_overrun_behind_a_request() {
    let mut pair = Pair::new();
    let window = limits::DEFAULT_STREAM_WINDOW_BYTES as usize;
    let call = pair.request(Some(window), Flags::NONE);
    pair.client_sends(message(call, Flags::NONE, 1, 1), &[]);
    pair.settle();
    let call = call.to_wire();
    assert_eq!(
        pair.server.error,
        Some(ProtocolError::CreditOverrun { call })
    );
}

/// None of them more than one message, and together more than the connection's window of 16 MiB.
#[test]
fn credit_overrun_by_several_calls() {
    for kind in [Kind::Message, Kind::Response] {
        let (mut pair, first) = pair();
        let more = [(); 2].map(|()| pair.request(None, Flags::NONE));
        pair.settle();
        for call in [first, more[0], more[1]] {
            let header = message(call, Flags::NONE, 8 << 20, 8 << 20);
            let header = FrameHeader { kind, ..header };
            if kind == Kind::Message {
                pair.client_sends(header, &[]);
            } else {
                pair.server_sends(header, &[]);
            }
        }
        pair.settle();
        let errors = [pair.server.error, pair.client.error];
        assert!(errors.contains(&Some(ProtocolError::CreditOverrun { call: 0 })));
    }
}

#[test]
fn credit_overrun_on_finished_calls() {
    let (mut pair, call) = pair();
    pair.trailers(call, code::OK);
    pair.settle();
    // Late messages come back at once, so any number of them passes; they cost nobody anything.
    for _ in 0..100 {
        pair.server_sends(message(call, Flags::NONE, 1 << 20, 1 << 20), &[]);
        pair.settle();
    }
    assert_eq!(pair.client.error, None);
    // But not within one window.
    for _ in 0..100 {
        pair.server_sends(message(call, Flags::NONE, 1 << 20, 1 << 20), &[]);
    }
    pair.settle();
    assert_eq!(
        pair.client.error,
        Some(ProtocolError::CreditOverrun { call: 0 })
    );
}

#[test]
fn credit_out_of_nothing() {
    let call = CallId::new(0, 1).unwrap();
    for granted in [0, 1, u32::MAX] {
        let word = call.to_wire();
        let header = FrameHeader {
            message_len: granted,
            ..frame(Kind::Credit, call)
        };
        let bad = |call| Some(ProtocolError::BadCredit { call, granted });
        assert_eq!(server_says(header, &[]), bad(word));
        assert_eq!(server_says(FrameHeader { call: 0, ..header }, &[]), bad(0));
        // Nor for large messages, nor for those of one call.
        let flags = Flags::LARGE;
        assert_eq!(server_says(FrameHeader { flags, ..header }, &[]), bad(word));
        let of_all = FrameHeader {
            call: 0,
            flags,
            ..header
        };
        assert_eq!(server_says(of_all, &[]), bad(0));
    }
}

/// Credit for large messages is the connection's: no call has any of its own.
#[test]
fn credit_for_large_messages_of_one_call() {
    let (mut pair, call) = pair();
    let large = limits::LARGE_MESSAGE_BYTES as usize + 1;
    pair.client_message(call, large, Flags::END);
    let header = FrameHeader {
        flags: Flags::LARGE,
        message_len: 1,
        ..frame(Kind::Credit, call)
    };
    pair.server_sends(header, &[]);
    pair.settle();
    let (call, granted) = (call.to_wire(), 1);
    assert_eq!(
        pair.client.error,
        Some(ProtocolError::BadCredit { call, granted })
    );
}

/// 37: open-then-cancel.
#[test]
fn rapid_reset() {
    let limit = 100;
    let config = Config {
        max_early_resets: limit,
        ..Config::default()
    };
    let mut pair = Pair::with(&Config::default(), &config);
    let mut resets = 0;
    while pair.server.error.is_none() {
        let Ok(call) = pair.client.conn.open(pair.now, None) else {
            break;
        };
        pair.send_request(call, Some(1), Flags::END, None);
        pair.client.conn.cancel(call, code::CANCELLED);
        pair.settle();
        resets += 1;
        assert!(resets <= 101);
    }
    assert_eq!(pair.server.error, Some(ProtocolError::ResetFlood { limit }));
}

#[test]
fn cancelling_now_and_then_is_no_flood() {
    let config = Config {
        max_early_resets: 10,
        ..Config::default()
    };
    let mut pair = Pair::with(&Config::default(), &config);
    // One loser to a winner, as in hedging.
    for _ in 0..1000 {
        let (winner, loser) = (pair.unary(1), pair.unary(1));
        pair.settle();
        pair.respond(winner, 1);
        pair.client.conn.cancel(loser, code::CANCELLED);
        pair.settle();
        pair.client.conn.release(winner);
    }
    // Ten a second, and none answered.
    for _ in 0..100 {
        let call = pair.unary(1);
        pair.client.conn.cancel(call, code::CANCELLED);
        pair.pass(Duration::from_millis(150));
    }
    assert_eq!(pair.server.error, None);
}

#[test]
fn ping_flood_and_pongs_nobody_asked_for() {
    let (mut pair, _) = pair();
    for token in 0..9 {
        pair.client_sends(
            FrameHeader {
                call: token,
                ..FrameHeader::new(Kind::Ping)
            },
            &[],
        );
    }
    pair.settle();
    assert_eq!(pair.server.error, Some(ProtocolError::PingFlood));
    let pong = FrameHeader {
        call: 1,
        ..FrameHeader::new(Kind::Pong)
    };
    assert_eq!(client_says(pong, &[]), Some(ProtocolError::UnsolicitedPong));
}

fn request_with(head: RequestHead<'_>) -> Option<ProtocolError> {
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let header = FrameHeader {
        head_len: bytes.len() as u32,
        ..request(1, 1)
    };
    server_says(header, &bytes)
}

#[test]
fn methods_against_the_rules() {
    let unknown = Some(ProtocolError::UnknownMethod(9));
    assert_eq!(request_with(RequestHead::new(Method::Known(9))), unknown);
    let bad = |number| Some(ProtocolError::BadMethodDefinition(number));
    assert_eq!(
        request_with(RequestHead::new(Method::Define(0, "/other"))),
        bad(0)
    );
    assert_eq!(
        request_with(RequestHead::new(Method::Define(0, "/test.Test/Call"))),
        None
    );
    let beyond = limits::MAX_METHODS;
    assert_eq!(
        request_with(RequestHead::new(Method::Define(beyond, "/a"))),
        bad(beyond)
    );
    assert_eq!(
        request_with(RequestHead::new(Method::Define(u32::MAX, "/a"))),
        bad(u32::MAX)
    );
    assert_eq!(
        request_with(RequestHead::new(Method::Define(beyond - 1, "/a"))),
        None
    );
    let long = "/".repeat(limits::MAX_REMEMBERED_PATH_BYTES + 1);
    assert_eq!(
        request_with(RequestHead::new(Method::Define(1, &long))),
        bad(1)
    );
    assert_eq!(request_with(RequestHead::new(Method::Inline(&long))), None);
}

#[test]
fn malformed_heads_end_the_connection() {
    for head in [&[0][..], &[1], &[0xff, 0], &[4, 0], &[1, 0, 9]] {
        let header = FrameHeader {
            head_len: head.len() as u32,
            ..request(1, 1)
        };
        assert!(
            matches!(server_says(header, head), Some(ProtocolError::BadHead(_))),
            "{head:?}"
        );
    }
    let call = CallId::new(0, 1).unwrap();
    for kind in [Kind::Headers, Kind::Trailers] {
        let header = FrameHeader {
            head_len: 3,
            ..frame(kind, call)
        };
        let error = client_says(header, &[1, 2, 3]);
        assert!(matches!(error, Some(ProtocolError::BadHead(_))));
    }
}

/// No header that says so is decoded; the core refuses it all the same.
#[test]
fn an_answer_without_a_message() {
    let (mut pair, call) = pair();
    let header = frame(Kind::Response, call);
    let got = pair.client.conn.handle_frame(pair.now, &header, &[]);
    assert!(matches!(got, Err(ProtocolError::OutOfOrder { .. })));
}
