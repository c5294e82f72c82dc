//! A hostile peer at a real server's socket: whatever it tries, it loses its own connection, and
//! nobody else notices.
#![allow(clippy::unwrap_used)]

mod afterwards;
mod ahead;
mod beset;
mod calls;
mod crowds;
mod false_servers;
mod frames;
mod handshake;
mod keepers;
mod liars;
mod oversized;
mod regions;
mod servers;
mod siege;
mod streams;
mod unruly;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway::Directory;
use ringway_ring::{BlockWriter, Endpoint, EndpointConfig, Inbox, OwnRegion, PeerRegion};
use ringway_sys::{Blocking, EventFd, receive_with_descriptors, send_with_descriptors};
use ringway_tests::{call_as_neighbour, serve_as_child};
use ringway_wire::{Capabilities, Config, FrameHeader, Hello, Kind, Role};

use crate::frames::{FIRST_CALL, request, unary_head};
pub(crate) use crate::siege::{Siege, besiege, besiege_from, besiege_heavily};

const NAME: &str = "besieged:50051";
const SHM: Capabilities = Capabilities(1);

/// Not a test: an honest client in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbour_process() {
    call_as_neighbour().await;
}

/// Not a test either: an honest server in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
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
    hello_with(SHM)
}

fn hello_with(capabilities: Capabilities) -> Hello {
    Hello::new(Role::Client, &Config::default(), 7, NAME, capabilities)
}

/// A client of before, that knows of nothing new.
fn older_hello() -> Hello {
    Hello {
        capabilities: SHM,
        ..hello()
    }
}

/// Waits until the server has hung up, which has to come soon after what was said last.
fn assert_hung_up(what: &str, stream: &UnixStream) {
    let said = Instant::now();
    assert_timed_out(what, stream);
    siege::note_hang_up(said);
}

/// Waits until the server has hung up on one that says nothing more.
fn assert_timed_out(what: &str, mut stream: &UnixStream) {
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

/// Whether it has, by now.
fn is_hung_up(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Ok(0)) || matches!(read, Err(error) if error.kind() != ErrorKind::WouldBlock)
}

fn read_hello(mut stream: &UnixStream) {
    let mut prefix = [0; Hello::PREFIX_LEN];
    stream.read_exact(&mut prefix).unwrap();
    let mut rest = vec![0; Hello::total_len(&prefix).unwrap() - prefix.len()];
    stream.read_exact(&mut rest).unwrap();
}

/// What is said of a segment that comes with it.
fn segment_note(id: u32, len: u64) -> [u8; 16] {
    let mut note = [0; 16];
    note[..4].copy_from_slice(&id.to_le_bytes());
    note[8..].copy_from_slice(&len.to_le_bytes());
    note
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    // The server may have hung up already: that is what is looked for afterwards.
    let _ = send_with_descriptors(stream.as_fd(), bytes, descriptors, Blocking::AsSocket);
}

/// Both hellos are said: now come the regions.
fn greet(root: &Path) -> UnixStream {
    greet_with(root, &hello())
}

fn greet_with(root: &Path, hello: &Hello) -> UnixStream {
    let mut stream = connect(root);
    let hello = hello.encode().unwrap();
    stream.write_all(&hello).unwrap();
    read_hello(&stream);
    stream
}

/// An attacker whose handshake was honest.
struct Joined {
    stream: UnixStream,
    endpoint: Endpoint,
    /// The server's.
    bell: EventFd,
    own_bell: EventFd,
}

fn join(root: &Path) -> Joined {
    join_with(root, &hello())
}

fn join_with(root: &Path, hello: &Hello) -> Joined {
    exchange_regions(greet_with(root, hello)).unwrap()
}

/// Gives a region and a doorbell for the peer's. Both hellos are said; `None` if the peer hangs up.
fn exchange_regions(stream: UnixStream) -> Option<Joined> {
    let config = EndpointConfig::default();
    let (own, own_bell) = (
        OwnRegion::create(&config.region).unwrap(),
        EventFd::new().unwrap(),
    );
    send(&stream, b"R", &[own.descriptor(), own_bell.as_fd()]);
    let mut note = [0];
    let received =
        receive_with_descriptors(stream.as_fd(), &mut note, 2, Blocking::AsSocket).ok()?;
    let [region, bell] = <[OwnedFd; 2]>::try_from(received.descriptors).ok()?;
    let region = PeerRegion::map(region, &config.region_limits).unwrap();
    Some(Joined {
        endpoint: Endpoint::join(own, region, &config).unwrap(),
        stream,
        bell: EventFd::from_peer(bell).unwrap(),
        own_bell,
    })
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

    /// A block in a segment that the server has.
    fn block(&mut self, len_bytes: u32) -> BlockWriter {
        let block = self.endpoint.arena.allocate(len_bytes as usize).unwrap();
        for segment in self.endpoint.arena.new_segments() {
            let note = segment_note(segment.id.0, segment.len as u64);
            send(&self.stream, &note, &[segment.descriptor.as_fd()]);
        }
        block
    }

    /// Lends the block to a call.
    fn lend(&mut self, block: BlockWriter) {
        let head = unary_head();
        let len = u32::try_from(block.len()).unwrap();
        let header = FrameHeader {
            payload_len: len,
            message_len: len,
            ..request(FIRST_CALL, &head)
        };
        let bytes = [&header.encode()[..], &head].concat();
        let producer = &mut self.endpoint.producer;
        let mut reservation = producer.reserve_with_block(bytes.len(), block).unwrap();
        reservation.copy_from_slice(&bytes);
        reservation.commit();
        self.bell.ring().unwrap();
    }

    /// Waits until the call in flight has ended: the frame that says so.
    fn ending(&mut self) -> FrameHeader {
        self.wait_for(|header| matches!(header.kind, Kind::Response | Kind::Trailers | Kind::Reset))
    }

    /// Waits for the frame that `is_it`.
    fn wait_for(&mut self, is_it: impl FnMut(&FrameHeader) -> bool) -> FrameHeader {
        self.wait_unless_cut_off(is_it).expect("cut off")
    }

    /// Waits for the frame that `is_it`; `None` once the server has hung up.
    fn wait_unless_cut_off(
        &mut self,
        mut is_it: impl FnMut(&FrameHeader) -> bool,
    ) -> Option<FrameHeader> {
        let (began, mut inbox) = (Instant::now(), Inbox::default());
        loop {
            self.endpoint.consumer.take(&mut inbox).unwrap();
            for record in inbox.records() {
                let header = record.unwrap().bytes.first_chunk().unwrap();
                let header = FrameHeader::decode(header).unwrap();
                if is_it(&header) {
                    return Some(header);
                }
            }
            assert!(began.elapsed() < Duration::from_secs(10), "no answer");
            if is_hung_up(&self.stream) {
                return None;
            }
            std::thread::yield_now();
        }
    }
}
