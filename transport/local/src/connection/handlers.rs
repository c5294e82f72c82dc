//! Futures that belong to a connection's calls (handlers of a server, request streams of a
//! client), and the wakers that bring them back.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use super::Connection;

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

/// The handlers that want to be polled.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    woken: Mutex<Vec<u32>>,
    any: AtomicBool,
}

impl Handlers {
    /// Whether a handler waits to be polled.
    pub(crate) fn any_woken(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Moves the woken ones' slots into `slots`.
    pub(crate) fn take_woken(&self, slots: &mut Vec<u32>) {
        let mut woken = self.woken.lock();
        self.any.store(false, Ordering::Release);
        std::mem::swap(&mut *woken, slots);
    }

    /// Has the handler in `slot` polled in the next pass.
    pub(crate) fn wake(&self, slot: u32) {
        self.woken.lock().push(slot);
        self.any.store(true, Ordering::Release);
    }
}

/// A waker for each slot.
#[derive(Debug)]
pub(crate) struct Wakers {
    connection: Weak<Connection>,
    wakers: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn new(connection: &Weak<Connection>) -> Self {
        Self {
            connection: Weak::clone(connection),
            wakers: Vec::new(),
        }
    }

    /// The waker of the handler in `slot`; one for all calls that ever use the slot.
    pub(crate) fn of(&mut self, slot: u32) -> &Waker {
        while self.wakers.len() <= slot as usize {
            let number = u32::try_from(self.wakers.len()).unwrap_or(u32::MAX);
            self.wakers.push(Waker::from(Arc::new(HandlerWaker {
                slot: number,
                connection: Weak::clone(&self.connection),
            })));
        }
        &self.wakers[slot as usize]
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
