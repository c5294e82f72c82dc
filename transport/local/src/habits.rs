//! Whether a task makes one call at a time, learnt from what it does.
//!
//! A task that awaits each call before it makes the next gains most if its call looks at the ring
//! at once. A task that sends several and then waits (`join!`) would be held up by that. Both look
//! alike from inside the first call, so it is learnt: tasks are told apart by their waker, and one
//! in a while a call of a lone task does not look, to see whether another follows it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::Waker;

/// Lone calls after which a task counts as one that makes one at a time.
const LONE_CALLS: u32 = 4;
/// Of so many lone calls one does not look.
const PROBE_EVERY: u32 = 8192;

/// What is known of the task that called last.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    task: AtomicUsize,
    lone_calls: AtomicU32,
}

impl Habits {
    /// Tells that a call is made, and whether others are active.
    pub(crate) fn note(&self, waker: &Waker, others_are_active: bool) {
        let task = waker.data() as usize;
        // Called with the connection's state locked, so a load and a store count well enough.
        let lone_calls = if self.task.load(Ordering::Relaxed) != task || others_are_active {
            self.task.store(task, Ordering::Relaxed);
            0
        } else {
            self.lone_calls.load(Ordering::Relaxed).wrapping_add(1)
        };
        self.lone_calls.store(lone_calls, Ordering::Relaxed);
    }

    /// Whether a first poll may look.
    pub(crate) fn is_alone(&self, waker: &Waker) -> bool {
        let calls = self.lone_calls.load(Ordering::Relaxed);
        self.task.load(Ordering::Relaxed) == waker.data() as usize
            && calls >= LONE_CALLS
            && !calls.is_multiple_of(PROBE_EVERY)
    }
}
