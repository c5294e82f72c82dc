//! Polling a ring instead of parking: where it is possible at all, and the loop itself. How long is decided in
//! [`spin`](crate::spin).
//!
//! No thread polls on one CPU, on a current-thread runtime, or inside a driver's pass.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ringway_sys::schedule::{cpu_quota, online_cpus};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::link::stream::later::flush_now;
use crate::spin::Outcome;

/// The longest look that goes on because a large message arrives part by part.
const LONGEST_LOOK: Duration = Duration::from_millis(2);
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 256;

/// Returns true if polling can pay on this machine: not on one CPU, nor under a quota below one.
fn machine_allows() -> bool {
    static ALLOWS: OnceLock<bool> = OnceLock::new();
    *ALLOWS.get_or_init(|| online_cpus() >= 2 && cpu_quota().is_none_or(|quota| quota >= 1.0))
}

/// Returns true if this thread may poll.
pub(crate) fn may_spin() -> bool {
    machine_allows() && !in_pass() && runtime_allows()
}

thread_local! {
    static IN_PASS: Cell<bool> = const { Cell::new(false) };
    static YIELDED_CPU: Cell<bool> = const { Cell::new(false) };
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
    static HAS_WORKERS: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Marks this thread as being inside a driver's pass, where nobody may wait by looking.
pub(crate) struct Pass(bool);

impl Pass {
    pub(crate) fn enter() -> Self {
        let within = IN_PASS.replace(true);
        if !within {
            YIELDED_CPU.set(false);
        }
        Self(within)
    }
}

/// Returns true if this thread is inside a driver's pass in which it has not yielded its CPU yet.
pub(crate) fn may_yield_cpu() -> bool {
    in_pass() && !YIELDED_CPU.get()
}

/// Yields this thread's CPU, and tells how long that took.
pub(crate) fn yield_cpu() -> Duration {
    YIELDED_CPU.set(true);
    let began = Instant::now();
    rustix::thread::sched_yield();
    began.elapsed()
}

impl Drop for Pass {
    fn drop(&mut self) {
        IN_PASS.set(self.0);
        if !self.0 {
            flush_now();
        }
    }
}

/// Whether this thread is inside a driver's pass.
pub(crate) fn in_pass() -> bool {
    IN_PASS.get()
}

/// Marks this thread as one that does nothing but wait for one call. It may look, and at once: no
/// task waits for it.
#[derive(Debug)]
pub struct BlockedThread(bool);

impl BlockedThread {
    /// Until this is dropped.
    pub fn enter() -> Self {
        Self(BLOCKED.replace(true))
    }
}

impl Drop for BlockedThread {
    fn drop(&mut self) {
        BLOCKED.set(self.0);
    }
}

/// Whether this thread does nothing but wait.
pub(crate) fn is_blocked() -> bool {
    BLOCKED.get()
}

/// Whether the runtime of this thread has other threads that could answer while we look.
fn runtime_allows() -> bool {
    is_blocked() || has_workers()
}

/// Whether this thread's runtime has several workers.
pub(crate) fn has_workers() -> bool {
    if let Some(known) = HAS_WORKERS.get() {
        return known;
    }
    let several = Handle::try_current().is_ok_and(|handle| {
        handle.runtime_flavor() != RuntimeFlavor::CurrentThread
            && handle.metrics().num_workers() > 1
    });
    // A thread may enter another runtime later; only worker threads never do.
    if tokio::task::try_id().is_some() {
        HAS_WORKERS.set(Some(several));
    }
    several
}

/// Calls `waker` when this thread's runtime has run what is ready, and looked at its I/O. A plain wake of the
/// task that runs stirs another worker each time; this does so once for all that come back, if none is up.
/// Where there is no other, a plain wake does: tasks run in turn there, and a runtime of one thread forgets
/// what it has put off when it leaves `block_on`.
pub(crate) fn wake_later(waker: &Waker) {
    if !has_workers() {
        return waker.wake_by_ref();
    }
    // Polled once, it hands the waker to the scheduler, which wakes it when it runs out of tasks.
    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(waker));
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    /// Some of a large message, whose rest is on its way.
    Part,
    /// What was looked for.
    All,
}

impl From<bool> for Seen {
    fn from(all: bool) -> Self {
        match all {
            true => Self::All,
            false => Self::Nothing,
        }
    }
}

/// Looks until all is `seen` or until `budget` has passed since the last part.
pub(crate) fn look_until(
    start: Instant,
    budget: Duration,
    mut seen: impl FnMut() -> Seen,
) -> Outcome {
    flush_now();
    let mut until = start + budget;
    // What comes before the first reading came at once.
    let mut now = start;
    loop {
        // No `spin_loop` hint: it costs 50 ns a look on current processors, more in a guest, and
        // a thread that looks has a core to itself.
        for _ in 0..LOOKS_PER_READING {
            match seen() {
                Seen::All => return Outcome::Found(now - start),
                Seen::Part => until = (Instant::now() + budget).min(start + LONGEST_LOOK),
                Seen::Nothing => {}
            }
        }
        now = Instant::now();
        if now > until {
            return match seen() {
                Seen::All => Outcome::Found(now - start),
                Seen::Nothing | Seen::Part => Outcome::Missed,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long the machine keeps this thread from running meanwhile.
    #[test]
    fn parts_of_a_message_prolong_a_look_but_not_for_ever() {
        let (start, budget) = (Instant::now(), Duration::from_micros(50));
        let arrives_in_parts = || match start.elapsed() < 10 * budget {
            true => Seen::Part,
            false => Seen::All,
        };
        let found = look_until(start, budget, arrives_in_parts);
        assert!(matches!(found, Outcome::Found(_)));
        let start = Instant::now();
        assert_eq!(look_until(start, budget, || Seen::Nothing), Outcome::Missed);
        assert_eq!(look_until(start, budget, || Seen::Part), Outcome::Missed);
        assert!(start.elapsed() > LONGEST_LOOK);
    }

    #[test]
    fn no_thread_polls_inside_a_pass_or_without_a_multi_thread_runtime() {
        assert!(!may_spin());
        let _pass = Pass::enter();
        assert!(!may_spin());
    }
}
