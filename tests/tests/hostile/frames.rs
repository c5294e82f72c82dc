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

#[test]
fn frames_that_break_the_rules() {
    besiege(|root| {
        let head = unary_head();
        let good = request(FIRST_CALL, &head);
        let raw = |at: usize, byte: u8| {
            let mut bytes = [&good.encode()[..], &head].concat();
            bytes[at] = byte;
            bytes
        };
        let frame = |header: FrameHeader| [&header.encode()[..], &head].concat();
        let plain = |kind| FrameHeader {
            call: FIRST_CALL,
            ..FrameHeader::new(kind)
        };
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("less than a header", vec![1; 23]),
            ("kind 0", raw(0, 0)),
            ("kind 99", raw(0, 99)),
            ("flags of another kind", raw(1, 0xff)),
            ("a head beyond its record", raw(5, 1)),
            ("a payload beyond its record", raw(16, 1)),
            ("a head of 4 GiB", raw(7, 255)),
            ("a message larger than its frames", raw(20, 9)),
            ("call 0", frame(request(0, &head))),
            (
                "a slot beyond the table",
                frame(request(FIRST_CALL | 0xffff_ffff, &head)),
            ),
            (
                "a head that is none",
                [&request(FIRST_CALL, &[255; 40]).encode()[..], &[255; 40]].concat(),
            ),
            (
                "an answer from a client",
                plain(Kind::Response).encode().to_vec(),
            ),
            (
                "trailers from a client",
                plain(Kind::Trailers).encode().to_vec(),
            ),
            ("a message of no call", {
                let flags = Flags::HAS_MESSAGE;
                FrameHeader {
                    flags,
                    call: 5 << 32,
                    ..plain(Kind::Message)
                }
                .encode()
                .to_vec()
            }),
            ("credit beyond all windows", {
                FrameHeader {
                    call: 0,
                    message_len: u32::MAX,
                    ..plain(Kind::Credit)
                }
                .encode()
                .to_vec()
            }),
        ] {
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
