//! The descriptor that wakes a sleeping connection, and only a sleeping one.
//!
//! A runtime's reactor keeps a socket registered for good, so each message would wake a thread of
//! the runtime, also while another one is looking at the socket. So the socket (or both pipes)
//! stands in an epoll set of its own, the reactor watches that set, and the set listens while
//! somebody sleeps.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use ringway_sys::NotInChildren;
use rustix::event::Timespec;

use super::pipes::Pipes;
use crate::system::epoll::{self, CreateFlags, Event, EventData, EventFlags};

#[derive(Debug)]
pub(super) struct Bell {
    set: Arc<OwnedFd>,
    /// Of a descriptor of the bell's own, before that, so that it is dropped first: an io_uring in a child's hands
    /// keeps its sockets open.
    _not_in_children: Option<NotInChildren>,
    source: Source,
    wishes: Mutex<Wishes>,
}

/// What is listened to.
#[derive(Debug)]
pub(super) enum Source {
    Socket(Arc<OwnedFd>),
    Pipes(Arc<Pipes>),
}

impl Source {
    fn join(&self, set: &OwnedFd) -> rustix::io::Result<()> {
        let data = EventData::new_u64(0);
        match self {
            Self::Socket(socket) => epoll::add(set, socket, data, EventFlags::empty()),
            Self::Pipes(pipes) => pipes.join(set),
        }
    }

    /// Told anew, the kernel looks by itself whether what it listens for is there now.
    fn listen(
        &self,
        set: &OwnedFd,
        wanted: EventFlags,
        changed: EventFlags,
    ) -> rustix::io::Result<()> {
        let data = EventData::new_u64(0);
        match self {
            Self::Socket(socket) => epoll::modify(set, socket, data, wanted),
            Self::Pipes(pipes) => pipes.listen(set, wanted, changed),
        }
    }
}

#[derive(Debug, Default)]
struct Wishes {
    armed: bool,
    /// Frames wait for the socket to take them.
    room: bool,
    /// What the kernel was told last.
    told: EventFlags,
}

impl Bell {
    /// A bell that is not armed.
    pub(super) fn new(source: Source) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        source.join(&set)?;
        let not_in_children = match &source {
            Source::Socket(socket) => Some(NotInChildren::note(socket)),
            Source::Pipes(_) => None,
        };
        Ok(Self {
            set: Arc::new(set),
            _not_in_children: not_in_children,
            source,
            wishes: Mutex::default(),
        })
    }

    /// Readable while somebody is to be woken.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.set)
    }

    /// Takes note that it rang. Before that the kernel would not ring for the next event.
    pub(super) fn clear(&self) {
        // One for each of two pipes.
        let mut events = [MaybeUninit::<Event>::uninit(); 2];
        // It fails on a set that is none: impossible, it is ours.
        let _ = epoll::wait(&self.set, &mut events, Some(&Timespec::default()));
    }

    pub(super) fn arm(&self) {
        self.update(|wishes| wishes.armed = true);
    }

    pub(super) fn disarm(&self) {
        self.update(|wishes| wishes.armed = false);
    }

    pub(super) fn want_room(&self, room: bool) {
        self.update(|wishes| wishes.room = room);
    }

    fn update(&self, change: impl FnOnce(&mut Wishes)) {
        let mut wishes = self.wishes.lock();
        change(&mut wishes);
        let flags = match (wishes.armed, wishes.room) {
            (false, _) => EventFlags::empty(),
            (true, false) => EventFlags::ET | EventFlags::IN,
            (true, true) => EventFlags::ET | EventFlags::IN | EventFlags::OUT,
        };
        if flags == wishes.told {
            return;
        }
        let changed = flags.symmetric_difference(wishes.told);
        wishes.told = flags;
        if let Err(error) = self.source.listen(&self.set, flags, changed) {
            tracing::warn!(%error, "an epoll set can't be changed");
        }
    }
}
