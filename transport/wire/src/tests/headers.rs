//! Headers that are refused before any state is looked at.

use crate::*;

fn frame(kind: Kind, call: CallId) -> FrameHeader {
    FrameHeader {
        call: call.to_wire(),
        ..FrameHeader::new(kind)
    }
}

fn message(call: CallId, flags: Flags, piece: u32, len: u32) -> FrameHeader {
    FrameHeader {
        flags: Flags::HAS_MESSAGE | flags,
        payload_len: piece,
        message_len: len,
        ..frame(Kind::Message, call)
    }
}

#[test]
fn headers_that_no_state_can_allow() {
    let call = CallId::new(0, 1).unwrap();
    let huge = FrameHeader {
        head_len: u32::MAX,
        ..frame(Kind::Trailers, call)
    };
    let bad_length: [FrameHeader; 14] = [
        huge,
        message(call, Flags::NONE, 1, u32::MAX),
        message(call, Flags::NONE, u32::MAX, 0x1_0040),
        message(call, Flags::NONE, 5, 6),
        message(call, Flags::MORE, 0, 6),
        FrameHeader {
            payload_len: 1,
            ..frame(Kind::Reset, call)
        },
        FrameHeader {
            head_len: 1,
            ..frame(Kind::Ping, call)
        },
        FrameHeader {
            head_len: 1,
            ..message(call, Flags::NONE, 1, 1)
        },
        FrameHeader {
            head_len: 1,
            ..frame(Kind::Reset, call)
        },
        FrameHeader {
            head_len: 1,
            ..frame(Kind::Credit, call)
        },
        FrameHeader {
            head_len: 1,
            ..frame(Kind::Pong, call)
        },
        message(call, Flags::MORE, 7, 6),
        FrameHeader {
            flags: Flags::END,
            message_len: 1,
            ..frame(Kind::Message, call)
        },
        FrameHeader {
            head_len: 5000,
            ..frame(Kind::GoAway, call)
        },
    ];
    for header in bad_length {
        let decoded = FrameHeader::decode(&header.encode());
        assert!(
            matches!(decoded, Err(ProtocolError::BadLength { .. })),
            "{header:?}"
        );
    }
    let bad_flags: [FrameHeader; 6] = [
        frame(Kind::Message, call),
        frame(Kind::Response, call),
        FrameHeader {
            flags: Flags(0x80),
            ..frame(Kind::Trailers, call)
        },
        FrameHeader {
            flags: Flags::COMPRESSED,
            ..frame(Kind::Request, call)
        },
        FrameHeader {
            flags: Flags::MORE,
            ..frame(Kind::Message, call)
        },
        message(call, Flags::MORE | Flags::END, 1, 2),
    ];
    for header in bad_flags {
        let decoded = FrameHeader::decode(&header.encode());
        assert!(
            matches!(decoded, Err(ProtocolError::BadFlags { .. })),
            "{header:?}"
        );
    }
    assert_eq!(
        FrameHeader::decode(&[0; 24]),
        Err(ProtocolError::UnknownKind(0))
    );
    assert_eq!(
        FrameHeader::decode(&[0x7f; 24]),
        Err(ProtocolError::UnknownKind(0x7f))
    );
}

#[test]
fn a_message_longer_than_any_may_be() {
    let call = CallId::new(0, 1).unwrap();
    let longest = message(call, Flags::MORE, 1, limits::MAX_MESSAGE_BYTES);
    assert_eq!(FrameHeader::decode(&longest.encode()), Ok(longest));
    let longer = message(call, Flags::MORE, 1, limits::MAX_MESSAGE_BYTES + 1);
    assert!(matches!(
        FrameHeader::decode(&longer.encode()),
        Err(ProtocolError::BadLength { .. })
    ));
}

#[test]
fn headers_of_no_call() {
    for kind in [
        Kind::Request,
        Kind::Headers,
        Kind::Trailers,
        Kind::Reset,
        Kind::Credit,
    ] {
        // A slot, and no generation.
        let header = FrameHeader {
            call: 5,
            ..FrameHeader::new(kind)
        };
        let decoded = FrameHeader::decode(&header.encode());
        assert_eq!(decoded, Err(ProtocolError::CallIdZero), "{kind:?}");
    }
}
