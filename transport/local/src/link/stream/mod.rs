//! Frames over a stream of bytes: a Unix stream socket, or two pipes.
//!
//! | file | holds |
//! | --- | --- |
//! | `parse` | frames out of bytes, however they were cut |
//! | `outbox` | frames that wait to be sent |
//! | `epoll` | the engine of nonblocking sends and receives |
//! | `uring` | the engine over io_uring; without its feature `no_uring` |
//! | `pipes` | the engine of two pipes |
//! | `bell` | the descriptor that wakes a sleeping connection, and only a sleeping one |
//! | `later` | sends that are put off, so that one carries many frames |
//!
//! A lone call is sent at once; what is sent while other calls are in flight waits until the tasks
//! that are ready now have run, and goes in one system call. A thread that begins to look sends first
//! what it has put off, so nobody waits for an answer to what was never sent.

mod bell;
mod epoll;
pub(crate) mod later;
mod outbox;
mod parse;
pub(crate) mod pipes;
#[cfg(test)]
mod tests;
#[cfg_attr(
    not(all(feature = "io-uring", target_os = "linux")),
    path = "no_uring.rs"
)]
mod uring;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use ringway_ring::BufferPool;
use ringway_sys::queued;

use self::bell::{Bell, Source};
use self::outbox::Outbox;
pub(crate) use self::parse::Parser;
use self::pipes::Pipes;
use super::{Frame, Judge, Limits, LinkError, Outgoing, Position};
use crate::config::SocketEngine;
use crate::connection::Connection;
use crate::error::Closed;
use crate::pace::beside_the_poll;

/// Receives of one look, at most: so one connection cannot starve another.
const MAX_RECEIVES: usize = 32;

/// What moves the bytes of a socket link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Nonblocking sends and receives, and epoll for who sleeps.
    Epoll,
    /// io_uring with standing receives (Linux 6.0).
    UringMultishot,
    /// io_uring with one receive at a time (Linux 5.7).
    UringSingle,
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Epoll => "epoll",
            Self::UringMultishot => "io_uring-multishot",
            Self::UringSingle => "io_uring-single",
        })
    }
}

/// One end of the link; its halves share it.
#[derive(Debug)]
pub(crate) struct Stream {
    mover: Mover,
    outbox: Mutex<Outbox>,
    inbox: Mutex<Inbox>,
    bell: Bell,
    /// The outbox holds something.
    dirty: AtomicBool,
    /// Somebody has been asked to flush later.
    deferred: AtomicBool,
    connection: OnceLock<Weak<Connection>>,
}

/// The engines.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one for each connection, on the heap already"
)]
enum Mover {
    Epoll(epoll::Socket),
    Uring(uring::Socket),
    Pipes(Arc<Pipes>),
}

/// What a try to receive came to.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    /// Nothing is there.
    Nothing,
    /// Something came, and all of it.
    All,
    /// Something came, and more may follow at once.
    MaybeMore,
    /// Nothing comes any more.
    Ended(Closed),
}

/// What has arrived and was not taken yet.
#[derive(Debug)]
struct Inbox {
    parser: Parser,
    /// Received by a look, to be parsed by the next pass.
    fresh: bool,
    /// There may be more, whatever the last receive said.
    unsure: bool,
    ended: Option<Closed>,
}

impl Stream {
    /// A link over `socket`, which does not block.
    ///
    /// # Errors
    /// The engine is refused; or descriptors have run out.
    pub(crate) fn new(socket: OwnedFd, engine: SocketEngine) -> io::Result<Arc<Self>> {
        let by_uring = match engine {
            SocketEngine::Epoll => false,
            SocketEngine::Uring => true,
            SocketEngine::Auto => uring::is_supported(),
        };
        if by_uring {
            let socket = uring::Socket::new(socket)?;
            let source = Source::Socket(Arc::new(socket.descriptor()?));
            return Self::assemble(Mover::Uring(socket), source);
        }
        let socket = epoll::Socket::new(socket);
        let source = Source::Socket(socket.descriptor());
        Self::assemble(Mover::Epoll(socket), source)
    }

    /// A link over two pipes.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub(crate) fn over_pipes(pipes: Pipes) -> io::Result<Arc<Self>> {
        let pipes = Arc::new(pipes);
        Self::assemble(Mover::Pipes(Arc::clone(&pipes)), Source::Pipes(pipes))
    }

    fn assemble(mover: Mover, source: Source) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            mover,
            bell: Bell::new(source)?,
            outbox: Mutex::default(),
            inbox: Mutex::new(Inbox {
                parser: Parser::new(BufferPool::default()),
                fresh: false,
                unsure: true,
                ended: None,
            }),
            dirty: AtomicBool::new(false),
            deferred: AtomicBool::new(false),
            connection: OnceLock::new(),
        }))
    }

    /// What moves the bytes of a socket; `None` for pipes.
    pub(crate) fn engine(&self) -> Option<Engine> {
        match &self.mover {
            Mover::Epoll(_) => Some(Engine::Epoll),
            Mover::Uring(socket) => Some(socket.engine()),
            Mover::Pipes(_) => None,
        }
    }

    /// Readable when a sleeping connection is to be woken.
    pub(crate) fn bell(&self) -> Arc<OwnedFd> {
        self.bell.descriptor()
    }

    /// Notes whom to tell of room.
    pub(crate) fn belongs_to(&self, connection: &Arc<Connection>) {
        self.connection.get_or_init(|| Arc::downgrade(connection));
        connection.mark_ready();
    }

    pub(crate) fn halves(self: &Arc<Self>) -> (Sender, Receiver, Watch) {
        (
            Sender(Arc::clone(self)),
            Receiver(Arc::clone(self)),
            Watch(Arc::clone(self)),
        )
    }

    /// Sends what waits, as far as the kernel takes it.
    fn flush(&self) {
        self.deferred.store(false, Ordering::SeqCst);
        if self.dirty.load(Ordering::SeqCst) {
            self.flush_outbox(self.outbox.lock());
        }
    }

    /// Something waits that nobody has been asked to send.
    fn is_stuck(&self) -> bool {
        self.dirty.load(Ordering::SeqCst) && !self.deferred.load(Ordering::SeqCst)
    }

    fn flush_outbox(&self, mut guard: MutexGuard<'_, Outbox>) {
        let outbox = &mut *guard;
        let arrived = beside_the_poll(|| match &self.mover {
            Mover::Epoll(socket) => {
                socket.flush(outbox);
                false
            }
            Mover::Uring(socket) => socket.flush(outbox),
            Mover::Pipes(pipes) => pipes.flush(outbox),
        });
        let waiting = outbox.len() > 0;
        self.dirty.store(waiting, Ordering::SeqCst);
        self.bell.want_room(waiting);
        let room_came = outbox.room_came();
        // The connection may end with our hold on it.
        drop(guard);
        if room_came || arrived {
            self.mark_ready();
        }
    }

    fn mark_ready(&self) {
        if let Some(connection) = self.connection.get().and_then(Weak::upgrade) {
            connection.mark_ready();
        }
    }

    fn receive_into(&self, inbox: &mut Inbox) -> bool {
        if inbox.ended.is_some() {
            return false;
        }
        let received = match &self.mover {
            Mover::Epoll(socket) => socket.receive(&mut inbox.parser),
            Mover::Uring(socket) => socket.receive(&mut inbox.parser),
            Mover::Pipes(pipes) => pipes.receive(&mut inbox.parser),
        };
        inbox.unsure = received == Received::MaybeMore;
        match received {
            Received::Nothing => return false,
            Received::All | Received::MaybeMore => {}
            Received::Ended(why) => inbox.ended = Some(why),
        }
        inbox.fresh = true;
        true
    }

    /// Tells the peer that nothing follows, whoever still holds the link.
    fn hang_up(&self) {
        self.flush();
        let mut outbox = self.outbox.lock();
        outbox.end(Closed::ByUs);
        match &self.mover {
            Mover::Epoll(socket) => socket.hang_up(),
            Mover::Uring(socket) => socket.hang_up(),
            Mover::Pipes(pipes) => pipes.hang_up(),
        }
    }

    /// What ended the link; `None` while that is being asked.
    fn explain(&self, why: &Closed) -> Option<Closed> {
        match &self.mover {
            Mover::Epoll(_) | Mover::Uring(_) => Some(why.clone()),
            Mover::Pipes(pipes) => pipes.explain(why),
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Stream>);

impl Sender {
    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        let mut outbox = self.0.outbox.lock();
        outbox.put(frame)?;
        self.0.dirty.store(true, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn wait_for_room(&mut self) -> bool {
        let mut outbox = self.0.outbox.lock();
        let (room, refused) = (outbox.wait_for_room(), outbox.was_refused());
        drop(outbox);
        if room && refused {
            // Another thread made room meanwhile: whatever waits for a pass has to get one.
            self.0.mark_ready();
        }
        room
    }

    /// Sends, now or with what follows: at once where this is the only call in flight.
    pub(crate) fn ring(&mut self, calls_in_flight: usize) {
        let stream = &self.0;
        let much = stream.outbox.lock().is_worth_sending();
        let in_pass = crate::waiting::in_pass();
        if much || (calls_in_flight <= 1 && !in_pass) {
            stream.flush();
        } else if !stream.deferred.swap(true, Ordering::SeqCst) {
            match in_pass {
                true => later::after_this_pass(stream),
                false => later::after_ready_tasks(stream),
            }
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position::Byte(self.0.outbox.lock().end_position())
    }

    /// Whether the kernel was never given all before `position`. Nothing is sent after the answer.
    pub(crate) fn was_not_sent(&mut self, position: u64) -> bool {
        let mut outbox = self.0.outbox.lock();
        outbox.end(Closed::PeerGone);
        !outbox.has_sent(position)
    }

    /// What the peer has received of the stream, if it has not received all.
    pub(crate) fn untaken(&self) -> Option<u64> {
        let queued = match &self.0.mover {
            Mover::Epoll(socket) => queued::in_socket(socket.descriptor()).unwrap_or(0),
            Mover::Uring(socket) => socket.queued(),
            Mover::Pipes(pipes) => pipes.queued(),
        };
        let outbox = self.0.outbox.lock();
        let taken = outbox.end_position() - outbox.len() as u64;
        (queued > 0 || outbox.len() > 0).then(|| taken.saturating_sub(queued))
    }

    pub(crate) fn is_drained(&self) -> bool {
        let kernel_has_it = match &self.0.mover {
            Mover::Epoll(_) | Mover::Pipes(_) => true,
            Mover::Uring(socket) => socket.is_drained(),
        };
        kernel_has_it && !self.0.dirty.load(Ordering::SeqCst)
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Stream>);

impl Receiver {
    /// A descriptor stirred: nothing is known of what the socket holds.
    pub(crate) fn stirred(&self) {
        self.0.bell.clear();
        self.0.inbox.lock().unsure = true;
    }

    /// Returns true if the next frame can only be judged once those that came are handled.
    pub(crate) fn has_more(&self) -> bool {
        self.0.inbox.lock().parser.is_held_up()
    }

    /// Has the receives that follow take little, or as much as any.
    pub(crate) fn be_brief(&mut self, brief: bool) {
        self.0.inbox.lock().parser.limits = Limits::of(brief);
    }

    /// Moves what has arrived into `frames`. The end is told once they are out.
    pub(crate) fn receive(
        &mut self,
        frames: &mut Vec<Frame>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Closed> {
        let stream = &self.0;
        let begin = frames.len();
        let mut inbox = stream.inbox.lock();
        inbox.fresh |= inbox.parser.is_held_up();
        let is_brief = inbox.parser.limits != Limits::USUAL;
        let receives = if is_brief { 1 } else { MAX_RECEIVES };
        for _ in 0..receives {
            if std::mem::take(&mut inbox.fresh) {
                inbox.parser.frames(frames, begin, judge)?;
                if inbox.parser.is_held_up() {
                    return Ok(());
                }
                if !inbox.unsure {
                    break;
                }
            }
            if !stream.receive_into(&mut inbox) {
                break;
            }
        }
        if std::mem::take(&mut inbox.fresh) {
            inbox.parser.frames(frames, begin, judge)?;
            if inbox.parser.is_held_up() {
                return Ok(());
            }
        }
        if let Some(why) = &inbox.ended {
            return match stream.explain(why) {
                Some(why) => Err(why),
                None => Ok(()),
            };
        }
        let more = inbox.unsure;
        drop(inbox);
        if more {
            stream.mark_ready();
        }
        // What was received may have told of room.
        stream.flush();
        Ok(())
    }
}

/// Looks without the connection's locks.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Stream>);

impl Watch {
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.0.engine()
    }

    /// One try to receive, after one to send what the kernel did not take.
    pub(crate) fn has_records(&self) -> bool {
        let stream = &self.0;
        if stream.is_stuck()
            && let Some(outbox) = stream.outbox.try_lock()
        {
            stream.flush_outbox(outbox);
        }
        let Some(mut inbox) = stream.inbox.try_lock() else {
            return false;
        };
        // What a pass has left comes first: received beside it, a peer that sends faster than it is read would fill memory
        // without end, all of which is moved with each receive.
        inbox.fresh || inbox.parser.is_held_up() || stream.receive_into(&mut inbox)
    }

    pub(crate) fn arm(&self) {
        if self.0.is_stuck() {
            self.0.flush();
        }
        if let Some(mut inbox) = self.0.inbox.try_lock() {
            inbox.parser.trim();
        }
        self.0.outbox.lock().trim();
        self.0.bell.arm();
    }

    pub(crate) fn disarm(&self) {
        self.0.bell.disarm();
    }

    pub(crate) fn hang_up(&self) {
        self.0.hang_up();
    }
}
