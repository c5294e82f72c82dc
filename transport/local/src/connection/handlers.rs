//! Futures that belong to a connection's calls (handlers of a server, request streams of a client): where
//! each runs, and the wakers that bring the inline ones back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Connection;
use crate::pace::Pace;

/// A future that does a call's work; what it comes to goes out through its [`crate::Call`].
pub type HandlerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// How often this thread woke a handler: tells such wakes from those of a runtime's tasks.
    static WAKES: Cell<u64> = const { Cell::new(0) };
}

/// Calls `waker`; true if it woke something else than a handler of a connection.
pub(crate) fn wakes_a_task(waker: Waker) -> bool {
    let before = WAKES.get();
    waker.wake();
    WAKES.get() == before
}

/// A future that is polled in passes, while it waits.
pub(crate) struct Inline {
    pub(crate) future: HandlerFuture,
    pub(crate) pace: Arc<Pace>,
    /// It came from outside of any runtime, and may be polled in each.
    pub(crate) anywhere: bool,
}

/// A call's future, kept for the call's end.
pub(crate) enum Work {
    Inline(Inline),
    Task(AbortOnDrop),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Inline(_) => "Inline",
            Self::Task(_) => "Task",
        })
    }
}

impl Work {
    /// Lets a task go on to its own end.
    pub(crate) fn let_go(self) {
        if let Self::Task(mut task) = self {
            task.0 = None;
        }
    }
}

/// Cancels a task, at its next yield at the latest, when its call is given up.
pub(crate) struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(Some(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The inline futures that want to be polled.
#[derive(Debug)]
pub(crate) struct Handlers {
    woken: Mutex<VecDeque<u32>>,
    any: AtomicBool,
    wakers: Wakers,
}

impl Handlers {
    pub(crate) fn new(connection: &Weak<Connection>) -> Self {
        Self {
            woken: Mutex::default(),
            any: AtomicBool::new(false),
            wakers: Wakers::new(connection),
        }
    }

    /// Returns true if a future waits to be polled.
    pub(crate) fn any_woken(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes the slot of a woken future. One at a time: a poll may block its thread, and the rest are then
    /// for another one.
    pub(crate) fn next_woken(&self) -> Option<u32> {
        if !self.any_woken() {
            return None;
        }
        let mut woken = self.woken.lock();
        let next = woken.pop_front();
        if woken.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        next
    }

    /// Has the future in `slot` polled in the next pass.
    pub(crate) fn wake(&self, slot: u32) {
        let mut woken = self.woken.lock();
        woken.push_back(slot);
        self.any.store(true, Ordering::Release);
    }

    /// The waker of the future in `slot`; one for all calls that ever use the slot.
    pub(crate) fn waker(&self, slot: u32) -> &Waker {
        self.wakers.of(slot)
    }
}

/// Wakers in the first segment; each further one has twice as many.
const FIRST_SEGMENT: u32 = 16;
const SEGMENTS: usize = 28;

/// A waker for each slot. Segments that never move, so that any thread may borrow one without a lock.
#[derive(Debug)]
struct Wakers {
    connection: Weak<Connection>,
    segments: [OnceLock<Box<[Waker]>>; SEGMENTS],
}

impl Wakers {
    fn new(connection: &Weak<Connection>) -> Self {
        Self {
            connection: Weak::clone(connection),
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    fn of(&self, slot: u32) -> &Waker {
        let place = slot.saturating_add(FIRST_SEGMENT);
        let segment = place.ilog2() - FIRST_SEGMENT.ilog2();
        let len = FIRST_SEGMENT << segment;
        let wakers = self.segments[segment as usize].get_or_init(|| self.segment(len));
        &wakers[(place - len) as usize]
    }

    /// The segment of `len` wakers, which begins at slot `len - FIRST_SEGMENT`.
    #[cold]
    fn segment(&self, len: u32) -> Box<[Waker]> {
        let first = len - FIRST_SEGMENT;
        let waker = |slot| {
            Waker::from(Arc::new(HandlerWaker {
                slot,
                connection: Weak::clone(&self.connection),
            }))
        };
        (first..first + len).map(waker).collect()
    }
}

struct HandlerWaker {
    slot: u32,
    connection: Weak<Connection>,
}

impl Wake for HandlerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WAKES.set(WAKES.get().wrapping_add(1));
        if let Some(connection) = self.connection.upgrade() {
            connection.handlers.wake(self.slot);
            connection.mark_ready();
        }
    }
}
