//! Hellos: versions, capabilities, and what a stranger may send.

use crate::limits::{MAX_CALL_SLOTS, MAX_HELLO_BYTES, MAX_SERVER_NAME_BYTES};
use crate::*;

fn hello(role: Role) -> Hello {
    Hello::new(
        role,
        &Config::default(),
        42,
        "catalog:50051",
        Capabilities(0b110),
    )
}

#[test]
fn both_sides_agree() {
    let server_config = Config {
        call_slots: 7,
        stream_window_bytes: 5000,
        connection_window_bytes: 1, // below the smallest: raised to it
        ..Config::default()
    };
    let client = hello(Role::Client);
    let server = Hello::new(Role::Server, &server_config, 9, "x", Capabilities(0b011));
    let ours = client.negotiate(&server).unwrap();
    let theirs = server.negotiate(&client).unwrap();
    assert_eq!((ours.version, theirs.version), (1, 1));
    let of_core = [
        Capabilities::TRACES,
        Capabilities::WHOLE_STREAMS,
        Capabilities::LARGE_WINDOW,
    ];
    let both = Capabilities(of_core.iter().fold(2, |all, one| all | one.0));
    assert_eq!((ours.capabilities, theirs.capabilities), (both, both));
    assert_eq!((ours.call_slots, theirs.call_slots), (7, 7));
    assert_eq!((ours.peer_instance, theirs.peer_instance), (9, 42));
    assert_eq!(ours.send_stream_window_bytes, 5000);
    assert_eq!(theirs.recv_stream_window_bytes, 5000);
    assert_eq!(ours.send_connection_window_bytes, limits::MIN_WINDOW_BYTES);
    assert_eq!(
        ours.recv_connection_window_bytes,
        theirs.send_connection_window_bytes
    );
    assert_eq!(
        client.negotiate(&hello(Role::Client)),
        Err(HandshakeError::SameRole)
    );
}

/// A peer of before takes the bit of a trace for a broken head, and a whole answer to a stream for one that
/// is out of order.
#[test]
fn a_peer_is_sent_what_it_knows() {
    let mut older = hello(Role::Server);
    older.capabilities = Capabilities(0b110);
    for (server, knows) in [(older, false), (hello(Role::Server), true)] {
        let agreed = hello(Role::Client).negotiate(&server).unwrap();
        let now = std::time::Instant::now();
        let client = Connection::new(Role::Client, &agreed, &Config::default(), now);
        assert_eq!(client.carries_traces(), knows);
        assert_eq!(client.takes_whole_streams(), knows);
    }
}

#[test]
fn other_versions() {
    let mut newer = hello(Role::Server);
    (newer.version_min, newer.version_max) = (2, 4);
    let mismatch = HandshakeError::VersionMismatch {
        ours_min: 1,
        ours_max: 1,
        theirs_min: 2,
        theirs_max: 4,
    };
    assert_eq!(hello(Role::Client).negotiate(&newer), Err(mismatch.clone()));
    assert_eq!(
        Hello::decode(&newer.encode().unwrap()),
        Err(mismatch.clone())
    );
    assert!(mismatch.to_string().contains("upgrade the older side"));
    // A later version that still speaks ours, and that has more to say.
    newer.version_min = 1;
    let mut bytes = newer.encode().unwrap();
    bytes.extend_from_slice(b"news");
    let total = bytes.len() as u16;
    bytes[12..14].copy_from_slice(&total.to_le_bytes());
    let heard = Hello::decode(&bytes).unwrap();
    assert_eq!(hello(Role::Client).negotiate(&heard).unwrap().version, 1);
    // One of another layout altogether is still known as another version.
    let mut alien = b"RINGWAY\n\x05\0\x06\0\x10\0\0\0".to_vec();
    let error = Hello::decode(&alien).unwrap_err();
    assert!(matches!(
        error,
        HandshakeError::VersionMismatch { theirs_min: 5, .. }
    ));
    // Ranges that end before they begin.
    alien[8] = 9;
    assert!(Hello::decode(&alien).is_err());
}

#[test]
fn strangers() {
    let http = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n";
    assert_eq!(Hello::decode(http), Err(HandshakeError::WrongMagic));
    assert_eq!(Hello::decode(b"RING"), Err(HandshakeError::BadLength(4)));
    let good = hello(Role::Server).encode().unwrap();
    for len in 0..good.len() {
        assert!(Hello::decode(&good[..len]).is_err());
    }
    let mut claims_more = good.clone();
    claims_more[12..14].copy_from_slice(&u16::MAX.to_le_bytes());
    let prefix = claims_more.first_chunk().unwrap();
    assert_eq!(
        Hello::total_len(prefix),
        Err(HandshakeError::BadLength(65_535))
    );
    let field = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Hello::decode(&bytes).unwrap_err()
    };
    assert_eq!(field(14, &[3]), HandshakeError::BadField("role"));
    assert_eq!(
        field(40, &[0; 4]),
        HandshakeError::BadField("number of call slots")
    );
    let too_many = (MAX_CALL_SLOTS + 1).to_le_bytes();
    assert_eq!(
        field(40, &too_many),
        HandshakeError::BadField("number of call slots")
    );
    assert_eq!(
        field(44, &[0xff; 4]),
        HandshakeError::BadField("stream window")
    );
    assert_eq!(
        field(48, &[0; 4]),
        HandshakeError::BadField("connection window")
    );
    assert_eq!(field(54, &[0xff]), HandshakeError::BadField("server name"));
    assert_eq!(field(52, &[0xff]), HandshakeError::BadLength(good.len()));
}

#[test]
fn names() {
    let longest = "n".repeat(MAX_SERVER_NAME_BYTES);
    let mut hello = hello(Role::Client);
    hello.server_name = longest.clone();
    let bytes = hello.encode().unwrap();
    assert!(bytes.len() <= MAX_HELLO_BYTES);
    assert_eq!(
        Hello::total_len(bytes.first_chunk().unwrap()),
        Ok(bytes.len())
    );
    assert_eq!(Hello::decode(&bytes).unwrap(), hello);
    hello.server_name = longest + "n";
    assert_eq!(
        hello.encode(),
        Err(HandshakeError::NameTooLong(MAX_SERVER_NAME_BYTES + 1))
    );
}
