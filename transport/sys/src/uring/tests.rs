//! The engine over socket pairs, in both tiers.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::probe::try_tier;
use super::*;
use crate::Error;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// What happened to each socket.
#[derive(Default)]
struct Log {
    received: HashMap<SocketId, Vec<u8>>,
    sent: HashMap<SocketId, usize>,
    closed: Vec<SocketId>,
    failed: Vec<(SocketId, io::Error)>,
}

impl Log {
    fn note(&mut self, completion: Completion<'_>) {
        match completion {
            Completion::Received { id, data } => {
                assert!(!data.is_empty());
                self.received.entry(id).or_default().extend_from_slice(data);
            }
            Completion::Sent { id, len } => *self.sent.entry(id).or_default() += len,
            Completion::Closed { id } => self.closed.push(id),
            Completion::Failed { id, error } => self.failed.push((id, error)),
        }
    }

    fn received(&self, id: SocketId) -> &[u8] {
        self.received.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Drives the engine until `done`.
    fn until(&mut self, uring: &mut Uring, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "nothing more happens");
            uring.wait(Duration::from_millis(100)).unwrap();
            uring.reap(|completion| self.note(completion));
            uring.submit().unwrap();
        }
    }
}

/// Runs the test in each tier that this machine has.
fn in_each_tier(test: impl Fn(Tier)) {
    for tier in [Tier::Multishot, Tier::Single] {
        match try_tier(tier) {
            Ok(()) => test(tier),
            Err(error) => eprintln!("{tier} is refused here: {error}"),
        }
    }
}

fn attached(uring: &mut Uring) -> (SocketId, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (uring.attach(ours.into()).unwrap(), peer)
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from((index * 31 + index / 251 + seed) % 256).unwrap())
        .collect()
}

#[test]
fn the_probe_agrees_with_the_tiers() {
    let support = Support::probe();
    match support.tier() {
        Some(tier) => try_tier(tier).unwrap(),
        None => assert!(matches!(support, Support::Refused(_))),
    }
    assert!(!support.to_string().is_empty());
}

#[test]
fn many_sockets_echo() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let mut peers: Vec<_> = (0..150).map(|_| attached(&mut uring)).collect();
        uring.submit().unwrap();
        for round in 0..5 {
            for (index, (_, peer)) in peers.iter_mut().enumerate() {
                peer.write_all(&pattern(64, index + round)).unwrap();
            }
            let mut log = Log::default();
            log.until(&mut uring, |log| {
                peers.iter().all(|(id, _)| log.received(*id).len() == 64)
            });
            for (id, bytes) in log.received {
                uring.send(id, bytes).unwrap();
            }
            uring.submit().unwrap();
            for (index, (_, peer)) in peers.iter_mut().enumerate() {
                let mut echo = [0; 64];
                peer.read_exact(&mut echo).unwrap();
                assert_eq!(echo[..], pattern(64, index + round));
            }
        }
    });
}

#[test]
fn a_mebibyte_goes_both_ways_at_once() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let sockets: Vec<_> = (0..4).map(|_| attached(&mut uring)).collect();
        let mut ids = Vec::new();
        let mut threads = Vec::new();
        for (index, (id, peer)) in sockets.into_iter().enumerate() {
            ids.push(id);
            uring.send(id, pattern(MIB, index)).unwrap();
            let (mut reader, mut writer) = (peer.try_clone().unwrap(), peer);
            threads.push(thread::spawn(move || {
                writer.write_all(&pattern(MIB, index + 100)).unwrap();
                Vec::new()
            }));
            threads.push(thread::spawn(move || {
                let mut bytes = vec![0; MIB];
                reader.read_exact(&mut bytes).unwrap();
                bytes
            }));
        }
        let mut log = Log::default();
        log.until(&mut uring, |log| {
            ids.iter()
                .all(|id| log.received(*id).len() == MIB && log.sent.get(id) == Some(&MIB))
        });
        for (index, id) in ids.iter().enumerate() {
            assert!(log.received(*id) == pattern(MIB, index + 100));
            assert_eq!(uring.backlog_bytes(*id), 0);
        }
        let read: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|bytes| !bytes.is_empty())
            .collect();
        for (index, bytes) in read.iter().enumerate() {
            assert!(*bytes == pattern(MIB, index));
        }
    });
}

#[test]
fn queued_messages_keep_their_order_and_are_joined() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        let mut expected = Vec::new();
        for index in 0..2000 {
            let message = pattern(1 + index % 400, index);
            expected.extend_from_slice(&message);
            match index % 2 {
                0 => uring.send(id, message).unwrap(),
                _ => uring.send_slice(id, &message).unwrap(),
            }
            if index % 100 == 0 {
                uring.submit().unwrap();
            }
        }
        assert!(uring.backlog_bytes(id) > 0);
        let total = expected.len();
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; total];
            peer.read_exact(&mut bytes).unwrap();
            bytes
        });
        let mut log = Log::default();
        let mut sends = 0;
        let start = Instant::now();
        while log.sent.get(&id) != Some(&total) {
            assert!(start.elapsed() < PATIENCE);
            uring.wait(Duration::from_millis(100)).unwrap();
            uring.reap(|completion| {
                sends += usize::from(matches!(completion, Completion::Sent { .. }));
                log.note(completion);
            });
        }
        assert!(reader.join().unwrap() == expected);
        assert!(sends < 100, "{sends} sends for 2000 messages");
    });
}

#[test]
fn a_peer_that_closes_is_noticed() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        uring.submit().unwrap();
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut log = Log::default();
        log.until(&mut uring, |log| log.closed == [id]);
        assert_eq!(log.received(id), b"last words");
        // Half-closed: sending still works.
        uring.send(id, b"answer".to_vec()).unwrap();
        log.until(&mut uring, |log| log.sent.contains_key(&id));
        let mut answer = [0; 6];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        // Closed in the middle of a transfer.
        uring.send(id, vec![0; 8 * MIB]).unwrap();
        uring.submit().unwrap();
        peer.read_exact(&mut answer).unwrap();
        drop(peer);
        log.until(&mut uring, |log| !log.failed.is_empty());
        assert_eq!(log.failed.len(), 1);
        assert_eq!(log.failed[0].0, id);
        assert_eq!(log.failed[0].1.kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(
            uring.send(id, b"x".to_vec()),
            Err(Error::SocketEnded)
        ));
        assert_eq!(log.closed, [id]);
    });
}

#[test]
fn a_detached_socket_is_closed_and_silent() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        let (other, mut other_peer) = attached(&mut uring);
        // A receive and a send that cannot end are in flight.
        uring.send(id, vec![7; 8 * MIB]).unwrap();
        uring.submit().unwrap();
        peer.write_all(b"unseen").unwrap();
        uring.detach(id);
        assert!(matches!(
            uring.send(id, b"x".to_vec()),
            Err(Error::UnknownSocket)
        ));
        uring.detach(id);
        uring.submit().unwrap();
        other_peer.write_all(b"seen").unwrap();
        let mut log = Log::default();
        log.until(&mut uring, |log| log.received(other) == b"seen");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < 8 * MIB);
        assert!(!log.received.contains_key(&id) && log.closed.is_empty() && log.failed.is_empty());
        // Its place is used again, under another name.
        let start = Instant::now();
        while uring.in_flight() > 1 {
            assert!(start.elapsed() < PATIENCE);
            uring.wait(Duration::from_millis(10)).unwrap();
            uring.reap(|completion| log.note(completion));
        }
        let (again, mut peer) = attached(&mut uring);
        assert_ne!(again, id);
        assert_eq!(again.slot, id.slot);
        uring.submit().unwrap();
        peer.write_all(b"new").unwrap();
        log.until(&mut uring, |log| log.received(again) == b"new");
        assert!(!log.received.contains_key(&id));
    });
}

#[test]
fn dropped_with_operations_in_flight() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let mut peers = Vec::new();
        for _ in 0..20 {
            let (id, peer) = attached(&mut uring);
            uring.send(id, vec![1; 4 * MIB]).unwrap();
            peers.push(peer);
        }
        uring.submit().unwrap();
        let start = Instant::now();
        drop(uring);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "leaked its buffers"
        );
        for mut peer in peers {
            assert!(peer.write_all(b"x").is_err());
            let mut rest = Vec::new();
            // The end, or ECONNRESET: either way it is over.
            let _ = peer.read_to_end(&mut rest);
            assert!(rest.iter().all(|byte| *byte == 1));
        }
    });
}

#[test]
fn dropped_before_submission_and_unused() {
    in_each_tier(|tier| {
        drop(Uring::new(tier).unwrap());
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        uring.send(id, b"never".to_vec()).unwrap();
        drop(uring);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn few_buffers_and_small_queues_suffice() {
    in_each_tier(|tier| {
        let settings = Settings {
            entries: 4,
            buffers: 2,
            buffer_len: 1000,
            cooperative: false,
        };
        let mut uring = Uring::with_settings(tier, settings).unwrap();
        let mut peers: Vec<_> = (0..40).map(|_| attached(&mut uring)).collect();
        uring.submit().unwrap();
        for (index, (_, peer)) in peers.iter_mut().enumerate() {
            // More than the queue of completions and all buffers hold.
            peer.write_all(&pattern(10_000, index)).unwrap();
        }
        let mut log = Log::default();
        log.until(&mut uring, |log| {
            peers
                .iter()
                .all(|(id, _)| log.received(*id).len() == 10_000)
        });
        for (index, (id, _)) in peers.iter().enumerate() {
            assert!(log.received(*id) == pattern(10_000, index));
        }
    });
}

#[test]
fn completions_that_overflow_are_not_lost() {
    in_each_tier(|tier| {
        let settings = Settings {
            entries: 2,
            buffers: 256,
            buffer_len: 64,
            cooperative: false,
        };
        let mut uring = Uring::with_settings(tier, settings).unwrap();
        let (id, mut peer) = attached(&mut uring);
        uring.submit().unwrap();
        // One completion each for 8 places, unreaped.
        let mut expected = Vec::new();
        for index in 0..100 {
            let message = pattern(64, index);
            peer.write_all(&message).unwrap();
            expected.extend_from_slice(&message);
            uring.flush().unwrap();
        }
        let mut log = Log::default();
        log.until(&mut uring, |log| log.received(id).len() == expected.len());
        assert!(log.received(id) == expected);
    });
}

#[test]
fn survives_the_thread_that_submitted() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        // The kernel cancels what a thread leaves behind.
        let mut uring = thread::spawn(move || {
            uring.send(id, vec![3; 2 * MIB]).unwrap();
            uring.submit().unwrap();
            uring
        })
        .join()
        .unwrap();
        let mut writer = peer.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; 2 * MIB];
            peer.read_exact(&mut bytes).unwrap();
            bytes.iter().all(|byte| *byte == 3)
        });
        writer.write_all(b"still there?").unwrap();
        let mut log = Log::default();
        log.until(&mut uring, |log| {
            log.received(id) == b"still there?" && log.sent.get(&id) == Some(&(2 * MIB))
        });
        assert!(reader.join().unwrap());
        assert!(log.failed.is_empty());
    });
}

#[test]
fn an_epoll_reactor_sees_completions() {
    use rustix::event::epoll;
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (id, mut peer) = attached(&mut uring);
        uring.submit().unwrap();
        let reactor = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(1);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&reactor, &uring, data, flags).unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..50 {
                peer.write_all(b"x").unwrap();
                thread::sleep(Duration::from_micros(300));
            }
            peer
        });
        let mut log = Log::default();
        let start = Instant::now();
        while log.received(id).len() < 50 {
            assert!(start.elapsed() < PATIENCE);
            let mut events = Vec::with_capacity(4);
            let timeout = rustix::event::Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            let waited = Instant::now();
            // EINTR is how a completion's work arrives at a waiting thread.
            let _ = epoll::wait(
                &reactor,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            );
            assert!(waited.elapsed() < Duration::from_secs(9), "a lost wakeup");
            while uring.has_completions() {
                uring.reap(|completion| log.note(completion));
                uring.submit().unwrap();
            }
        }
        drop(writer.join().unwrap());
    });
}

#[test]
fn a_panic_in_the_callback_loses_no_buffer() {
    in_each_tier(|tier| {
        let settings = Settings {
            buffers: 2,
            buffer_len: 64,
            ..Settings::default()
        };
        let mut uring = Uring::with_settings(tier, settings).unwrap();
        let (id, mut peer) = attached(&mut uring);
        uring.submit().unwrap();
        for _ in 0..5 {
            peer.write_all(b"boom").unwrap();
            uring.submit().unwrap();
            let start = Instant::now();
            while !uring.wait(PATIENCE).unwrap() {
                assert!(start.elapsed() < PATIENCE);
            }
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                uring.reap(|_| std::panic::resume_unwind(Box::new("boom")));
            }));
            assert!(caught.is_err());
        }
        peer.write_all(b"fine").unwrap();
        let mut log = Log::default();
        log.until(&mut uring, |log| log.received(id) == b"fine");
    });
}

#[test]
fn nonblocking_sockets_are_taken_and_nonsense_is_refused() {
    in_each_tier(|tier| {
        let mut uring = Uring::new(tier).unwrap();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let id = uring.attach(ours.into()).unwrap();
        let pipe = uring.attach(std::io::pipe().unwrap().0.into()).unwrap();
        uring.submit().unwrap();
        peer.write_all(b"x").unwrap();
        let mut log = Log::default();
        log.until(&mut uring, |log| {
            log.received(id) == b"x" && log.failed.iter().any(|(failed, _)| *failed == pipe)
        });
    });
    let nonsense = Settings {
        buffers: 3,
        ..Settings::default()
    };
    assert!(Uring::with_settings(Tier::Multishot, nonsense).is_err());
}
