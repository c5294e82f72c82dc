//! Keeps a server answering while a handler blocks its thread.
//!
//! A worker of tokio's runtime that is given work by the reactor runs it before any worker looks at the
//! reactor again, and wakes another one only if there is more than one piece of it. So one handler that
//! blocks for good may leave nobody who hears of new connections, though other workers sleep. While calls
//! are in flight, a thread of the runtime's blocking pool looks now and then if handlers are being polled
//! and none comes to an end; then it gives the runtime a task of no content, for which a worker wakes that
//! attends to the reactor from then on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::spawn::Task;

/// How long all polls must take for a stall, and at most the double: a handler that computes for less is
/// nothing to wake a worker for.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The pause while a stall goes on: calls that come meanwhile may wait for so long, if further ones block.
const LONGEST_PAUSE: Duration = Duration::from_millis(80);
/// Without a call for so long, the thread ends.
const IDLE_PAUSES: u32 = 50;

/// The polls of one server's handlers.
#[derive(Debug, Default)]
pub(super) struct Polls {
    begun: AtomicU64,
    ended: AtomicU64,
    attended: AtomicBool,
}

/// A poll that goes on until this is dropped.
pub(super) struct Poll<'a>(&'a Polls);

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Polls {
    /// Begins a poll of user code.
    pub(super) fn begin(self: &Arc<Self>) -> Poll<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if !self.attended.load(Ordering::SeqCst) && !self.attended.swap(true, Ordering::SeqCst) {
            attend(self);
        }
        Poll(self)
    }

    fn so_far(&self) -> SoFar {
        // In this order: a poll that ends in between counts as one that goes on.
        let ended = self.ended.load(Ordering::SeqCst);
        let begun = self.begun.load(Ordering::SeqCst);
        SoFar { begun, ended }
    }

    /// Returns true if the thread that attends may end: no poll has begun since `known`.
    fn leave(&self, known: SoFar) -> bool {
        self.attended.store(false, Ordering::SeqCst);
        self.so_far() == known || self.attended.swap(true, Ordering::SeqCst)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SoFar {
    begun: u64,
    ended: u64,
}

/// Has a thread attend to the polls, where others than the blocked worker could go on.
fn attend(polls: &Arc<Polls>) {
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let several = runtime.runtime_flavor() == RuntimeFlavor::MultiThread
        && runtime.metrics().num_workers() > 1;
    if several {
        let (polls, at) = (Arc::downgrade(polls), runtime.clone());
        runtime.spawn_blocking(move || look_for_stalls(&polls, &at));
    }
}

fn look_for_stalls(polls: &Weak<Polls>, runtime: &Handle) {
    let (mut pause, mut known, mut idle) = (FIRST_PAUSE, SoFar::default(), 0);
    loop {
        std::thread::sleep(pause);
        let Some(polls) = polls.upgrade() else { return };
        let found = polls.so_far();
        let goes_on = found.begun != found.ended;
        if goes_on && found.ended == known.ended {
            let wakes_a_worker: Task = Box::pin(async {});
            drop(runtime.spawn(wakes_a_worker));
            pause = (2 * pause).min(LONGEST_PAUSE);
        } else {
            pause = FIRST_PAUSE;
        }
        idle = if goes_on || found != known {
            0
        } else {
            idle + 1
        };
        if idle == IDLE_PAUSES && polls.leave(found) {
            return;
        }
        known = found;
    }
}
