//! A message's length is judged when it begins, by the limit of its call.

use super::pair::{Pair, Seen};
use crate::limits::MAX_PACKED_BYTES;
use crate::*;

const LIMIT: u32 = 1000;

fn message(call: CallId, flags: Flags, piece: u32, len: u32) -> FrameHeader {
    FrameHeader {
        call: call.to_wire(),
        flags: Flags::HAS_MESSAGE | flags,
        payload_len: piece,
        message_len: len,
        ..FrameHeader::new(Kind::Message)
    }
}

/// A pair with one call in flight, of which both ends take messages up to [`LIMIT`].
fn pair() -> (Pair, CallId) {
    let mut pair = Pair::new();
    let call = pair.request(None, Flags::NONE);
    pair.settle();
    pair.client.conn.limit_messages(call, LIMIT);
    pair.server.conn.limit_messages(call, LIMIT);
    pair.server.take();
    (pair, call)
}

fn server_sees(frames: &[FrameHeader]) -> (Vec<Seen>, Option<ProtocolError>) {
    let (mut pair, _) = pair();
    for header in frames {
        pair.client_sends(*header, &[]);
    }
    pair.settle();
    (pair.server.take(), pair.server.error)
}

#[test]
fn a_message_of_the_limit_is_taken_and_one_byte_more_is_not() {
    let (_, call) = pair();
    let (seen, error) = server_sees(&[message(call, Flags::NONE, LIMIT, LIMIT)]);
    assert!(matches!(seen[..], [Seen::Message(_)]), "{seen:?}");
    assert_eq!(error, None);
    let (seen, error) = server_sees(&[message(call, Flags::NONE, LIMIT + 1, LIMIT + 1)]);
    assert_eq!(seen, [Seen::TooLong(call, LIMIT + 1, LIMIT)]);
    assert_eq!(error, None);
}

#[test]
fn a_message_in_pieces_is_judged_by_its_first() {
    let (_, call) = pair();
    let whole = 4 * LIMIT;
    let (seen, error) = server_sees(&[
        message(call, Flags::MORE, LIMIT, whole),
        message(call, Flags::MORE | Flags::CONTINUED, LIMIT, whole),
        message(call, Flags::CONTINUED, 2 * LIMIT, whole),
        message(call, Flags::NONE, 1, 1),
    ]);
    assert_eq!(seen[0], Seen::TooLong(call, whole, LIMIT));
    assert!(seen[1..].iter().all(|seen| *seen == Seen::Ignored));
    assert_eq!((seen.len(), error), (4, None));
}

#[test]
fn packed_messages_are_judged_one_by_one_up_to_a_frame() {
    let (_, call) = pair();
    let packed = |len| message(call, Flags::PACKED, len, len);
    let (seen, _) = server_sees(&[packed(MAX_PACKED_BYTES)]);
    assert!(matches!(seen[..], [Seen::Message(_)]), "{seen:?}");
    let (seen, _) = server_sees(&[packed(MAX_PACKED_BYTES + 1)]);
    assert_eq!(seen, [Seen::TooLong(call, MAX_PACKED_BYTES + 1, LIMIT)]);
}

#[test]
fn an_answer_too_long_ends_its_call() {
    let (mut pair, call) = pair();
    let header = FrameHeader {
        call: call.to_wire(),
        flags: Flags::HAS_MESSAGE,
        payload_len: LIMIT + 1,
        message_len: LIMIT + 1,
        ..FrameHeader::new(Kind::Response)
    };
    pair.server_sends(header, &[]);
    pair.settle();
    assert_eq!(pair.client.take(), [Seen::TooLong(call, LIMIT + 1, LIMIT)]);
    assert!(!pair.client.conn.is_open(call));
    pair.client.conn.release(call);
    assert_eq!(pair.client.conn.calls_in_flight(), 0);
}

#[test]
fn what_has_not_come_yet_is_judged_without_a_change() {
    let (mut pair, call) = pair();
    let server = &mut pair.server.conn;
    for _ in 0..3 {
        let good = server.judge(&message(call, Flags::NONE, LIMIT, LIMIT), &[]);
        assert_eq!(good, Ok(Verdict::Take));
        let long = server.judge(&message(call, Flags::MORE, 1, LIMIT + 1), &[]);
        assert_eq!(long, Ok(Verdict::Drop));
    }
    let link = FrameHeader {
        payload_len: u32::MAX,
        ..FrameHeader::new(Kind::Link(0x90))
    };
    assert_eq!(server.judge(&link, &[]), Ok(Verdict::Drop));
    let head = RequestHead::new(Method::Inline("/a/b"));
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let request = FrameHeader::new(Kind::Request);
    let by_method = Verdict::ByMethod(Method::Inline("/a/b"));
    assert_eq!(server.judge(&request, &bytes), Ok(by_method));
    assert!(!server.is_closed());
}

#[test]
fn a_payload_of_no_call_ends_the_connection_before_it_comes() {
    let (mut pair, _) = pair();
    let unknown = CallId::from_wire(9 << 32 | 5).unwrap();
    let header = message(unknown, Flags::NONE, LIMIT, LIMIT);
    let error = pair.server.conn.judge(&header, &[]).unwrap_err();
    let call = unknown.to_wire();
    assert_eq!(error, ProtocolError::UnknownCall { call });
    assert!(pair.server.conn.is_closed());
}

/// Opens calls with `metadata_bytes` of metadata each; how many the server takes.
fn calls_taken(metadata_bytes: usize, calls: u32) -> usize {
    let mut pair = Pair::new();
    let mut metadata = MetadataBuf::new();
    metadata.push(b"x", &vec![b'x'; metadata_bytes]).unwrap();
    let head = RequestHead {
        metadata: metadata.as_metadata(),
        ..RequestHead::new(Method::Inline("/a/b"))
    };
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    for slot in 0..calls {
        let header = FrameHeader {
            call: 1 << 32 | u64::from(slot),
            head_len: bytes.len() as u32,
            ..FrameHeader::new(Kind::Request)
        };
        pair.client_sends(header, &bytes);
    }
    pair.settle();
    assert_eq!(pair.server.error, None);
    let seen = pair.server.take();
    let refused = |seen: &&Seen| matches!(seen, Seen::Refused(_, code::RESOURCE_EXHAUSTED));
    let taken = |seen: &&Seen| matches!(seen, Seen::Request { .. });
    // The client never opened any, and says so in the end.
    let taken = seen.iter().filter(taken).count();
    assert_eq!(taken + seen.iter().filter(refused).count(), calls as usize);
    taken
}

#[test]
fn metadata_of_calls_in_flight_is_bounded_together() {
    let whole = limits::MAX_METADATA_BYTES - 7;
    let most = limits::MAX_HEADS_BYTES as usize / limits::MAX_METADATA_BYTES;
    assert_eq!(calls_taken(whole, most as u32 - 1), most - 1);
    assert_eq!(calls_taken(whole, 4 * most as u32), most - 1);
    assert_eq!(calls_taken(10, 10_000), 10_000);
}

/// The bytes of a call's head are given back when it ends, by a status or by a reset: else each further call of a busy
/// client would be refused.
#[test]
fn metadata_of_ended_calls_is_given_back() {
    let mut metadata = MetadataBuf::new();
    let bytes = vec![b'x'; limits::MAX_METADATA_BYTES - 7];
    metadata.push(b"x", &bytes).unwrap();
    let head = RequestHead {
        metadata: metadata.as_metadata(),
        ..RequestHead::new(Method::Inline("/a/b"))
    };
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let at_once = limits::MAX_HEADS_BYTES as usize / bytes.len();
    let mut pair = Pair::new();
    for turn in 0..3 {
        let calls: Vec<CallId> = (0..at_once)
            .map(|_| pair.client.conn.open(pair.now, None).unwrap())
            .collect();
        for call in &calls {
            let conn = &mut pair.client.conn;
            let header = conn.request_frame(*call, bytes.len(), None, Flags::NONE);
            pair.client_sends(header.unwrap(), &bytes);
        }
        pair.settle();
        let seen = pair.server.take();
        let refused = |seen: &Seen| matches!(seen, Seen::Refused(..));
        assert!(!seen.iter().any(refused), "in turn {turn}");
        for (nth, call) in calls.into_iter().enumerate() {
            match nth % 2 {
                0 => pair.trailers(call, code::INTERNAL),
                _ => pair.client.conn.reset(call, code::CANCELLED),
            }
        }
        pair.settle();
    }
}
