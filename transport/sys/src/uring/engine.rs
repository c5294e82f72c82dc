//! The engine: sockets in a table, a list of those that want something, one submission for all.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::buffers::Buffers;
use super::operation::Operation;
use super::socket::{COALESCE_BYTES, Inbox, Socket};
use super::table::Table;
use super::{Completion, Settings, SocketId, Tier, setup};
use crate::{Error, NotInChildren};

/// The most entries that one socket adds to a submission.
const ENTRIES_PER_SOCKET: usize = 2;
/// Sent buffers kept for use again.
const SPARE_BUFFERS: usize = 32;
/// How long a dropped engine waits for the kernel to let go of its buffers before it leaks them.
const DROP_PATIENCE: Duration = Duration::from_secs(2);

/// An io_uring that owns stream sockets. `Send`: use it from any thread, under a lock.
///
/// The driver's turn is: [`reap`](Self::reap), act on what came, [`submit`](Self::submit); then
/// wait for the descriptor to become readable. Edge-triggered reactors wait only once
/// [`has_completions`](Self::has_completions) says no.
///
/// ```
/// use ringway_sys::uring::{Completion, Support, Uring};
/// use std::{io::{Read, Write}, os::unix::net::UnixStream, time::Duration};
///
/// let Some(tier) = Support::probe().tier() else { return Ok(()) }; // refused here
/// let mut uring = Uring::new(tier)?;
/// let (socket, mut peer) = UnixStream::pair()?;
/// let id = uring.attach(socket.into())?;
/// uring.send(id, b"hello".to_vec())?;
/// uring.submit()?;
///
/// let mut hello = [0; 5];
/// peer.read_exact(&mut hello)?;
/// peer.write_all(&hello)?;
///
/// let mut answer = Vec::new();
/// while answer.len() < 5 {
///     uring.wait(Duration::from_secs(1))?;
///     uring.reap(|completion| {
///         if let Completion::Received { data, .. } = completion {
///             answer.extend_from_slice(data);
///         }
///     });
///     uring.submit()?;
/// }
/// assert_eq!(answer, b"hello");
/// # Ok::<(), ringway_sys::Error>(())
/// ```
pub struct Uring {
    /// The ring's own descriptor; dropped by hand, before the ring.
    not_in_children: ManuallyDrop<NotInChildren>,
    /// Dropped by hand, before the memory that it was told of.
    ring: ManuallyDrop<IoUring>,
    memory: ManuallyDrop<Memory>,
    settings: Settings,
    tier: Tier,
    /// Sockets to look at in the next submission.
    listed: VecDeque<u32>,
    /// Receives and sends whose last completion has not been seen.
    in_flight: usize,
    spare: Vec<Vec<u8>>,
}

/// What the kernel reads from and writes to.
struct Memory {
    sockets: Table,
    /// For [`Tier::Multishot`].
    buffers: Option<Buffers>,
}

impl Uring {
    /// An engine of this tier with default sizes. That it can be made does not mean that the tier
    /// works here: [`Support::probe`](super::Support::probe) tells.
    ///
    /// # Errors
    /// [`Error::UringRefused`] with EPERM, ENOSYS, ENOMEM, or EINVAL on an older kernel.
    pub fn new(tier: Tier) -> Result<Self, Error> {
        Self::with_settings(tier, Settings::default())
    }

    /// The same with chosen sizes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_settings(tier: Tier, settings: Settings) -> Result<Self, Error> {
        let ring = setup::create(&settings).map_err(Error::UringRefused)?;
        let buffers = match tier {
            Tier::Multishot => {
                Some(Buffers::register(&ring, &settings).map_err(Error::UringRefused)?)
            }
            Tier::Single => None,
        };
        // SAFETY: the ring is open, and is so when the note is dropped.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        Ok(Self {
            not_in_children: ManuallyDrop::new(NotInChildren::note(&descriptor)),
            ring: ManuallyDrop::new(ring),
            memory: ManuallyDrop::new(Memory {
                sockets: Table::default(),
                buffers,
            }),
            settings,
            tier,
            listed: VecDeque::new(),
            in_flight: 0,
            spare: Vec::new(),
        })
    }

    /// How this engine receives.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Returns true in a forked child of the process that made it: nothing else may be asked of it there.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.not_in_children.is_inherited()
    }

    /// Receives and sends that the kernel has not finished with.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many bytes queued for this socket the kernel has not taken yet; 0 if it was detached.
    #[must_use]
    pub fn backlog_bytes(&self, id: SocketId) -> usize {
        self.memory.sockets.get(id).map_or(0, Socket::backlog_bytes)
    }

    /// Whether completions wait to be reaped: a look at shared memory, no system call.
    pub fn has_completions(&mut self) -> bool {
        if !self.ring.completion().is_empty() {
            return true;
        }
        let submission = self.ring.submission();
        submission.cq_overflow() || submission.taskrun()
    }

    /// Takes a connected stream socket, and receives from it from the next submission on.
    ///
    /// Clears its `O_NONBLOCK`: on a non-blocking socket the kernel would answer EAGAIN instead of
    /// waiting.
    ///
    /// # Errors
    /// The flags could not be changed; or there are 2^24 sockets.
    pub fn attach(&mut self, socket: OwnedFd) -> Result<SocketId, Error> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&socket, flags - OFlags::NONBLOCK)?;
        }
        let inbox = match self.tier {
            Tier::Multishot => Inbox::Shared,
            Tier::Single => Inbox::Own(vec![0; self.settings.buffer_len as usize]),
        };
        let id = self.memory.sockets.insert(socket, inbox)?;
        self.list(id.slot);
        Ok(id)
    }

    /// Lets go of a socket: no more completions of it. Its connection is shut down at once, what
    /// is queued is dropped, and the descriptor is closed when the kernel has let go of it, which
    /// the next [`submit`](Self::submit) sees to. An id that is no longer known is ignored.
    pub fn detach(&mut self, id: SocketId) {
        let Some(socket) = self.memory.sockets.get_mut(id) else {
            return;
        };
        socket.let_go();
        if socket.is_idle() {
            self.memory.sockets.remove(id.slot);
        } else {
            self.list(id.slot);
        }
    }

    /// Queues bytes behind those queued before. What is queued by the next submission goes in one
    /// operation, as far as sensible; a short send is continued.
    ///
    /// The queue has no bound of its own: see [`backlog_bytes`](Self::backlog_bytes).
    ///
    /// # Errors
    /// [`Error::UnknownSocket`], [`Error::SocketEnded`] after `Failed`.
    pub fn send(&mut self, id: SocketId, bytes: Vec<u8>) -> Result<(), Error> {
        let copied = self.sendable(id)?.enqueue(bytes);
        if let Some(copied) = copied {
            self.recycle(copied);
        }
        self.list(id.slot);
        Ok(())
    }

    /// Queues a copy of these bytes, in a buffer that is used again.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_slice(&mut self, id: SocketId, bytes: &[u8]) -> Result<(), Error> {
        // Popped here, since the socket borrows the engine; it goes back if it was not needed.
        let mut fresh = Some(self.spare.pop().unwrap_or_default());
        self.sendable(id)?
            .enqueue_slice(bytes, || fresh.take().unwrap_or_default());
        self.spare.extend(fresh);
        self.list(id.slot);
        Ok(())
    }

    /// Hands everything that is queued to the kernel: receives to arm, sends, cancellations. One
    /// system call as long as it fits the submission queue, none if nothing is queued.
    ///
    /// # Errors
    /// EAGAIN when the kernel is short of memory: what was not taken goes with the next submission.
    pub fn submit(&mut self) -> Result<(), Error> {
        while let Some(slot) = self.listed.front().copied() {
            if self.room() < ENTRIES_PER_SOCKET {
                self.enter()?;
                if self.room() < ENTRIES_PER_SOCKET {
                    return Ok(()); // the completion queue has to be reaped first
                }
            }
            self.listed.pop_front();
            self.push_wishes(slot);
        }
        self.enter()
    }

    /// Calls `deliver` for what has completed, and returns how many completions there were. Makes
    /// no system call unless the completion queue overflowed. One call handles what waits at its
    /// start and no more, so a flood cannot hold the caller. Follow it by [`submit`](Self::submit),
    /// which arms receives again.
    pub fn reap(&mut self, mut deliver: impl FnMut(Completion<'_>)) -> usize {
        if self.ring.completion().is_empty() && self.ring.submission().cq_overflow() {
            // Nothing to do about an error here: the overflow stays, and so does has_completions.
            let _ = self.flush();
        }
        let waiting = self.ring.completion().len();
        for _ in 0..waiting {
            // One at a time: should `deliver` panic, the others are still in the queue.
            let Some(entry) = self.ring.completion().next() else {
                break;
            };
            self.complete(&entry, &mut deliver);
        }
        waiting
    }

    /// Lets the kernel bring out completions that it holds back (overflow, pending task work),
    /// without waiting for any: for a caller that spins.
    ///
    /// # Errors
    /// The system call's.
    pub fn flush(&mut self) -> io::Result<()> {
        const GETEVENTS: u32 = 1;
        // SAFETY: submits nothing and passes no argument; the kernel only moves completions.
        let result = unsafe {
            self.ring
                .submitter()
                .enter::<libc::sigset_t>(0, 0, GETEVENTS, None)
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Submits, then waits until completions wait, and tells whether they do. For tests and
    /// threads of their own; a reactor waits for the descriptor.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        self.submit()?;
        if self.has_completions() {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let ring = self.as_fd();
        match rustix::event::poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&timeout)) {
            // Completions arrive as work for this thread, which interrupts its waiting.
            Ok(_) | Err(Errno::INTR) => Ok(self.has_completions()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sendable(&mut self, id: SocketId) -> Result<&mut Socket, Error> {
        let socket = self
            .memory
            .sockets
            .get_mut(id)
            .ok_or(Error::UnknownSocket)?;
        if socket.broken {
            return Err(Error::SocketEnded);
        }
        Ok(socket)
    }

    fn list(&mut self, slot: u32) {
        if let Some(socket) = self.memory.sockets.at(slot)
            && !std::mem::replace(&mut socket.listed, true)
        {
            self.listed.push_back(slot);
        }
    }

    fn room(&mut self) -> usize {
        let submission = self.ring.submission();
        submission.capacity() - submission.len()
    }

    /// Queues what this socket wants; there is room for it.
    fn push_wishes(&mut self, slot: u32) {
        let Some(socket) = self.memory.sockets.at(slot) else {
            return; // detached since, and gone
        };
        socket.listed = false;
        let receive = socket.wants_receive().then(|| socket.start_receive());
        let send = socket.wants_send().then(|| socket.start_send());
        let started = usize::from(receive.is_some()) + usize::from(send.is_some());
        // Only a detached socket cancels, and it wants nothing else: two entries at most.
        let cancels = socket.start_cancel();
        self.in_flight += started;
        for entry in [receive, send].into_iter().chain(cancels).flatten() {
            self.push(&entry);
        }
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: the buffers that a receive or send points to belong to a `Socket` in the table or
        // to `buffers`; neither is moved, changed or dropped while the operation is in flight:
        // `remove` waits for `is_idle`, `drop` for `in_flight` to fall to 0, and leaks otherwise.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok(), "callers make room first");
    }

    /// One system call for all queued entries; none if there are none.
    fn enter(&mut self) -> Result<(), Error> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The completion queue is full: readable, so the driver will be back.
                    Some(libc::EBUSY) => return Ok(()),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn complete(&mut self, entry: &cqueue::Entry, deliver: &mut dyn FnMut(Completion<'_>)) {
        let Some((operation, id)) = Operation::from_user_data(entry.user_data()) else {
            return;
        };
        // Before the callback, which may panic.
        if !cqueue::more(entry.flags()) {
            self.list(id.slot);
        }
        match operation {
            Operation::Receive => self.complete_receive(id, entry, deliver),
            Operation::Send => self.complete_send(id, entry.result(), deliver),
            // What was cancelled says so itself.
            Operation::Cancel => return,
        }
        self.settle(id);
    }

    fn complete_receive(
        &mut self,
        id: SocketId,
        entry: &cqueue::Entry,
        deliver: &mut dyn FnMut(Completion<'_>),
    ) {
        let Memory { sockets, buffers } = &mut *self.memory;
        let Some(socket) = sockets.at(id.slot) else {
            return;
        };
        if !cqueue::more(entry.flags()) {
            socket.receiving = false;
            self.in_flight -= 1;
        }
        let len = usize::try_from(entry.result());
        // Held even if nobody wants to hear of it: it has to be given back.
        let lease = cqueue::buffer_select(entry.flags())
            .zip(buffers.as_mut())
            .and_then(|(index, buffers)| buffers.lease(index, len.unwrap_or(0)));
        if socket.detached {
            return;
        }
        match (len, &socket.inbox, lease) {
            (Ok(0), _, _) => {
                socket.ended = true;
                deliver(Completion::Closed { id });
            }
            (Ok(_), Inbox::Shared, Some(lease)) => deliver(Completion::Received {
                id,
                data: lease.bytes(),
            }),
            (Ok(len), Inbox::Own(buffer), _) if len <= buffer.len() => {
                deliver(Completion::Received {
                    id,
                    data: &buffer[..len],
                });
            }
            (Err(_), _, _) if is_passing(entry.result()) => {}
            (result, _, _) => {
                socket.ended = true;
                let error = match result {
                    Err(_) => io::Error::from_raw_os_error(-entry.result()),
                    Ok(_) => io::Error::other("a receive without a buffer"),
                };
                fail(socket, error, deliver);
                // Sending may have failed before, and told of it: the end of receiving has its own.
                deliver(Completion::Closed { id });
            }
        }
    }

    fn complete_send(
        &mut self,
        id: SocketId,
        result: i32,
        deliver: &mut dyn FnMut(Completion<'_>),
    ) {
        let Some(socket) = self.memory.sockets.at(id.slot) else {
            return;
        };
        socket.sending = false;
        self.in_flight -= 1;
        let detached = socket.detached;
        match usize::try_from(result) {
            Ok(len) => {
                if let Some(buffer) = socket.advance(len) {
                    self.recycle(buffer);
                }
                if !detached {
                    deliver(Completion::Sent { id, len });
                }
            }
            Err(_) if detached || is_passing(result) => {}
            Err(_) => fail(socket, io::Error::from_raw_os_error(-result), deliver),
        }
    }

    /// After a completion: a detached socket may be gone now.
    fn settle(&mut self, id: SocketId) {
        let socket = self.memory.sockets.at(id.slot);
        if socket.is_some_and(|socket| socket.detached && socket.is_idle()) {
            self.memory.sockets.remove(id.slot);
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() <= COALESCE_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Ends everything in flight; false if the kernel would not let go.
    fn wind_down(&mut self) -> bool {
        for id in self.memory.sockets.ids() {
            self.detach(id);
        }
        let deadline = Instant::now() + DROP_PATIENCE;
        while self.in_flight > 0 && Instant::now() < deadline {
            // An error is given another chance until the deadline.
            let _ = self.wait(Duration::from_millis(20));
            self.reap(|_| {});
        }
        self.in_flight == 0
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.not_in_children.is_inherited() {
            // The ring is the parent's, and its memory is not here.
            return;
        }
        let quiet = self.wind_down();
        let taken_back = match &self.memory.buffers {
            Some(buffers) => buffers.unregister(&self.ring.submitter()).is_ok(),
            None => true,
        };
        // SAFETY: none is used again; the ring goes first, then what it was told of. Memory
        // that the kernel may still write to is leaked.
        unsafe {
            ManuallyDrop::drop(&mut self.not_in_children);
            ManuallyDrop::drop(&mut self.ring);
            if quiet && taken_back {
                ManuallyDrop::drop(&mut self.memory);
            }
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("tier", &self.tier)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Readable when completions wait.
impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor stays open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl AsRawFd for Uring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// Not the socket's fault, so the operation is simply started again: no buffer was free; a signal;
/// or the thread that submitted it has ended, which cancels what it left behind.
fn is_passing(result: i32) -> bool {
    matches!(-result, libc::ENOBUFS | libc::EINTR | libc::ECANCELED)
}

/// Says once that the socket broke.
fn fail(socket: &mut Socket, error: io::Error, deliver: &mut dyn FnMut(Completion<'_>)) {
    let news = !socket.broken;
    socket.give_up_sending();
    if news {
        deliver(Completion::Failed {
            id: socket.id,
            error,
        });
    }
}
