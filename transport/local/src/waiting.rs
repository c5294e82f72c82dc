//! Whether and how long to look at a ring before sleeping.
//!
//! Waking a sleeping thread on another core costs 35 µs or more, a hundred times a call, so it pays
//! to look a while longer. But whoever looks holds a core that the answer may need. So looking is
//! one budget of the process: nobody looks on one CPU, on a current-thread runtime, inside a
//! driver's pass, or while the machine has more runnable threads than CPUs; and each place that
//! waits learns whether its looks pay, and errs towards sleeping.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_sys::schedule::{RunnableThreads, cpu_quota, online_cpus};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::link::stream::later::flush_now;

/// The longest look, a little more than what waking the other side costs.
const LONG_LOOK: Duration = Duration::from_micros(60);
/// The look of a place whose looks did not pay lately: catches a peer that answers at once.
const SHORT_LOOK: Duration = Duration::from_micros(3);
/// How long a reading of the machine's run queue is believed.
const SAMPLE_EVERY_NS: u64 = 1_000_000;
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 256;
/// Misses in a row after which a place stops looking long.
const MISSES_BEFORE_SHORT: u32 = 3;
/// How often such a place tries a long look again.
const PROBE_EVERY: u32 = 16;

struct Machine {
    cpus: u32,
    /// Looking can never pay: one CPU, or a quota below one.
    hopeless: bool,
    runnable: Option<RunnableThreads>,
    crowded: AtomicBool,
    sampled_at_ns: AtomicU64,
    epoch: Instant,
}

impl Machine {
    fn get() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| {
            let cpus = u32::try_from(online_cpus()).unwrap_or(u32::MAX);
            Self {
                cpus,
                hopeless: cpus < 2 || cpu_quota().is_some_and(|quota| quota < 1.0),
                runnable: RunnableThreads::open().ok(),
                crowded: AtomicBool::new(false),
                sampled_at_ns: AtomicU64::new(0),
                epoch: Instant::now(),
            }
        })
    }

    fn is_crowded(&self, now: Instant) -> bool {
        let now_ns = u64::try_from((now - self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let sampled_at_ns = self.sampled_at_ns.load(Ordering::Relaxed);
        if now_ns.saturating_sub(sampled_at_ns) > SAMPLE_EVERY_NS
            && self
                .sampled_at_ns
                .compare_exchange(sampled_at_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let running = self.runnable.as_ref().and_then(|file| file.sample().ok());
            self.crowded.store(
                running.is_none_or(|running| running > self.cpus),
                Ordering::Relaxed,
            );
        }
        self.crowded.load(Ordering::Relaxed)
    }
}

thread_local! {
    static IN_PASS: Cell<bool> = const { Cell::new(false) };
    static MAY_LOOK: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Marks this thread as being inside a driver's pass, where nobody may wait by looking.
pub(crate) struct Pass(bool);

impl Pass {
    pub(crate) fn enter() -> Self {
        Self(IN_PASS.replace(true))
    }
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

/// Whether the runtime of this thread has other threads that could answer while we look.
fn runtime_allows() -> bool {
    if let Some(known) = MAY_LOOK.get() {
        return known;
    }
    let allows = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() != RuntimeFlavor::CurrentThread);
    // A thread may enter another runtime later; only worker threads never do.
    if tokio::task::try_id().is_some() {
        MAY_LOOK.set(Some(allows));
    }
    allows
}

/// One place that waits, and what it has learnt.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    misses: AtomicU32,
}

impl Patience {
    /// How long to look now; `None` to sleep at once.
    pub(crate) fn look(&self, now: Instant) -> Option<Duration> {
        let machine = Machine::get();
        if machine.hopeless || in_pass() || !runtime_allows() || machine.is_crowded(now) {
            return None;
        }
        Some(self.learnt())
    }

    fn learnt(&self) -> Duration {
        let misses = self.misses.load(Ordering::Relaxed);
        if misses < MISSES_BEFORE_SHORT || misses.is_multiple_of(PROBE_EVERY) {
            LONG_LOOK
        } else {
            SHORT_LOOK
        }
    }

    /// Tells what a look came to.
    pub(crate) fn learn(&self, paid: bool) {
        let misses = self.misses.load(Ordering::Relaxed);
        let learnt = if paid {
            0
        } else {
            misses.wrapping_add(1).max(1)
        };
        if learnt != misses {
            self.misses.store(learnt, Ordering::Relaxed);
        }
    }
}

/// Looks until `found` or until `budget` has passed; true if found.
pub(crate) fn look_until(
    start: Instant,
    budget: Duration,
    mut found: impl FnMut() -> bool,
) -> bool {
    flush_now();
    loop {
        // No `spin_loop` hint: it costs 50 ns a look on current processors, more in a guest, and
        // whoever looks has a core to itself.
        for _ in 0..LOOKS_PER_READING {
            if found() {
                return true;
            }
        }
        if start.elapsed() > budget {
            return found();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_whose_looks_do_not_pay_looks_shortly_and_probes() {
        let patience = Patience::default();
        let looks: Vec<Duration> = (0..32)
            .map(|_| {
                let look = patience.learnt();
                patience.learn(false);
                look
            })
            .collect();
        assert_eq!(looks.iter().filter(|look| **look == LONG_LOOK).count(), 4);
        patience.learn(true);
        assert_eq!(patience.learnt(), LONG_LOOK);
    }

    #[test]
    fn nobody_looks_inside_a_pass_or_without_a_multi_thread_runtime() {
        assert_eq!(Patience::default().look(Instant::now()), None);
        let _pass = Pass::enter();
        assert_eq!(Patience::default().look(Instant::now()), None);
    }
}
