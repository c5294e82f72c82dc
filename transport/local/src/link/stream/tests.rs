//! Each engine, without connections above it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_sys::pipe::pipe;
use ringway_wire::{Flags, FrameHeader, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::link::{Payload, Place};
use crate::waiting::{Pass, Seen, look_until};

const MIB: usize = 1 << 20;

struct End {
    stream: Arc<Stream>,
    sender: Sender,
    receiver: Receiver,
    watch: Watch,
    frames: Vec<Frame>,
}

impl End {
    fn new(socket: UnixStream, engine: SocketEngine) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self::over(Stream::new(socket.into(), engine).unwrap())
    }

    fn of_pipes(reader: OwnedFd, writer: OwnedFd) -> Self {
        for end in [&reader, &writer] {
            rustix::io::ioctl_fionbio(end, true).unwrap();
        }
        Self::over(Stream::over_pipes(Pipes::new(reader, writer, None)).unwrap())
    }

    fn over(stream: Arc<Stream>) -> Self {
        let (sender, receiver, watch) = stream.halves();
        Self {
            stream,
            sender,
            receiver,
            watch,
            frames: Vec::new(),
        }
    }

    fn put(&mut self, number: u32, len: usize) -> Result<(), LinkError> {
        let payload_len = u32::try_from(len).unwrap();
        let byte = number.to_le_bytes()[0];
        self.sender.send(Outgoing {
            head_len: 0,
            payload: Some(Payload {
                len,
                encode: &mut |out| out.copy_from_slice(&vec![byte; len]),
            }),
            place: Place::Inline,
            finish: &mut |_| {
                Some(FrameHeader {
                    flags: Flags::HAS_MESSAGE,
                    call: 1 << 32 | u64::from(number),
                    payload_len,
                    message_len: payload_len,
                    ..FrameHeader::new(Kind::Message)
                })
            },
        })
    }

    /// As the only call in flight would.
    fn send(&mut self, number: u32, len: usize) -> Result<(), LinkError> {
        self.put(number, len)?;
        self.sender.ring(1);
        Ok(())
    }

    fn look(&mut self) -> Result<usize, Closed> {
        loop {
            self.receiver
                .receive(&mut self.frames, &mut |_, _| Ok(true))?;
            if !self.receiver.has_more() {
                return Ok(self.frames.len());
            }
        }
    }

    fn assert_got(&self, index: usize, number: u32, len: usize) {
        let frame = &self.frames[index];
        assert_eq!(frame.header.call, 1 << 32 | u64::from(number));
        let expected = Bytes::from(vec![number.to_le_bytes()[0]; len]);
        assert!(frame.payload == expected, "frame {index} differs");
    }

    fn rings_within(&self, timeout: Duration) -> bool {
        let bell = self.stream.bell();
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut polled = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&timeout)).unwrap() > 0
    }
}

fn engines() -> Vec<SocketEngine> {
    if uring::is_supported() {
        vec![SocketEngine::Epoll, SocketEngine::Uring]
    } else {
        vec![SocketEngine::Epoll]
    }
}

fn in_each_engine(test: impl Fn([End; 2])) {
    for engine in engines() {
        let (left, right) = UnixStream::pair().unwrap();
        test([left, right].map(|socket| End::new(socket, engine)));
    }
    let (there, back) = (pipe().unwrap(), pipe().unwrap());
    test([
        End::of_pipes(there.0, back.1),
        End::of_pipes(back.0, there.1),
    ]);
}

/// A peer without any engine: what is written to it, and what it has to keep open.
struct Bare {
    out: File,
    _other: Option<OwnedFd>,
}

fn against_a_bare_peer(test: impl Fn(End, Bare)) {
    for engine in engines() {
        let (ours, peer) = UnixStream::pair().unwrap();
        let out = OwnedFd::from(peer).into();
        test(End::new(ours, engine), Bare { out, _other: None });
    }
    let (there, back) = (pipe().unwrap(), pipe().unwrap());
    let bare = Bare {
        out: back.1.into(),
        _other: Some(there.0),
    };
    test(End::of_pipes(back.0, there.1), bare);
}

/// A peer that sends faster than its frames are handled: what is not handled yet stays with the kernel.
#[test]
fn what_a_receive_has_left_is_taken_before_more_is() {
    const MOST: usize = 2 * MIB;
    against_a_bare_peer(|mut end, mut bare| {
        rustix::io::ioctl_fionbio(&bare.out, true).unwrap();
        let frames = FrameHeader::new(Kind::Link(0x90)).encode().repeat(1000);
        let mut written = 0;
        for _ in 0..100 {
            while let Ok(len) = bare.out.write(&frames[written % frames.len()..]) {
                written += len;
            }
            until(|| end.watch.has_records());
            let received = end.receiver.receive(&mut end.frames, &mut |_, _| Ok(true));
            received.unwrap();
        }
        let left = written - end.frames.len() * FrameHeader::LEN;
        assert!(left < MOST, "{left} bytes wait to be handled");
    });
}

/// A peer that reads what is sent, and sends on, to an end that only sends: what comes beside that stays with the kernel,
/// and nothing of it is lost.
#[test]
fn what_comes_while_sending_has_a_bound() {
    const MOST: usize = 2 * MIB;
    for engine in engines() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut end = End::new(ours, engine);
        let frames = FrameHeader::new(Kind::Link(0x90)).encode().repeat(1000);
        let (mut written, mut read) = (0, 0);
        let exchange = |peer: &mut UnixStream, written: &mut usize, read: &mut usize| {
            while let Ok(len) = peer.write(&frames[*written % frames.len()..]) {
                *written += len;
            }
            while let Ok(len) = peer.read(&mut [0; 4096]) {
                *read += len;
            }
        };
        for number in 0..1000 {
            exchange(&mut peer, &mut written, &mut read);
            // Full where what came before holds it up.
            let _ = end.send(number, 64);
        }
        assert!(written < MOST, "{engine:?}: {written} bytes were taken");
        peer.set_nonblocking(false).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let mut ended = Ok(0);
        until(|| {
            ended = end.look();
            ended.is_err()
        });
        assert_eq!(ended, Err(Closed::PeerGone));
        assert_eq!(end.frames.len(), written / FrameHeader::LEN, "{engine:?}");
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never comes");
        std::thread::yield_now();
    }
}

#[test]
fn frames_go_both_ways_at_once_whatever_their_size() {
    in_each_engine(|[mut left, mut right]| {
        let sizes = [0, 64, 40_000, MIB, 5, 3 * MIB, 64];
        let (mut put, mut back) = (0, 0);
        until(|| {
            for (end, next) in [(&mut left, &mut put), (&mut right, &mut back)] {
                if let Some(len) = sizes.get(*next)
                    && end.send(u32::try_from(*next).unwrap(), *len).is_ok()
                {
                    *next += 1;
                }
                end.look().unwrap();
                end.watch.has_records();
            }
            left.frames.len() + right.frames.len() == 2 * sizes.len()
        });
        for (index, len) in sizes.iter().enumerate() {
            left.assert_got(index, u32::try_from(index).unwrap(), *len);
            right.assert_got(index, u32::try_from(index).unwrap(), *len);
        }
        until(|| left.watch.has_records() || left.sender.is_drained());
    });
}

#[test]
fn a_link_whose_peer_does_not_read_fills_and_empties() {
    in_each_engine(|[mut left, mut right]| {
        let mut sent = 0;
        let refused = loop {
            match left.send(sent, 10_000) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "it has no bound");
        };
        assert_eq!(refused, LinkError::Full);
        assert!(!left.sender.wait_for_room());
        assert!(!left.sender.is_drained());
        until(|| {
            left.look().unwrap();
            right.look().unwrap() == sent as usize
        });
        assert!(left.sender.wait_for_room());
        left.send(sent, 10_000).unwrap();
        until(|| right.look().unwrap() > sent as usize);
        for number in 0..=sent {
            right.assert_got(number as usize, number, 10_000);
        }
    });
}

#[test]
fn what_never_left_was_not_sent_and_never_will_be() {
    against_a_bare_peer(|mut end, peer| {
        end.send(0, 64).unwrap();
        let first = end.sender.position();
        let mut number = 1;
        while end.send(number, 10_000).is_ok() {
            number += 1;
        }
        let (Position::Byte(first), Position::Byte(last)) = (first, end.sender.position()) else {
            panic!("positions in a stream are bytes");
        };
        assert!(!end.sender.was_not_sent(first));
        assert!(end.sender.was_not_sent(last));
        assert!(matches!(end.send(0, 1), Err(LinkError::Closed(_))));
        drop(peer);
    });
}

#[test]
fn a_peer_that_goes_in_the_middle_of_a_frame_leaves_those_before_it() {
    against_a_bare_peer(|mut end, mut peer| {
        let header = |len: u32| FrameHeader {
            flags: Flags::HAS_MESSAGE,
            call: 1 << 32,
            payload_len: len,
            message_len: len,
            ..FrameHeader::new(Kind::Message)
        };
        std::io::Write::write_all(&mut peer.out, &header(0).encode()).unwrap();
        std::io::Write::write_all(&mut peer.out, &header(1 << 20).encode()).unwrap();
        std::io::Write::write_all(&mut peer.out, &[7; 100]).unwrap();
        drop(peer);
        let mut ended = Ok(0);
        until(|| {
            ended = end.look();
            ended.is_err()
        });
        assert_eq!(ended, Err(Closed::PeerGone));
        assert_eq!(end.frames.len(), 1);
        until(|| end.send(0, 64).is_err());
    });
}

#[test]
fn a_peer_that_goes_without_having_read_is_gone() {
    against_a_bare_peer(|mut end, peer| {
        end.send(0, 64).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        drop(peer);
        let mut ended = Ok(0);
        until(|| {
            ended = end.look();
            ended.is_err()
        });
        assert_eq!(ended, Err(Closed::PeerGone));
    });
}

/// Nothing but a write tells that.
#[test]
fn a_peer_that_reads_no_more_is_gone_whatever_it_keeps_open() {
    let (there, back) = (pipe().unwrap(), pipe().unwrap());
    let mut end = End::of_pipes(back.0, there.1);
    drop(there.0);
    end.look().unwrap();
    end.send(0, 64).unwrap();
    assert_eq!(end.look(), Err(Closed::PeerGone));
    assert!(matches!(end.send(0, 64), Err(LinkError::Closed(_))));
    drop(back.1);
    for engine in engines() {
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let mut end = End::new(socket, engine);
        peer.shutdown(std::net::Shutdown::Read).unwrap();
        let header = FrameHeader::new(Kind::Ping).encode();
        std::io::Write::write_all(&mut peer, &header).unwrap();
        end.send(0, 64).unwrap();
        let mut ended = Ok(0);
        until(|| {
            ended = end.look();
            ended.is_err()
        });
        assert_eq!(ended, Err(Closed::PeerGone), "{engine:?}");
        assert_eq!(end.frames.len(), 1, "{engine:?}: what came before is lost");
        until(|| end.send(0, 64).is_err());
    }
}

#[test]
fn what_was_written_before_hanging_up_arrives() {
    in_each_engine(|[mut left, mut right]| {
        left.send(1, 64).unwrap();
        left.watch.hang_up();
        let mut ended = Ok(0);
        until(|| {
            ended = right.look();
            ended.is_err()
        });
        assert_eq!(ended, Err(Closed::PeerGone));
        right.assert_got(0, 1, 64);
        until(|| right.send(0, 64).is_err());
    });
}

#[test]
fn a_bad_frame_is_the_peers_fault() {
    against_a_bare_peer(|mut end, mut peer| {
        std::io::Write::write_all(&mut peer.out, &[0xff; 100]).unwrap();
        std::io::Write::write_all(&mut peer.out, &[0; 100]).unwrap();
        let mut ended = Ok(0);
        until(|| {
            ended = end.look();
            ended.is_err()
        });
        assert!(matches!(ended, Err(Closed::PeerMisbehaved(_))));
    });
}

#[test]
fn the_bell_rings_for_sleepers_alone() {
    in_each_engine(|[mut left, mut right]| {
        let (at_once, soon) = (Duration::from_millis(20), Duration::from_secs(10));
        right.look().unwrap();
        right.watch.disarm();
        left.send(0, 64).unwrap();
        assert!(!right.rings_within(at_once));
        right.watch.arm();
        assert!(right.rings_within(soon), "what came before counts");
        right.receiver.stirred();
        until(|| right.look().unwrap() == 1);
        left.send(1, 64).unwrap();
        assert!(right.rings_within(soon), "it is armed still");
    });
}

#[test]
fn a_lone_call_goes_at_once_and_a_pass_sends_all_together() {
    in_each_engine(|[mut left, mut right]| {
        left.send(0, 64).unwrap();
        until(|| right.look().unwrap() == 1);
        let pass = Pass::enter();
        for number in 1..=64 {
            left.put(number, 64).unwrap();
            left.sender.ring(64);
        }
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(right.look().unwrap(), 1);
        drop(pass);
        until(|| right.look().unwrap() == 65);
        // Outside of a runtime there is no later.
        left.put(65, 64).unwrap();
        left.sender.ring(64);
        until(|| right.look().unwrap() == 66);
    });
}

#[tokio::test]
async fn on_a_runtime_sends_wait_for_the_tasks_that_are_ready() {
    let (left, right) = UnixStream::pair().unwrap();
    let mut left = End::new(left, SocketEngine::Epoll);
    let mut right = End::new(right, SocketEngine::Epoll);
    for number in 0..8 {
        left.put(number, 64).unwrap();
        left.sender.ring(8);
    }
    assert_eq!(right.look().unwrap(), 0);
    tokio::task::yield_now().await;
    assert_eq!(right.look().unwrap(), 8);
    // Whoever looks sends first.
    left.put(8, 64).unwrap();
    left.sender.ring(8);
    let look = Duration::from_micros(1);
    let found = look_until(Instant::now(), look, || {
        Seen::from(left.watch.has_records())
    });
    assert_eq!(found, crate::spin::Outcome::Missed);
    assert_eq!(right.look().unwrap(), 9);
}

#[derive(Debug)]
struct NoService;

impl crate::Serve for NoService {
    fn resolve(&self, _path: &str) -> Arc<crate::ServedMethod> {
        Arc::default()
    }

    fn start(&self, _started: &mut Option<crate::Started>) -> crate::HandlerFuture {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn the_engine_is_chosen_and_visible() {
    let root = tempfile::tempdir().unwrap();
    let directory = crate::Directory::at(root.path().join("ringway"));
    let listener =
        crate::Listener::bind(&directory, "tested:1", &crate::UidPolicy::SameUser).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(
        Arc::new(NoService),
        crate::LocalConfig::default(),
        async { drop(stopped.await) },
    ));
    let mut instances =
        crate::instances(&directory, "tested:1", &crate::UidPolicy::SameUser).unwrap();
    let instance = instances.pop().unwrap();
    for engine in engines() {
        let config = crate::LocalConfig {
            links: crate::Links::Socket,
            socket_engine: engine,
            ..crate::LocalConfig::default()
        };
        let connection = crate::connect(&directory, "tested:1", &instance, &config)
            .await
            .unwrap();
        assert_eq!(connection.kind(), crate::LinkKind::Socket);
        let epoll = connection.engine() == Some(Engine::Epoll);
        assert_eq!(epoll, engine == SocketEngine::Epoll);
        connection.close();
    }
    let config = crate::LocalConfig::default();
    let connection = crate::connect(&directory, "tested:1", &instance, &config)
        .await
        .unwrap();
    assert_eq!(connection.kind(), crate::LinkKind::Shm);
    assert_eq!(connection.engine(), None);
    connection.close();
    stop.send(()).unwrap();
    serving.await.unwrap();
}
