//! A hostile peer at a real server's socket: whatever it tries, it loses its own connection, and
//! nobody else notices.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringway::{Directory, Endpoint as Address, Server};
use ringway_local::LocalConfig;
use ringway_proto::bench::Payload;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_ring::{Endpoint, EndpointConfig, OwnRegion, PeerRegion};
use ringway_sys::{Blocking, EventFd, receive_with_descriptors, send_with_descriptors};
use ringway_tests::{alone, client_of, descriptors, eventually, mapped_regions, ours, within};
use ringway_wire::{
    Capabilities, Config, Flags, FrameHeader, Hello, Kind, Method, RequestHead, Role,
};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

const NAME: &str = "besieged:50051";
const SHM: Capabilities = Capabilities(1);
/// Short, so that a stall ends within the test; long enough for an honest client on a busy machine.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(400);
const MAX_CONNECTIONS: usize = 64;

/// Runs `attack` against a server that another client calls all the while; then looks whether that
/// client was served and whether the server let go of everything.
fn besiege(attack: impl FnOnce(&Path) + Send + 'static) {
    alone(under_siege(attack));
}

async fn under_siege(attack: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        max_connections: MAX_CONNECTIONS,
        ..LocalConfig::default()
    };
    let server = Server::builder()
        .directory(directory.path())
        .name(NAME)
        .local_config(config)
        .add_service(BenchServer::new(ours::Handler::default()))
        .bind()
        .await
        .unwrap();
    let serving = tokio::spawn(server.serve());
    within(async {
        let address = Address::new(format!("shm://{NAME}"))
            .unwrap()
            .directory(directory.path());
        let mut client = client_of(&address).await;
        call(&mut client, 100_000).await;
        let before = (descriptors(), mapped_regions());
        let root = directory.path().to_owned();
        let mut attack = tokio::task::spawn_blocking(move || attack(&root));
        let mut calls = 0;
        let attacked = loop {
            call(&mut client, 100).await;
            calls += 1;
            tokio::select! {
                attacked = &mut attack => break attacked,
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        };
        attacked.unwrap();
        call(&mut client, 100_000).await;
        assert!(calls > 0);
        eventually("descriptors and mappings are let go", || {
            descriptors() <= before.0 && mapped_regions() <= before.1
        })
        .await;
    })
    .await;
    serving.abort();
    // What is left of the server is dropped before the next one counts.
    let _ = serving.await;
}

async fn call(
    client: &mut ringway_proto::bench::bench_client::BenchClient<ringway::Channel>,
    size: usize,
) {
    let data = vec![3; size].into();
    client.unary(Payload { sequence: 1, data }).await.unwrap();
}

// ---- the attacker's tools

fn connect(root: &Path) -> UnixStream {
    let directory = Directory::at(root).of_name(NAME).unwrap();
    let socket = std::fs::read_dir(directory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let stream = UnixStream::connect(socket.path()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn hello() -> Hello {
    Hello::new(Role::Client, &Config::default(), 7, NAME, SHM)
}

/// Waits until the server has hung up.
fn assert_hung_up(what: &str, mut stream: &UnixStream) {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what}: not cut off: {error}"),
        }
    }
}

fn read_hello(mut stream: &UnixStream) {
    let mut prefix = [0; Hello::PREFIX_LEN];
    stream.read_exact(&mut prefix).unwrap();
    let mut rest = vec![0; Hello::total_len(&prefix).unwrap() - prefix.len()];
    stream.read_exact(&mut rest).unwrap();
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    // The server may have hung up already: that is what is looked for afterwards.
    let _ = send_with_descriptors(stream.as_fd(), bytes, descriptors, Blocking::AsSocket);
}

/// Both hellos are said: now come the regions.
fn greet(root: &Path) -> UnixStream {
    let mut stream = connect(root);
    stream.write_all(&hello().encode().unwrap()).unwrap();
    read_hello(&stream);
    stream
}

/// An attacker whose handshake was honest.
struct Joined {
    stream: UnixStream,
    endpoint: Endpoint,
    /// The server's.
    bell: EventFd,
    _own_bell: EventFd,
}

fn join(root: &Path) -> Joined {
    let stream = greet(root);
    let config = EndpointConfig::default();
    let (own, own_bell) = (
        OwnRegion::create(&config.region).unwrap(),
        EventFd::new().unwrap(),
    );
    send(&stream, b"R", &[own.descriptor(), own_bell.as_fd()]);
    let mut note = [0];
    let received =
        receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket).unwrap();
    let [region, bell] = <[OwnedFd; 2]>::try_from(received.descriptors).unwrap();
    let region = PeerRegion::map(region, &config.region_limits).unwrap();
    Joined {
        endpoint: Endpoint::join(own, region, &config).unwrap(),
        stream,
        bell: EventFd::from_peer(bell).unwrap(),
        _own_bell: own_bell,
    }
}

impl Joined {
    fn record(&mut self, bytes: &[u8]) {
        let mut reservation = self.endpoint.producer.reserve(bytes.len()).unwrap();
        reservation.copy_from_slice(bytes);
        reservation.commit();
        self.bell.ring().unwrap();
    }

    fn frame(&mut self, header: FrameHeader, rest: &[u8]) {
        self.record(&[&header.encode()[..], rest].concat());
    }
}

// ---- the handshake

#[test]
fn a_handshake_stalled_at_each_byte() {
    besiege(|root| {
        let bytes = hello().encode().unwrap();
        // In lots, so that all of them stay below the limit of connections.
        for lot in (0..bytes.len())
            .collect::<Vec<_>>()
            .chunks(MAX_CONNECTIONS / 2)
        {
            let stalled: Vec<_> = lot
                .iter()
                .map(|sent| {
                    let mut stream = connect(root);
                    stream.write_all(&bytes[..*sent]).unwrap();
                    stream
                })
                .collect();
            for stream in stalled {
                assert_hung_up("stalled", &stream);
            }
        }
        let stalled = greet(root);
        assert_hung_up("stalled before its region", &stalled);
    });
}

#[test]
fn hellos_that_lie() {
    besiege(|root| {
        let good = hello().encode().unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut hello = good.clone();
            hello[at..at + bytes.len()].copy_from_slice(bytes);
            hello
        };
        let other_name = Hello::new(Role::Client, &Config::default(), 7, "another:1", SHM);
        let as_server = Hello::new(Role::Server, &Config::default(), 7, NAME, SHM);
        let without_shm = Hello::new(Role::Client, &Config::default(), 7, NAME, Capabilities(0));
        for (what, bytes) in [
            ("magic", with(0, b"HTTP/1.1")),
            ("a version to come", with(8, &[9, 0, 9, 0])),
            ("versions the wrong way round", with(8, &[9, 0, 1, 0])),
            ("length 0", with(12, &[0, 0])),
            ("length 65535", with(12, &[255, 255])),
            ("a length that is short", with(12, &[20, 0])),
            ("role 3", with(14, &[3])),
            ("no window", with(44, &[0; 8])),
            ("a window of 4 GiB", with(44, &[255; 8])),
            ("no slots", with(40, &[0; 4])),
            ("a name beyond its end", with(52, &[255, 255])),
            ("another's name", other_name.encode().unwrap()),
            ("a server", as_server.encode().unwrap()),
            ("no shared memory", without_shm.encode().unwrap()),
            (
                "a request of HTTP/2",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            ),
            ("zeroes", vec![0; 200]),
        ] {
            let mut stream = connect(root);
            let sent = stream.write_all(&bytes);
            sent.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_hung_up(what, &stream);
        }
    });
}

#[test]
fn a_flood_of_connections() {
    besiege(|root| {
        let before = descriptors();
        let flood: Vec<_> = (0..4 * MAX_CONNECTIONS).map(|_| connect(root)).collect();
        // Long enough to accept them all, shorter than a handshake may take.
        std::thread::sleep(HANDSHAKE_TIMEOUT / 2);
        let held = descriptors() - before - flood.len();
        assert!(
            held <= MAX_CONNECTIONS,
            "{held} half-open connections are held"
        );
        for stream in &flood {
            assert_hung_up("idle", stream);
        }
    });
}

// ---- regions and doorbells

fn memfd(len: usize, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ringway-hostile", flags).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

fn sealed() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// The default region's sizes: a page of control words, 32 KiB of ring.
const REGION_BYTES: usize = 4096 + 32 * 1024;

/// A region with an honest header and these words beside it.
fn region_with(words: &[(u64, u64)]) -> File {
    let file = memfd(REGION_BYTES, SealFlags::empty());
    let word = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    word(0, b"RINGWAY\0");
    word(8, &1_u32.to_le_bytes());
    word(12, &(32 * 1024_u32).to_le_bytes());
    word(16, &256_u32.to_le_bytes());
    word(20, &4096_u32.to_le_bytes());
    word(24, &(REGION_BYTES as u64).to_le_bytes());
    for (at, value) in words {
        word(*at, &value.to_le_bytes());
    }
    rustix::fs::fcntl_add_seals(&file, sealed()).unwrap();
    file
}

/// Offers these as region and doorbell, and wakes the server should it have taken them.
fn assert_refused(what: &str, root: &Path, region: BorrowedFd<'_>, bell: BorrowedFd<'_>) {
    let stream = greet(root);
    let mut note = [0];
    send(&stream, b"R", &[region, bell]);
    let taken = receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket);
    if let Some(bell) = taken.ok().and_then(|mut taken| taken.descriptors.pop()) {
        EventFd::from_peer(bell).unwrap().ring().unwrap();
    }
    assert_hung_up(what, &stream);
}

#[test]
fn descriptors_that_are_no_regions() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        let refused =
            |what: &str, region: BorrowedFd<'_>| assert_refused(what, root, region, bell.as_fd());
        refused("unsealed", memfd(REGION_BYTES, SealFlags::empty()).as_fd());
        for missing in [
            SealFlags::SHRINK,
            SealFlags::GROW,
            SealFlags::FUTURE_WRITE,
            SealFlags::SEAL,
        ] {
            let file = memfd(REGION_BYTES, sealed() - missing);
            refused(&format!("{missing:?} missing"), file.as_fd());
        }
        refused(
            "sealed against its owner",
            memfd(REGION_BYTES, sealed() | SealFlags::WRITE).as_fd(),
        );
        refused("all zeroes", memfd(REGION_BYTES, sealed()).as_fd());
        refused("one page", memfd(4096, sealed()).as_fd());
        let sparse = memfd(4096, SealFlags::empty());
        sparse.set_len(1 << 40).unwrap();
        rustix::fs::fcntl_add_seals(&sparse, sealed()).unwrap();
        refused("1 TiB of nothing", sparse.as_fd());
        refused("a file", tempfile::tempfile().unwrap().as_fd());
        refused("a device", File::open("/dev/zero").unwrap().as_fd());
        refused("a pipe", std::io::pipe().unwrap().0.as_fd());
        refused("a socket", UnixStream::pair().unwrap().0.as_fd());
        refused("an eventfd", bell.as_fd());
    });
}

#[test]
fn regions_whose_words_lie() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        for (what, words) in [
            ("magic", &[(0, 1)][..]),
            ("version", &[(8, 2 | (32 * 1024) << 32)]),
            ("a ring of no power of two", &[(8, 1 | 33_000 << 32)]),
            ("a ring larger than its file", &[(8, 1 | (1 << 30) << 32)]),
            ("region bytes", &[(24, 1 << 40)]),
            ("an index beyond the ring", &[(128, 32 * 1024 + 8)]),
            ("an index at the end of numbers", &[(128, u64::MAX)]),
            ("an index between records", &[(128, 9)]),
            ("a record beyond the index", &[(128, 32), (4096, 1 << 20)]),
            (
                "a record of 4 GiB",
                &[(128, 32), (4096, u64::from(u32::MAX))],
            ),
            (
                "flags that nobody knows",
                &[(128, 32), (4096, 0xff << 32 | 24)],
            ),
            (
                "padding that does not reach the end",
                &[(128, 32), (4096, 1 << 32 | 24)],
            ),
            ("a frame of kind 0", &[(128, 32), (4096, 24)]),
        ] {
            assert_refused(what, root, region_with(words).as_fd(), bell.as_fd());
        }
    });
}

/// The server looks at the peer's cursor once it has something to send; until then a lie means
/// nothing.
#[test]
fn cursors_ahead_of_what_was_sent() {
    besiege(|root| {
        let bell = EventFd::new().unwrap();
        for cursor in [8, 32 * 1024 + 8, u64::MAX] {
            let stream = greet(root);
            send(
                &stream,
                b"R",
                &[region_with(&[(256, cursor)]).as_fd(), bell.as_fd()],
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn descriptors_that_are_no_doorbells() {
    besiege(|root| {
        let region = region_with(&[]);
        let refused =
            |what: &str, bell: BorrowedFd<'_>| assert_refused(what, root, region.as_fd(), bell);
        refused("the region again", region.as_fd());
        refused("a file", tempfile::tempfile().unwrap().as_fd());
        refused("a pipe", std::io::pipe().unwrap().1.as_fd());
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        refused(
            "a blocking eventfd",
            rustix::event::eventfd(0, flags).unwrap().as_fd(),
        );

        let bell = EventFd::new().unwrap();
        for (what, note, descriptors) in [
            ("no descriptors", b"R", vec![]),
            ("a region alone", b"R", vec![region.as_fd()]),
            ("another note", b"X", vec![region.as_fd(), bell.as_fd()]),
            (
                "one too many",
                b"R",
                vec![region.as_fd(), bell.as_fd(), bell.as_fd()],
            ),
            ("sixteen", b"R", vec![bell.as_fd(); 16]),
        ] {
            let stream = greet(root);
            send(&stream, note, &descriptors);
            assert_hung_up(what, &stream);
        }
    });
}

/// Its own region sent back to the server, as if it were the attacker's.
#[test]
fn one_region_for_both_directions() {
    besiege(|root| {
        let stream = greet(root);
        let mut note = [0];
        let received =
            receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket).unwrap();
        let both: Vec<_> = received.descriptors.iter().map(AsFd::as_fd).collect();
        send(&stream, b"R", &both);
        assert_hung_up("the server's own region", &stream);
    });
}

// ---- frames

fn request(call: u64, head: &[u8]) -> FrameHeader {
    FrameHeader {
        call,
        flags: Flags::END | Flags::HAS_MESSAGE,
        head_len: u32::try_from(head.len()).unwrap(),
        ..FrameHeader::new(Kind::Request)
    }
}

fn unary_head() -> Vec<u8> {
    let head = RequestHead::new(Method::Inline("/ringway.bench.v1.Bench/Unary"));
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    bytes
}

const FIRST_CALL: u64 = 1 << 32;

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

fn is_hung_up(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Ok(0)) || matches!(read, Err(error) if error.kind() != ErrorKind::WouldBlock)
}

// ---- what comes over the socket later

#[test]
fn segment_notes_that_lie() {
    besiege(|root| {
        let note = |id: u32, len: u64| {
            let mut note = [0; 16];
            note[..4].copy_from_slice(&id.to_le_bytes());
            note[8..].copy_from_slice(&len.to_le_bytes());
            note
        };
        let len = 1 << 20;
        let segment = memfd(len, sealed());
        let (segment, len) = (segment.as_fd(), len as u64);
        let unsealed = memfd(1 << 20, SealFlags::empty());
        let file = tempfile::tempfile().unwrap();
        for (what, note, descriptors) in [
            ("no descriptor", note(0, len).to_vec(), vec![]),
            (
                "two descriptors",
                note(0, len).to_vec(),
                vec![segment, segment],
            ),
            ("a short note", vec![0; 3], vec![segment]),
            (
                "longer than its file",
                note(0, len + 1).to_vec(),
                vec![segment],
            ),
            ("4 EiB", note(0, 1 << 62).to_vec(), vec![segment]),
            ("unsealed", note(0, len).to_vec(), vec![unsealed.as_fd()]),
            ("a file", note(0, len).to_vec(), vec![file.as_fd()]),
        ] {
            let attacker = join(root);
            send(&attacker.stream, &note, &descriptors);
            assert_hung_up(what, &attacker.stream);
        }
        let attacker = join(root);
        send(&attacker.stream, &note(0, len), &[segment]);
        send(&attacker.stream, &note(0, len), &[segment]);
        assert_hung_up("the same segment again", &attacker.stream);
    });
}

#[test]
fn a_second_handshake() {
    besiege(|root| {
        let attacker = join(root);
        send(&attacker.stream, &hello().encode().unwrap(), &[]);
        assert_hung_up("hello again", &attacker.stream);
        let attacker = join(root);
        let (region, bell) = (region_with(&[]), EventFd::new().unwrap());
        send(&attacker.stream, b"R", &[region.as_fd(), bell.as_fd()]);
        assert_hung_up("another region", &attacker.stream);
    });
}

/// The record names a block of a segment that nobody has sent.
#[test]
fn a_segment_that_never_arrives() {
    besiege(|root| {
        let mut attacker = join(root);
        let block = attacker.endpoint.arena.allocate(100_000).unwrap();
        drop(attacker.endpoint.arena.new_segments());
        let head = unary_head();
        let header = FrameHeader {
            payload_len: 100_000,
            message_len: 100_000,
            ..request(FIRST_CALL, &head)
        };
        let bytes = [&header.encode()[..], &head].concat();
        let producer = &mut attacker.endpoint.producer;
        let mut reservation = producer.reserve_with_block(bytes.len(), block).unwrap();
        reservation.copy_from_slice(&bytes);
        reservation.commit();
        attacker.bell.ring().unwrap();
        assert_hung_up("no segment", &attacker.stream);
    });
}

/// Wakes the server without end and says nothing.
#[test]
fn a_storm_of_rings() {
    besiege(|root| {
        let attacker = join(root);
        for _ in 0..20_000 {
            attacker.bell.ring().unwrap();
        }
        // No rule is broken: the connection lives, and its end is the attacker's own.
        assert!(!is_hung_up(&attacker.stream));
    });
}
