//! Passes over shared memory, one at a time, for a peer that the test plays.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway_ring::{BlockWriter, Endpoint, EndpointConfig, RegionConfig, SegmentId};
use ringway_sys::{Blocking, EventFd, peer_credentials, send_with_descriptors};
use ringway_wire::{Config, Flags, FrameHeader, Kind, Method, Negotiated, RequestHead, Role};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::ioctl_fionread;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::*;
use crate::clock;
use crate::link::MAX_FRAMES;
use crate::link::shm::peer_bell::{self, PeerBell};
use crate::link::shm::{MAX_NOTES, PeerCan, REFUSED_LEN, SegmentNote};
use crate::pressing::BRIEF_FRAMES;
use crate::rendezvous::assemble;

const FIRST_CALL: u64 = 1 << 32;
const LIMIT: Duration = Duration::from_secs(5);
/// Longer than the core lets a receive copy unasked: a receive takes one such message.
const LARGE_BYTES: usize = 600_000;
const NOTE_BYTES: usize = 16;
/// Eight times the default, which a peer may choose: room for all records of a test.
const RING_BYTES: usize = 256 * 1024;

/// Takes every call, and answers none.
#[derive(Debug)]
struct Takes;

impl Serve for Takes {
    fn resolve(&self, path: &str) -> Arc<ServedMethod> {
        Arc::new(ServedMethod {
            path: path.into(),
            max_request_bytes: u32::MAX,
            ..ServedMethod::default()
        })
    }

    fn start(&self, started: &mut Option<Started>) -> HandlerFuture {
        let started = started.take();
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(started);
        })
    }
}

/// A server's end, and the peer at its other end.
struct Ends {
    server: Arc<Connection>,
    /// A duplicate, to count the bytes that the server has left in its socket.
    server_socket: OwnedFd,
    peer: Endpoint,
    peer_socket: Option<UnixStream>,
    /// The peer's doorbell, which the server rings.
    peer_bell: EventFd,
    /// Holds the driver's task and never polls it: the test runs each pass.
    rests: Option<Runtime>,
}

impl Ends {
    /// Joins ends of which the test drives the server's.
    fn driven_by_hand() -> Self {
        Self::joined(Some(Builder::new_current_thread().build().unwrap()))
    }

    /// Joins ends of which the runtime at hand drives the server's.
    fn driven() -> Self {
        Self::joined(None)
    }

    fn joined(rests: Option<Runtime>) -> Self {
        let memory = EndpointConfig {
            region: RegionConfig {
                ring_bytes: RING_BYTES,
                ..RegionConfig::default()
            },
            ..EndpointConfig::default()
        };
        let (here, peer) = Endpoint::pair(&memory).unwrap();
        let (socket, peer_socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let credentials = peer_credentials(socket.as_fd()).unwrap();
        let socket = OwnedFd::from(socket);
        let config = Config::default();
        let agreed = Negotiated::within_process(Role::Server, &config, &config);
        let core = ringway_wire::Connection::new(Role::Server, &agreed, &config, clock::now());
        let peer_can = PeerCan {
            read_ahead: true,
            hear_refusals: true,
        };
        let server_socket = socket.try_clone().unwrap();
        let peer_bell = EventFd::new().unwrap();
        let rung = Arc::new(PeerBell::new(peer_bell.try_clone().unwrap()));
        let parts = assemble(
            here,
            peer_can,
            core,
            Arc::new(socket),
            (EventFd::new().unwrap(), rung),
            Some(Arc::new(Takes)),
            credentials,
        );
        let server = Connection::start(Parts {
            runtime: rests.as_ref().map(|runtime| runtime.handle().clone()),
            ..parts.unwrap()
        });
        Self {
            server,
            server_socket,
            peer,
            peer_socket: Some(peer_socket),
            peer_bell,
            rests,
        }
    }

    /// Publishes requests without messages, each in a record of its own.
    fn publish(&mut self, calls: std::ops::Range<u64>) {
        for call in calls {
            let record = request(call, 0);
            let mut reservation = self.peer.producer.reserve(record.len()).unwrap();
            reservation.copy_from_slice(&record);
            reservation.commit();
        }
    }

    /// Publishes a request with a message in a block.
    fn publish_large(&mut self, call: u64) {
        let block = self.block();
        let record = request(call, LARGE_BYTES);
        let producer = &mut self.peer.producer;
        let mut reservation = producer.reserve_with_block(record.len(), block).unwrap();
        reservation.copy_from_slice(&record);
        reservation.commit();
    }

    /// Allocates a block of which the server is told.
    fn block(&mut self) -> BlockWriter {
        let block = self.peer.arena.allocate(LARGE_BYTES).unwrap();
        for segment in self.peer.arena.new_segments() {
            self.note(segment.id, segment.len as u64, Some(&segment.descriptor));
        }
        block
    }

    fn note(&self, id: SegmentId, len: u64, segment: Option<&impl AsFd>) {
        let mut note = [0; NOTE_BYTES];
        note[..4].copy_from_slice(&id.0.to_le_bytes());
        note[8..].copy_from_slice(&len.to_le_bytes());
        let descriptors: Vec<_> = segment.map(AsFd::as_fd).into_iter().collect();
        let socket = self.peer_socket.as_ref().unwrap().as_fd();
        send_with_descriptors(socket, &note, &descriptors, Blocking::Never).unwrap();
    }

    /// Counts the notes that the server has left in its socket.
    fn notes_left(&self) -> usize {
        usize::try_from(ioctl_fionread(&self.server_socket).unwrap()).unwrap() / NOTE_BYTES
    }

    /// Has the peer hang up, and the server's reactor hear of it.
    async fn hang_up(&mut self) {
        self.peer_socket = None;
        sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // Inside of another runtime it cannot be waited for.
        if let Some(runtime) = self.rests.take() {
            runtime.shutdown_background();
        }
    }
}

fn request(call: u64, message_len: usize) -> Vec<u8> {
    let head = RequestHead::new(Method::Inline("/a.Service/Method"));
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let flags = match message_len {
        0 => Flags::NONE,
        _ => Flags::HAS_MESSAGE,
    };
    let len = u32::try_from(message_len).unwrap();
    let header = FrameHeader {
        call: FIRST_CALL | call,
        flags,
        head_len: u32::try_from(bytes.len()).unwrap(),
        payload_len: len,
        message_len: len,
        ..FrameHeader::new(Kind::Request)
    };
    [&header.encode()[..], &bytes].concat()
}

/// A peer that publishes without end gets a fraction of a millisecond, and then other connections have their turn.
#[tokio::test]
async fn a_pass_takes_frames_up_to_its_budget() {
    let mut ends = Ends::driven_by_hand();
    ends.publish(0..700);
    for taken in [256, 512, 700] {
        ends.server.drive();
        assert_eq!(ends.server.calls(), taken, "of {MAX_FRAMES} each");
    }
}

/// A few records may refer to many megabytes, which take longer than a pass has time.
#[tokio::test]
async fn a_pass_takes_large_messages_up_to_its_budget() {
    let mut ends = Ends::driven_by_hand();
    (0..20).for_each(|call| ends.publish_large(call));
    let mut passes = 0;
    while ends.server.calls() < 20 {
        let taken = ends.server.calls();
        ends.server.drive();
        assert!(ends.server.calls() > taken, "{taken} were taken");
        passes += 1;
    }
    assert!(passes > 1);
}

/// The peer rings once, and the ring is empty: the records that a pass has left lie in private memory.
#[tokio::test]
async fn what_a_pass_has_left_is_taken_by_the_next() {
    let mut ends = Ends::driven();
    // The driver goes to sleep.
    sleep(Duration::from_millis(20)).await;
    ends.publish(0..700);
    (700..720).for_each(|call| ends.publish_large(call));
    ends.server.stir();
    let server = Arc::clone(&ends.server);
    let all = async {
        while server.calls() < 720 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let taken = tokio::time::timeout(LIMIT, all).await;
    assert!(taken.is_ok(), "{} were taken", ends.server.calls());
}

/// Each note is a mapping made or dropped, and a peer may send them without end.
#[tokio::test]
async fn a_pass_takes_notes_up_to_its_budget() {
    const NOTES: usize = 80;
    let mut ends = Ends::driven_by_hand();
    let _block = ends.peer.arena.allocate(LARGE_BYTES).unwrap();
    let segment = ends.peer.arena.new_segments().pop().unwrap();
    for _ in 0..NOTES / 2 {
        ends.note(segment.id, segment.len as u64, Some(&segment.descriptor));
        ends.note(segment.id, 0, None::<&OwnedFd>);
    }
    sleep(Duration::from_millis(20)).await;
    for left in [NOTES - MAX_NOTES, NOTES - 2 * MAX_NOTES, 0] {
        ends.server.drive();
        assert_eq!((ends.notes_left(), ends.server.why_closed()), (left, None));
    }
}

/// All records that the peer published before it went count, and no pass takes more of them than any other.
#[tokio::test]
async fn an_end_is_judged_after_what_came_before_it() {
    let mut ends = Ends::driven_by_hand();
    ends.hang_up().await;
    ends.publish(0..700);
    for taken in [256, 512, 700] {
        assert_eq!(ends.server.why_closed(), None, "before {taken}");
        ends.server.drive();
        assert_eq!(ends.server.calls(), taken);
    }
    assert_eq!(ends.server.why_closed(), Some(Closed::PeerGone));
}

/// A peer that dies while it writes is gone, and has not misbehaved.
#[tokio::test]
async fn the_first_reason_for_an_end_counts() {
    let mut ends = Ends::driven_by_hand();
    ends.hang_up().await;
    let too_short = [0; FrameHeader::LEN - 1];
    let mut reservation = ends.peer.producer.reserve(too_short.len()).unwrap();
    reservation.copy_from_slice(&too_short);
    reservation.commit();
    ends.server.drive();
    assert_eq!(ends.server.why_closed(), Some(Closed::PeerGone));
}

#[tokio::test]
async fn a_doorbell_that_has_held_up_a_thread_ends_its_connection() {
    let ends = Ends::driven_by_hand();
    rustix::io::write(&ends.peer_bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    fcntl_setfl(&ends.peer_bell, OFlags::empty()).unwrap();
    let rings = Arc::clone(&ends.server);
    let thread = std::thread::spawn(move || rings.watch.ring());
    let began = Instant::now();
    while !ends.server.watch.bell_has_blocked() {
        assert!(began.elapsed() < LIMIT, "it holds nobody up");
        // As the watchdog does at its ticks.
        let held = peer_bell::ringing();
        held.into_iter().for_each(|held| ends.server.free(held));
    }
    thread.join().unwrap();
    ends.server.drive();
    let why = ends.server.why_closed();
    assert!(
        matches!(&why, Some(Closed::PeerMisbehaved(what)) if what.contains("doorbell")),
        "{why:?}"
    );
}

/// A process that has no mapping left gets the same error: the connection stays, and the peer is told.
#[tokio::test]
async fn a_segment_that_cannot_be_mapped_is_refused_alone() {
    let mut ends = Ends::driven_by_hand();
    let _block = ends.peer.arena.allocate(LARGE_BYTES).unwrap();
    let segment = ends.peer.arena.new_segments().pop().unwrap();
    // A descriptor that allows no reading cannot be mapped for it.
    let path = format!("/proc/self/fd/{}", segment.descriptor.as_raw_fd());
    let unreadable = File::options().write(true).open(path).unwrap();
    ends.note(segment.id, segment.len as u64, Some(&unreadable));
    sleep(Duration::from_millis(20)).await;
    ends.server.drive();
    assert_eq!(ends.server.why_closed(), None);
    let mut refusal = [0; NOTE_BYTES];
    let mut socket = ends.peer_socket.as_ref().unwrap();
    socket.read_exact(&mut refusal).unwrap();
    let refusal = SegmentNote::decode(&refusal);
    let told = (refusal.id, refusal.len as u64);
    assert_eq!(told, (segment.id, REFUSED_LEN));
}

/// What its peer's other connections have taken leaves it little of a round: a few calls, and nothing that takes long.
#[tokio::test]
async fn a_brief_pass_takes_little_and_leaves_the_rest() {
    let mut ends = Ends::driven_by_hand();
    let briefly = |ends: &Ends| ends.server.briefly(|| ends.server.drive());
    ends.publish(0..3);
    briefly(&ends);
    assert_eq!((ends.server.calls(), ends.server.presses()), (3, false));
    ends.publish(3..40);
    briefly(&ends);
    assert_eq!(ends.server.calls(), 3 + BRIEF_FRAMES as u64);
    assert!(ends.server.presses(), "it has left some");
    ends.server.drive();
    assert_eq!(ends.server.calls(), 40);
    // Copied whole: not by a brief pass.
    ends.publish_large(40);
    briefly(&ends);
    briefly(&ends);
    assert_eq!(ends.server.calls(), 40);
    ends.server.drive();
    assert_eq!(ends.server.calls(), 41);
}

/// However many calls it makes, one that leaves nothing over its passes presses no more after a while.
#[tokio::test]
async fn what_a_pass_has_taken_tells_who_presses() {
    let mut ends = Ends::driven_by_hand();
    ends.publish(0..300);
    ends.server.drive();
    assert!(ends.server.presses(), "its pass was used up");
    let mut passes = 0;
    while ends.server.presses() {
        ends.server.drive();
        passes += 1;
        assert!(passes < 20);
    }
    ends.publish_large(300);
    ends.server.drive();
    assert!(ends.server.presses(), "{LARGE_BYTES} bytes at once");
}
