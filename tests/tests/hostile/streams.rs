//! Hostile peers of links that are streams: sockets, with io_uring and without, and pipes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::{Pipe, Server};
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_wire::{Capabilities, Flags, FrameHeader, Hello, Kind, Method, RequestHead};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown};
use tokio::task::JoinHandle;

use crate::frames::{FIRST_CALL, against_the_rules, request, unary_head};
use crate::siege::note_hang_up;
use crate::{Siege, besiege, besiege_heavily, connect, hello_with, send};

/// What carries the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Socket,
    /// A socket that the server drives with io_uring, where the kernel allows it.
    Uring,
    Pipe,
}

const LINKS: [Link; 3] = [Link::Socket, Link::Uring, Link::Pipe];
/// Longer than any hang-up takes.
const LIMIT: Duration = Duration::from_secs(10);
const UPLOAD: &str = "/ringway.bench.v1.Bench/ClientStream";

/// An attacker whose handshake was honest.
struct Peer {
    reader: File,
    writer: File,
    /// A server of its own, where there is no socket to call one.
    serving: Option<JoinHandle<()>>,
}

/// A server of pipes ends with its client: by itself, and soon.
impl Drop for Peer {
    fn drop(&mut self) {
        let Some(serving) = self.serving.take() else {
            return;
        };
        for end in [&mut self.reader, &mut self.writer] {
            *end = File::open("/dev/null").unwrap();
        }
        let hung_up = Instant::now();
        while !serving.is_finished() && !std::thread::panicking() {
            assert!(hung_up.elapsed() < LIMIT, "a hang-up is not noticed");
            std::thread::sleep(Duration::from_millis(1));
        }
        note_hang_up(hung_up);
    }
}

impl Peer {
    fn join(link: Link, siege: &Siege) -> Self {
        let mut peer = match link {
            Link::Socket | Link::Uring => {
                let socket = OwnedFd::from(connect(siege));
                Self {
                    reader: socket.try_clone().unwrap().into(),
                    writer: socket.into(),
                    serving: None,
                }
            }
            Link::Pipe => Self::over_pipes(siege),
        };
        let capabilities = match link {
            Link::Socket => 2 | 4,
            Link::Uring => 2,
            Link::Pipe => 8,
        };
        let hello = hello_with(Capabilities(capabilities));
        peer.say(&hello.encode().unwrap());
        let mut prefix = [0; Hello::PREFIX_LEN];
        peer.reader.read_exact(&mut prefix).unwrap();
        let mut rest = vec![0; Hello::total_len(&prefix).unwrap() - prefix.len()];
        peer.reader.read_exact(&mut rest).unwrap();
        peer
    }

    fn over_pipes(siege: &Siege) -> Self {
        let ((reader, to_us), (from_us, writer)) =
            (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let pipe = Pipe::new(OwnedFd::from(from_us), OwnedFd::from(to_us));
        let server = Server::builder()
            .pipe(pipe)
            .add_service(BenchServer::new(Handler {
                seen: Arc::clone(&siege.seen),
            }));
        let serving = tokio::runtime::Handle::current().spawn(async {
            // However that connection ends.
            let _ = server.bind().await.unwrap().serve().await;
        });
        Self {
            reader: OwnedFd::from(reader).into(),
            writer: OwnedFd::from(writer).into(),
            serving: Some(serving),
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        // The server may have hung up already: that is what is looked for afterwards.
        let _ = self.writer.write_all(bytes);
    }

    fn frame(&mut self, header: FrameHeader, rest: &[u8]) {
        self.say(&[&header.encode()[..], rest].concat());
    }

    /// Waits until the server has hung up, which has to come soon after what was said last.
    fn assert_hung_up(&mut self, what: &str) {
        let said = Instant::now();
        let mut rest = [0; 4096];
        loop {
            assert!(said.elapsed() < LIMIT, "{what}: not cut off");
            let mut readable = [PollFd::new(&self.reader, PollFlags::IN)];
            let timeout = rustix::time::Timespec::try_from(LIMIT).unwrap();
            poll(&mut readable, Some(&timeout)).unwrap();
            match self.reader.read(&mut rest) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        assert!(self.is_let_go(), "{what}: what it says is still taken in");
        note_hang_up(said);
    }

    /// Waits until the server has closed what this peer writes to.
    fn is_let_go(&self) -> bool {
        let mut writer = [PollFd::new(&self.writer, PollFlags::empty())];
        let timeout = rustix::time::Timespec::try_from(LIMIT).unwrap();
        poll(&mut writer, Some(&timeout)).unwrap() > 0
    }

    /// Waits until a call has ended: the frame that says so.
    fn ending(&mut self) -> FrameHeader {
        let mut header = [0; FrameHeader::LEN];
        loop {
            self.reader.read_exact(&mut header).unwrap();
            let header = FrameHeader::decode(&header).unwrap();
            let mut rest = vec![0; (header.head_len + header.payload_len) as usize];
            self.reader.read_exact(&mut rest).unwrap();
            if matches!(header.kind, Kind::Response | Kind::Trailers | Kind::Reset) {
                return header;
            }
        }
    }
}

fn open_upload() -> (FrameHeader, Vec<u8>) {
    let head = RequestHead::new(Method::Inline(UPLOAD));
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let open = FrameHeader {
        flags: Flags::NONE,
        ..request(FIRST_CALL, &bytes)
    };
    (open, bytes)
}

#[test]
fn frames_that_break_the_rules_of_a_stream() {
    besiege(|siege| {
        for link in LINKS {
            for (what, bytes) in against_the_rules() {
                let mut attacker = Peer::join(link, siege);
                attacker.say(&bytes);
                attacker.assert_hung_up(&format!("{link:?}: {what}"));
            }
        }
    });
}

/// What is cut off in the middle, at each byte, is the end of its connection alone.
#[test]
fn streams_that_end_within_a_frame() {
    besiege(|siege| {
        let head = unary_head();
        let whole = [&request(FIRST_CALL, &head).encode()[..], &head].concat();
        for link in LINKS {
            for cut in (0..whole.len()).step_by(5) {
                let mut attacker = Peer::join(link, siege);
                attacker.say(&whole[..cut]);
            }
            // One byte after the other is a frame as well.
            let mut peer = Peer::join(link, siege);
            whole.iter().for_each(|byte| peer.say(&[*byte]));
            assert_eq!(peer.ending().kind, Kind::Response, "{link:?}");
        }
    });
}

/// Messages of one byte without end: they cost the server more than their credit allows.
#[test]
fn a_flood_of_messages_of_one_byte() {
    besiege_heavily(|siege| {
        let (open, head) = open_upload();
        let message = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            payload_len: 2,
            message_len: 2,
            ..FrameHeader::new(Kind::Message)
        };
        let many = [&message.encode()[..], &[8, 1]].concat().repeat(1_000);
        for link in LINKS {
            let mut attacker = Peer::join(link, siege);
            attacker.frame(open, &head);
            let began = Instant::now();
            // Not read by a handler in time, it runs out of credit; read in time, it is no flood.
            while began.elapsed() < Duration::from_millis(100) {
                attacker.say(&many);
            }
        }
    });
}

/// Descriptors beside frames: a socket link takes none, and holds none of them.
#[test]
fn descriptors_that_nobody_asked_for() {
    besiege(|siege| {
        let file = tempfile::tempfile().unwrap();
        let held = ringway_tests::descriptors();
        for capabilities in [2 | 4, 2] {
            let stream = connect(siege);
            let hello = hello_with(Capabilities(capabilities)).encode().unwrap();
            send(&stream, &hello, &[file.as_fd(); 8]);
            crate::read_hello(&stream);
            let head = unary_head();
            let call = [&request(FIRST_CALL, &head).encode()[..], &head].concat();
            send(&stream, &call, &[file.as_fd(); 16]);
            let socket = OwnedFd::from(stream);
            let mut peer = Peer {
                reader: socket.try_clone().unwrap().into(),
                writer: socket.into(),
                serving: None,
            };
            assert_eq!(peer.ending().kind, Kind::Response);
            let more = ringway_tests::descriptors().saturating_sub(held);
            // Both ends of this connection, and one of ours twice; io_uring has some of its own.
            assert!(more < 16, "{more} descriptors more");
        }
    });
}

/// Killed in the middle, an upload is never committed.
#[test]
fn an_upload_that_breaks_off() {
    besiege(|siege| {
        let (open, head) = open_upload();
        let message = FrameHeader {
            call: FIRST_CALL,
            flags: Flags::HAS_MESSAGE,
            ..FrameHeader::new(Kind::Message)
        };
        for link in LINKS {
            let entered = siege.seen.entered();
            let mut attacker = Peer::join(link, siege);
            attacker.frame(open, &head);
            for _ in 0..3 {
                attacker.frame(message, &[]);
            }
            while siege.seen.entered() == entered {
                std::thread::yield_now();
            }
        }
        let mut attacker = crate::join(siege);
        attacker.frame(open, &head);
        attacker.frame(message, &[]);
        drop(attacker);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(siege.seen.committed(), 0);
    });
}

/// A peer that takes no answer any more, and keeps open what it asks by.
#[test]
fn a_peer_that_reads_no_more() {
    besiege(|siege| {
        let head = unary_head();
        let whole = [&request(FIRST_CALL, &head).encode()[..], &head].concat();
        for link in LINKS {
            let mut attacker = Peer::join(link, siege);
            if link == Link::Pipe {
                attacker.reader = File::open("/dev/null").unwrap();
            } else {
                shutdown(&attacker.reader, Shutdown::Read).unwrap();
            }
            attacker.say(&whole);
            let asked = Instant::now();
            assert!(attacker.is_let_go(), "{link:?}: its connection is kept");
            note_hang_up(asked);
        }
    });
}

/// A peer that reads nothing: what its calls are answered with is bounded, and so is what it may ask.
#[test]
fn a_peer_that_reads_nothing() {
    besiege(|siege| {
        let head = unary_head();
        for link in LINKS {
            let mut attacker = Peer::join(link, siege);
            let payload = [0x12, 0x80, 0x20].into_iter().chain([0; 4096]);
            let payload: Vec<u8> = payload.collect();
            let len = u32::try_from(payload.len()).unwrap();
            let rest = [&head[..], &payload].concat();
            rustix::io::ioctl_fionbio(&attacker.writer, true).unwrap();
            for slot in 0..4_000 {
                let header = FrameHeader {
                    payload_len: len,
                    message_len: len,
                    ..request(FIRST_CALL | slot, &head)
                };
                let bytes = [&header.encode()[..], &rest].concat();
                if attacker.writer.write_all(&bytes).is_err() {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}
