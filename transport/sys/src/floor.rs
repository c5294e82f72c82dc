//! What the bare mechanisms cost on this machine: 64 bytes to another process and back.
//!
//! The floor under any transport that uses them, for comparison only: nothing here is a transport.
//! The parent [`prepare`]s a mechanism, starts the child with [`ChildEnd::spawn`], and times
//! [`ParentEnd::round_trip`]s; the child does [`ChildEnd::from_stdin`] and
//! [`ChildEnd::echo_until_closed`]. Mechanisms that carry no bytes of their own (eventfd, futex,
//! signal) announce bytes that lie in shared memory. Where a wait could go on for ever after the
//! other side's death, it is cut into steps, and between them a socket tells whether it still lives.

mod event;
mod futex;
mod page;
mod queue;
mod signal;
mod spin;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Error;
use crate::descriptors::{
    Blocking, MAX_DESCRIPTORS, receive_with_descriptors, send_with_descriptors,
};

/// What goes there and back.
pub type Message = [u8; MESSAGE_BYTES];

const MESSAGE_BYTES: usize = 64;
/// Between two looks at whether the other side lives.
const STEP: Duration = Duration::from_millis(100);
/// For the whole of a round trip; the child may have to start first.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way for two processes to tell each other something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Words in shared memory that both sides look at without pause.
    Spin,
    /// A semaphore in shared memory.
    Futex,
    /// A counter in the kernel.
    EventFd,
    /// Two pipes.
    Pipe,
    /// A Unix stream socket.
    Unix,
    /// A TCP connection over loopback, TCP_NODELAY set.
    Tcp,
    /// Two POSIX message queues.
    Mqueue,
    /// Realtime signals to waiting threads.
    Signal,
}

impl Mechanism {
    /// All of them, the cheapest first.
    pub const ALL: [Self; 8] = [
        Self::Spin,
        Self::Futex,
        Self::EventFd,
        Self::Pipe,
        Self::Unix,
        Self::Tcp,
        Self::Mqueue,
        Self::Signal,
    ];

    /// Its name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Futex => "futex",
            Self::EventFd => "eventfd",
            Self::Pipe => "pipe",
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Mqueue => "mqueue",
            Self::Signal => "signal",
        }
    }

    /// The parent's link, and the descriptors that the child makes its own of.
    fn open(self) -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
        match self {
            Self::Spin => spin::open(),
            Self::Futex => futex::open(),
            Self::EventFd => event::open(),
            Self::Pipe => stream::open_pipe(),
            Self::Unix => stream::open_unix(),
            Self::Tcp => stream::open_tcp(),
            Self::Mqueue => queue::open(),
            Self::Signal => signal::open(),
        }
    }

    fn join(self, descriptors: Vec<OwnedFd>) -> io::Result<Box<dyn Link>> {
        match self {
            Self::Spin => spin::join(descriptors),
            Self::Futex => futex::join(descriptors),
            Self::EventFd => event::join(descriptors),
            Self::Pipe | Self::Unix | Self::Tcp => stream::join(descriptors),
            Self::Mqueue => queue::join(descriptors),
            Self::Signal => signal::join(descriptors),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
            .ok_or_else(|| Error::UnknownMechanism(name.to_owned()))
    }
}

/// One side of a mechanism.
trait Link: Send {
    /// Sends a message; the other side has taken the one before.
    fn send(&mut self, message: &Message) -> io::Result<()>;

    /// Waits for a message; `None` after about `step`. A mechanism that notices the other side's
    /// end by itself waits for as long as it takes.
    fn receive(&mut self, step: Duration) -> io::Result<Option<Message>>;
}

/// Sets a mechanism up for two processes, or two threads.
///
/// # Errors
/// The mechanism's own: EMFILE, ENOSYS where a kernel leaves message queues out, and so on.
///
/// ```
/// use ringway_sys::floor::{Mechanism, prepare};
/// let (mut parent, child) = prepare(Mechanism::Pipe)?;
/// let echo = std::thread::spawn(|| child.echo_until_closed());
/// assert_eq!(parent.round_trip(&[7; 64])?, [7; 64]);
/// drop(parent);
/// echo.join().unwrap()?;
/// # std::io::Result::Ok(())
/// ```
pub fn prepare(mechanism: Mechanism) -> io::Result<(ParentEnd, ChildEnd)> {
    let (link, descriptors) = mechanism.open()?;
    let (lifeline, child) = UnixStream::pair()?;
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    send_with_descriptors(lifeline.as_fd(), b"d", &borrowed, Blocking::AsSocket)?;
    let parent = ParentEnd { link, lifeline };
    let child = ChildEnd {
        mechanism,
        lifeline: child,
    };
    Ok((parent, child))
}

/// The side that asks.
pub struct ParentEnd {
    link: Box<dyn Link>,
    /// The child ends when this closes.
    lifeline: UnixStream,
}

impl ParentEnd {
    /// Sends 64 bytes to the child and waits for them to come back.
    ///
    /// [`Mechanism::Signal`] blocks a realtime signal in the calling thread, and leaves it blocked.
    ///
    /// # Errors
    /// The child has ended, or did not answer for ten seconds.
    pub fn round_trip(&mut self, message: &Message) -> io::Result<Message> {
        self.link.send(message)?;
        receive(&mut *self.link, &self.lifeline, Some(PATIENCE))
    }
}

/// The side that answers. Holds what the child needs in a socket, which becomes its standard input.
pub struct ChildEnd {
    mechanism: Mechanism,
    lifeline: UnixStream,
}

impl ChildEnd {
    /// Starts `command` with the mechanism's name as one more argument, and this as its standard
    /// input. The process ends by itself once the [`ParentEnd`] is dropped or its process has died.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn spawn(self, mut command: Command) -> io::Result<Child> {
        command
            .arg(self.mechanism.name())
            .stdin(Stdio::from(OwnedFd::from(self.lifeline)))
            .spawn()
    }

    /// In the child: what [`spawn`](Self::spawn) handed over.
    ///
    /// # Errors
    /// No descriptor is free. That standard input is something else shows when it is used.
    pub fn from_stdin(mechanism: Mechanism) -> io::Result<Self> {
        let lifeline = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self {
            mechanism,
            lifeline: lifeline.into(),
        })
    }

    /// Sends back what comes until the parent lets go.
    ///
    /// # Errors
    /// What the parent handed over is not what the mechanism needs, or the mechanism failed.
    pub fn echo_until_closed(self) -> io::Result<()> {
        let received = receive_with_descriptors(
            self.lifeline.as_fd(),
            &mut [0; 1],
            MAX_DESCRIPTORS,
            Blocking::AsSocket,
        )?;
        let mut link = self.mechanism.join(received.descriptors)?;
        loop {
            let echoed =
                receive(&mut *link, &self.lifeline, None).and_then(|message| link.send(&message));
            match echoed {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn receive(
    link: &mut dyn Link,
    lifeline: &UnixStream,
    patience: Option<Duration>,
) -> io::Result<Message> {
    if let Some(message) = link.receive(STEP)? {
        return Ok(message);
    }
    let start = Instant::now();
    loop {
        if let Some(message) = link.receive(STEP)? {
            return Ok(message);
        }
        if has_ended(lifeline)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if patience.is_some_and(|patience| start.elapsed() > patience) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn has_ended(lifeline: &UnixStream) -> io::Result<bool> {
    Ok(poll(lifeline, PollFlags::empty(), Duration::ZERO)?.contains(PollFlags::HUP))
}

/// What of `events` has come to pass within `timeout`; a signal counts as nothing.
fn poll(descriptor: &impl AsFd, events: PollFlags, timeout: Duration) -> io::Result<PollFlags> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut watched = [PollFd::new(descriptor, events)];
    match rustix::event::poll(&mut watched, Some(&timeout)) {
        Ok(_) => Ok(watched[0].revents()),
        Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
        Err(errno) => Err(errno.into()),
    }
}

/// The ways in which mechanisms say that the other side has gone.
fn is_closed(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionReset,
    ];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::ESRCH)
}

/// The child's descriptors, exactly as many as the mechanism takes.
fn exactly<const N: usize>(descriptors: Vec<OwnedFd>) -> io::Result<[OwnedFd; N]> {
    descriptors
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not this mechanism's input"))
}
