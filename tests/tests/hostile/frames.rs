//! Records that break the protocol's rules.

use ringway_wire::{Flags, FrameHeader, Kind, Method, RequestHead};

use crate::{assert_hung_up, besiege, is_hung_up, join};

pub(crate) fn request(call: u64, head: &[u8]) -> FrameHeader {
    FrameHeader {
        call,
        flags: Flags::END | Flags::HAS_MESSAGE,
        head_len: u32::try_from(head.len()).unwrap(),
        ..FrameHeader::new(Kind::Request)
    }
}

pub(crate) fn unary_head() -> Vec<u8> {
    let head = RequestHead::new(Method::Inline("/ringway.bench.v1.Bench/Unary"));
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    bytes
}

pub(crate) const FIRST_CALL: u64 = 1 << 32;

/// A request with one byte changed.
fn spoilt(at: usize, byte: u8) -> Vec<u8> {
    let head = unary_head();
    let mut bytes = [&request(FIRST_CALL, &head).encode()[..], &head].concat();
    bytes[at] = byte;
    bytes
}

/// What no client may say, whatever carries it.
pub(crate) fn against_the_rules() -> Vec<(&'static str, Vec<u8>)> {
    let head = unary_head();
    let with_head = |header: FrameHeader| [&header.encode()[..], &head].concat();
    let bare = |header: FrameHeader| header.encode().to_vec();
    let plain = |kind| FrameHeader {
        call: FIRST_CALL,
        ..FrameHeader::new(kind)
    };
    let no_head = [&request(FIRST_CALL, &[255; 40]).encode()[..], &[255; 40]].concat();
    let of_no_call = FrameHeader {
        flags: Flags::HAS_MESSAGE,
        call: 5 << 32,
        ..plain(Kind::Message)
    };
    let credit = FrameHeader {
        call: 0,
        message_len: u32::MAX,
        ..plain(Kind::Credit)
    };
    vec![
        ("kind 0", spoilt(0, 0)),
        ("kind 99", spoilt(0, 99)),
        ("flags of another kind", spoilt(1, 0xff)),
        ("a head of 4 GiB", spoilt(7, 255)),
        ("a message larger than its frames", spoilt(20, 9)),
        ("call 0", with_head(request(0, &head))),
        (
            "a slot beyond the table",
            with_head(request(FIRST_CALL | 0xffff_ffff, &head)),
        ),
        ("a head that is none", no_head),
        ("an answer from a client", bare(plain(Kind::Response))),
        ("trailers from a client", bare(plain(Kind::Trailers))),
        ("a message of no call", bare(of_no_call)),
        ("credit beyond all windows", bare(credit)),
    ]
}

#[test]
fn frames_that_break_the_rules() {
    besiege(|root| {
        let head = unary_head();
        let payload = FrameHeader {
            payload_len: 1,
            message_len: 1,
            ..request(FIRST_CALL, &head)
        };
        let payload = [&payload.encode()[..], &head].concat();
        let of_records = vec![
            ("nothing", Vec::new()),
            ("less than a header", vec![1; 23]),
            ("a head beyond its record", spoilt(5, 1)),
            ("a payload beyond its record", payload),
        ];
        for (what, bytes) in against_the_rules().into_iter().chain(of_records) {
            let mut attacker = join(root);
            attacker.record(&bytes);
            assert_hung_up(what, &attacker.stream);
        }
    });
}

#[test]
fn a_call_id_used_twice_ends_the_connection() {
    besiege(|root| {
        let head = unary_head();
        let mut attacker = join(root);
        attacker.frame(request(FIRST_CALL, &head), &head);
        attacker.frame(request(FIRST_CALL, &head), &head);
        assert_hung_up("the same call again", &attacker.stream);
    });
}

/// Opened and given up without end: HTTP/2's rapid reset.
#[test]
fn a_flood_of_calls_given_up() {
    besiege(|root| {
        let head = RequestHead::new(Method::Inline("/ringway.bench.v1.Bench/ClientStream"));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let mut attacker = join(root);
        for generation in 1..20_000_u64 {
            let call = generation << 32;
            let open = FrameHeader {
                flags: Flags::NONE,
                ..request(call, &bytes)
            };
            let reset = FrameHeader {
                call,
                code: 1,
                ..FrameHeader::new(Kind::Reset)
            };
            for (header, rest) in [(open, &bytes[..]), (reset, &[])] {
                let record = [&header.encode()[..], rest].concat();
                while !attacker.endpoint.producer.has_room(record.len()) {
                    attacker.bell.ring().unwrap();
                    std::thread::yield_now();
                    if is_hung_up(&attacker.stream) {
                        return;
                    }
                }
                let mut reservation = attacker.endpoint.producer.reserve(record.len()).unwrap();
                reservation.copy_from_slice(&record);
                reservation.commit();
            }
        }
        attacker.bell.ring().unwrap();
        assert_hung_up("a flood", &attacker.stream);
    });
}
