//! The descriptor that wakes a sleeping connection, and only a sleeping one.
//!
//! A runtime's reactor keeps a socket registered for good, so each message would wake a thread of
//! the runtime, also while another one is looking at the socket. So the socket stands in an epoll
//! set of its own, the reactor watches that set, and the set listens while somebody sleeps.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

#[derive(Debug)]
pub(super) struct Bell {
    set: Arc<OwnedFd>,
    source: Arc<OwnedFd>,
    wishes: Mutex<Wishes>,
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
    pub(super) fn new(source: Arc<OwnedFd>) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, &source, EventData::new_u64(0), EventFlags::empty())?;
        Ok(Self {
            set: Arc::new(set),
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
        let mut events = [MaybeUninit::<Event>::uninit()];
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
        wishes.told = flags;
        // Told anew, the kernel looks by itself whether the socket is ready now.
        if let Err(error) = epoll::modify(&self.set, &self.source, EventData::new_u64(0), flags) {
            tracing::warn!(%error, "a socket's epoll set can't be changed");
        }
    }
}
