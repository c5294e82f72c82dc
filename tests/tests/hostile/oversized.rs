//! Messages beyond the limit of their method: refused when they begin, before memory is taken for them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway::Server;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    alone, in_a_process_of_its_own, ours, peak_resident_bytes, resident_bytes, within,
};
use ringway_wire::{Capabilities, Flags, FrameHeader, Kind, Method, RequestHead, StatusHead};
use tonic::Code;
use tower::layer::util::Identity;

use crate::frames::{FIRST_CALL, request, unary_head};
use crate::{NAME, besiege, connect, hello_with, join, read_hello};

const MIB: usize = 1 << 20;
/// Far above the limit of 4 MiB.
const SENT_BYTES: usize = 250 * MIB;
/// The server, the client beside the attack and the harness share this process.
const ALLOWED_BYTES: usize = 32 * MIB;
/// Frames on the rendezvous socket, without io_uring.
const SOCKET: Capabilities = Capabilities(2 | 4);
const UPLOAD: &str = "/ringway.bench.v1.Bench/ClientStream";

fn join_over_socket(root: &Path) -> UnixStream {
    let mut stream = connect(root);
    stream
        .write_all(&hello_with(SOCKET).encode().unwrap())
        .unwrap();
    read_hello(&stream);
    stream
}

/// Reads until a call's status comes: its code and its text.
fn ending(mut stream: &UnixStream) -> (Code, String) {
    let mut header = [0; FrameHeader::LEN];
    loop {
        stream.read_exact(&mut header).unwrap();
        let header = FrameHeader::decode(&header).unwrap();
        let mut head = vec![0; header.head_len as usize];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; header.payload_len as usize];
        stream.read_exact(&mut payload).unwrap();
        if header.kind == Kind::Response {
            return (Code::Ok, String::new());
        }
        if header.kind == Kind::Trailers {
            let text = StatusHead::decode(&head).unwrap().message.to_owned();
            return (Code::from_i32(header.code.into()), text);
        }
    }
}

fn send_zeros(mut stream: &UnixStream, mut len: usize) {
    let zeros = vec![0; MIB];
    while len > 0 {
        let now = len.min(zeros.len());
        stream.write_all(&zeros[..now]).unwrap();
        len -= now;
    }
}

/// Runs `attack` in a process of its own, and looks how much more memory that process ever had.
fn takes_little(name: &str, attack: impl Fn(&Path) + Send + Sync + 'static) {
    if !in_a_process_of_its_own(name) {
        return;
    }
    besiege(move |root| {
        let before = resident_bytes();
        attack(root);
        let taken = peak_resident_bytes().saturating_sub(before);
        println!("{} MiB at most", taken / MIB);
        assert!(taken < ALLOWED_BYTES, "{} MiB", taken / MIB);
    });
}

fn too_long(len: usize) -> (Code, String) {
    let text = format!(
        "Error, decoded message length too large: found {len} bytes, the limit is: {} bytes",
        4 * MIB
    );
    (Code::OutOfRange, text)
}

/// Behind a layer, requests are HTTP ones; the limit is the generated service's all the same.
#[test]
fn a_request_behind_a_layer() {
    if !in_a_process_of_its_own("oversized::a_request_behind_a_layer") {
        return;
    }
    alone(within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::builder()
            .directory(directory.path())
            .name(NAME)
            .layer(Identity::new())
            .add_service(BenchServer::new(ours::Handler::default()));
        tokio::spawn(server.bind().await.unwrap().serve());
        let root = directory.path().to_owned();
        let before = resident_bytes();
        let attack = move || requests_too_long(&join_over_socket(&root));
        tokio::task::spawn_blocking(attack).await.unwrap();
        let taken = peak_resident_bytes().saturating_sub(before);
        assert!(taken < ALLOWED_BYTES, "{} MiB", taken / MIB);
    }));
}

#[test]
fn a_request_on_a_socket() {
    takes_little("oversized::a_request_on_a_socket", |root| {
        let mut stream = join_over_socket(root);
        requests_too_long(&stream);
        // The connection lives.
        let head = unary_head();
        let header = request(FIRST_CALL + 2, &head);
        stream.write_all(&header.encode()).unwrap();
        stream.write_all(&head).unwrap();
        assert_eq!(ending(&stream).0, Code::Ok);
    });
}

fn requests_too_long(mut stream: &UnixStream) {
    let len = u32::try_from(SENT_BYTES).unwrap();
    for (number, path) in [(0, "Unary"), (1, "ClientStream")] {
        let path = format!("/ringway.bench.v1.Bench/{path}");
        let head = RequestHead::new(Method::Inline(&path));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let header = FrameHeader {
            payload_len: len,
            message_len: len,
            ..request(FIRST_CALL + number, &bytes)
        };
        stream.write_all(&header.encode()).unwrap();
        stream.write_all(&bytes).unwrap();
        // It is told before the message has come.
        assert_eq!(ending(stream), too_long(SENT_BYTES), "{path}");
        send_zeros(stream, SENT_BYTES);
    }
}

#[test]
fn a_message_of_a_stream_on_a_socket() {
    takes_little("oversized::a_message_of_a_stream_on_a_socket", |root| {
        let mut stream = join_over_socket(root);
        let head = RequestHead::new(Method::Inline(UPLOAD));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let open = FrameHeader {
            flags: Flags::NONE,
            ..request(FIRST_CALL, &bytes)
        };
        // In the same write: what the message means depends on the frame before it.
        let len = u32::try_from(SENT_BYTES).unwrap();
        let message = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            payload_len: len,
            message_len: len,
            ..FrameHeader::new(Kind::Message)
        };
        let both = [&open.encode()[..], &bytes, &message.encode()].concat();
        stream.write_all(&both).unwrap();
        assert_eq!(ending(&stream), too_long(SENT_BYTES));
        send_zeros(&stream, SENT_BYTES);
        let head = unary_head();
        stream
            .write_all(&request(FIRST_CALL + 1, &head).encode())
            .unwrap();
        stream.write_all(&head).unwrap();
        assert_eq!(ending(&stream).0, Code::Ok);
    });
}

/// A frame for a call that is over, or that belongs to the link alone, has nobody who wants its payload.
#[test]
fn payloads_of_nothing_on_a_socket() {
    takes_little("oversized::payloads_of_nothing_on_a_socket", |root| {
        let mut stream = join_over_socket(root);
        let head = unary_head();
        stream
            .write_all(&request(FIRST_CALL, &head).encode())
            .unwrap();
        stream.write_all(&head).unwrap();
        assert_eq!(ending(&stream).0, Code::Ok);
        let len = u32::try_from(SENT_BYTES / 4).unwrap();
        let late = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            payload_len: len,
            message_len: len,
            ..FrameHeader::new(Kind::Message)
        };
        let link = FrameHeader {
            payload_len: len,
            ..FrameHeader::new(Kind::Link(0x90))
        };
        for header in [late, link] {
            stream.write_all(&header.encode()).unwrap();
            send_zeros(&stream, SENT_BYTES / 4);
        }
        stream
            .write_all(&request(FIRST_CALL + 1, &head).encode())
            .unwrap();
        stream.write_all(&head).unwrap();
        assert_eq!(ending(&stream).0, Code::Ok);
    });
}

/// Any number of records may name the same block.
#[test]
fn a_message_in_pieces_of_one_block() {
    takes_little("oversized::a_message_in_pieces_of_one_block", |root| {
        const PIECE_BYTES: u32 = 8 << 20;
        const PIECES: u32 = 32;
        let mut attacker = join(root);
        let head = RequestHead::new(Method::Inline(UPLOAD));
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let open = FrameHeader {
            flags: Flags::NONE,
            ..request(FIRST_CALL, &bytes)
        };
        attacker.frame(open, &bytes);
        for piece in 0..PIECES {
            let flags = Flags::HAS_MESSAGE
                .with(Flags::CONTINUED, piece > 0)
                .with(Flags::MORE, piece + 1 < PIECES);
            let header = FrameHeader {
                call: FIRST_CALL,
                flags,
                payload_len: PIECE_BYTES,
                message_len: PIECES * PIECE_BYTES,
                ..FrameHeader::new(Kind::Message)
            };
            let block = attacker.block(PIECE_BYTES);
            let producer = &mut attacker.endpoint.producer;
            let mut reservation = producer
                .reserve_with_block(FrameHeader::LEN, block)
                .unwrap();
            reservation.copy_from_slice(&header.encode());
            reservation.commit();
            attacker.bell.ring().unwrap();
            if piece == 0 {
                let code = Code::from_i32(attacker.ending().code.into());
                assert_eq!(code, Code::OutOfRange);
            }
            // Each block comes back, whether it was read or not.
            let began = Instant::now();
            while attacker.endpoint.arena.collect_releases().unwrap() == 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "{piece}");
                std::thread::yield_now();
            }
        }
        let head = unary_head();
        attacker.frame(request(FIRST_CALL + 1, &head), &head);
        assert_eq!(attacker.ending().kind, Kind::Response);
    });
}
