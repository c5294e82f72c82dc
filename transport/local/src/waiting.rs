//! Whether and how long to look at a ring before sleeping.
//!
//! Waking a sleeping thread on another core costs 35 µs or more, a hundred times a call, so it pays
//! to look a while longer. But whoever looks holds a core that the answer may need. So looking is
//! one budget of the process: nobody looks on one CPU, on a current-thread runtime, inside a
//! driver's pass, or long while others keep those who look waiting for a CPU; and each place that
//! waits learns whether its looks pay, and errs towards sleeping.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ringway_sys::schedule::{RunnableThreads, cpu_quota, online_cpus, run_delay, step_aside};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::link::stream::later::flush_now;

/// So many times in so short a time a client found its peer waiting for this very CPU: then it steps
/// aside, if another CPU may be free.
const CALLS_BEHIND_US: u32 = 16;
const BEHIND_US_WITHIN_NS: u64 = 1_000_000;
/// It does so once in this time: where it did not help, the scheduler knows better.
const STEP_ASIDE_EVERY_NS: u64 = 5_000_000;

/// The longest look, a little more than what waking the other side costs.
const LONG_LOOK: Duration = Duration::from_micros(60);
/// The longest that goes on because a large message arrives part by part.
const LONGEST_LOOK: Duration = Duration::from_millis(2);
/// The look of a place whose looks did not pay lately: catches a peer that answers at once.
const SHORT_LOOK: Duration = Duration::from_micros(5);
/// How often one who looks asks how long it had to wait for its CPU.
const SAMPLE_EVERY_NS: u64 = 2_000_000;
/// A reading older than this says nothing about now: the average begins anew.
const STALE_AFTER_NS: u64 = 20_000_000;
/// Fixed point of a share of time.
const ALL: u32 = 1 << 16;
/// How much of the share a new reading makes: 1 of so many parts.
const AVERAGED_OVER: u32 = 16;
/// Who looks is kept waiting for a larger share of the time: that is a crowd. Runnable threads of the
/// machine would tell less: whenever a runtime's worker finds a task after a search, it wakes another
/// worker, which stands in a queue for a slice and then finds nothing to do.
const CROWD: u32 = ALL / 4;
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
    /// The share of time for which those who look were kept waiting for a CPU, averaged over some thirty
    /// milliseconds.
    crowded: AtomicU32,
    sampled_at_ns: AtomicU64,
    behind_us: AtomicU32,
    behind_us_since_ns: AtomicU64,
    stepped_aside_at_ns: AtomicU64,
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
                crowded: AtomicU32::new(0),
                sampled_at_ns: AtomicU64::new(0),
                behind_us: AtomicU32::new(0),
                behind_us_since_ns: AtomicU64::new(0),
                stepped_aside_at_ns: AtomicU64::new(0),
                epoch: Instant::now(),
            }
        })
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from((now - self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn sample(&self) -> Option<u32> {
        self.runnable.as_ref().and_then(|file| file.sample().ok())
    }

    /// A client's peer waits for the client's CPU. When that goes on, the client moves to another: from
    /// then on both can look. Once in a while it costs nothing, so they sleep in turns.
    fn note_behind_us(&self, now: Instant) {
        let now_ns = self.nanos(now);
        let since_ns = self.behind_us_since_ns.load(Ordering::Relaxed);
        if now_ns.saturating_sub(since_ns) > BEHIND_US_WITHIN_NS {
            self.behind_us_since_ns.store(now_ns, Ordering::Relaxed);
            self.behind_us.store(1, Ordering::Relaxed);
            return;
        }
        let stepped_ns = self.stepped_aside_at_ns.load(Ordering::Relaxed);
        if self.behind_us.fetch_add(1, Ordering::Relaxed) >= CALLS_BEHIND_US
            && now_ns.saturating_sub(stepped_ns) > STEP_ASIDE_EVERY_NS
        {
            self.stepped_aside_at_ns.store(now_ns, Ordering::Relaxed);
            // One more than CPUs: all of them may well share this one.
            if self.sample().is_none_or(|running| running > self.cpus + 1) {
                return;
            }
            // Refused, they go on sleeping in turns.
            let _ = step_aside();
        }
    }

    /// Whether others keep those who look waiting for a CPU.
    fn is_crowded(&self, now: Instant) -> bool {
        let now_ns = self.nanos(now);
        let sampled_at_ns = self.sampled_at_ns.load(Ordering::Relaxed);
        let age_ns = now_ns.saturating_sub(sampled_at_ns);
        if age_ns > SAMPLE_EVERY_NS
            && self
                .sampled_at_ns
                .compare_exchange(sampled_at_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            && let Some(waited) = self.share_waited(now)
        {
            let share = match age_ns > STALE_AFTER_NS {
                true => waited / 2,
                false => averaged(self.crowded.load(Ordering::Relaxed), waited),
            };
            self.crowded.store(share, Ordering::Relaxed);
        }
        self.crowded.load(Ordering::Relaxed) > CROWD
    }

    /// For which share of the time since it last asked this thread waited for a CPU.
    fn share_waited(&self, now: Instant) -> Option<u32> {
        let Ok(waited) = run_delay() else {
            // Where the kernel does not tell, err towards sleeping.
            let too_many = self.sample().is_none_or(|running| running > self.cpus);
            return Some(if too_many { ALL } else { 0 });
        };
        let (then, waited_then) = WAITED.replace(Some((now, waited)))?;
        share_of(waited.saturating_sub(waited_then), now - then)
    }
}

/// Which share of `whole` a `part` is; none of nothing.
fn share_of(part: Duration, whole: Duration) -> Option<u32> {
    let share = (part.as_nanos() * u128::from(ALL)).checked_div(whole.as_nanos())?;
    Some(u32::try_from(share).unwrap_or(ALL).min(ALL))
}

/// The share after one more reading.
fn averaged(share: u32, reading: u32) -> u32 {
    share - share / AVERAGED_OVER + reading / AVERAGED_OVER
}

thread_local! {
    /// How long this thread had waited for a CPU when it last asked.
    static WAITED: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    static IN_PASS: Cell<bool> = const { Cell::new(false) };
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
    static HAS_WORKERS: Cell<Option<bool>> = const { Cell::new(None) };
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
fn has_workers() -> bool {
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

/// One place that waits, and what it has learnt.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    misses: AtomicU32,
}

impl Patience {
    /// How long to look now; `None` to sleep at once.
    pub(crate) fn look(&self, now: Instant) -> Option<Duration> {
        let machine = Machine::get();
        if machine.hopeless || in_pass() || !runtime_allows() {
            return None;
        }
        match machine.is_crowded(now) {
            true => self.learnt_in_a_crowd(),
            false => Some(self.learnt()),
        }
    }

    /// Where others want the CPU, a look may cost no more than the sleep that it saves, and is made
    /// only where the last one paid; now and then one finds out whether they would.
    fn learnt_in_a_crowd(&self) -> Option<Duration> {
        let misses = self.misses.load(Ordering::Relaxed);
        if misses == 0 || misses.is_multiple_of(PROBE_EVERY) {
            return Some(SHORT_LOOK);
        }
        self.misses.store(misses.wrapping_add(1), Ordering::Relaxed);
        None
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

/// A client found its peer waiting for this very CPU: to look would keep the peer from answering.
pub(crate) fn note_behind_us(now: Instant) {
    let machine = Machine::get();
    if !machine.hopeless && runtime_allows() {
        machine.note_behind_us(now);
    }
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

/// Looks until all is `seen` or until `budget` has passed since the last part; true if all is seen.
pub(crate) fn look_until(start: Instant, budget: Duration, mut seen: impl FnMut() -> Seen) -> bool {
    flush_now();
    let mut until = start + budget;
    loop {
        // No `spin_loop` hint: it costs 50 ns a look on current processors, more in a guest, and
        // whoever looks has a core to itself.
        for _ in 0..LOOKS_PER_READING {
            match seen() {
                Seen::All => return true,
                Seen::Part => until = (Instant::now() + budget).min(start + LONGEST_LOOK),
                Seen::Nothing => {}
            }
        }
        if Instant::now() > until {
            return seen() == Seen::All;
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

    /// However long the machine keeps this thread from running meanwhile.
    #[test]
    fn parts_of_a_message_prolong_a_look_but_not_for_ever() {
        let (start, budget) = (Instant::now(), Duration::from_micros(50));
        let arrives_in_parts = || match start.elapsed() < 10 * budget {
            true => Seen::Part,
            false => Seen::All,
        };
        assert!(look_until(start, budget, arrives_in_parts));
        let start = Instant::now();
        assert!(!look_until(start, budget, || Seen::Nothing));
        assert!(!look_until(start, budget, || Seen::Part));
        assert!(start.elapsed() > LONGEST_LOOK);
    }

    #[test]
    fn a_short_wait_for_the_cpu_is_no_crowd_and_lasting_ones_are() {
        let share = |waited_us, of_us| {
            let of = Duration::from_micros(of_us);
            share_of(Duration::from_micros(waited_us), of)
        };
        assert_eq!(share(0, 0), None);
        assert_eq!(share(500, 2_000), Some(ALL / 4));
        assert_eq!(share(3_000, 2_000), Some(ALL), "clocks differ");
        let after = |begin, reading: Option<u32>| {
            (0..16).fold(begin, |share, _| averaged(share, reading.unwrap()))
        };
        let disturbed = after(0, share(300, 2_000));
        assert!(disturbed > 0 && disturbed < CROWD, "{disturbed}");
        let shared = after(disturbed, share(1_000, 2_000));
        assert!(shared > CROWD, "{shared}");
        let gone = after(shared, share(0, 2_000));
        assert!(gone < CROWD, "{gone}");
    }

    #[test]
    fn a_thread_learns_its_share_from_the_second_reading_on() {
        let machine = Machine::get();
        let begun = Instant::now();
        assert_eq!(
            machine.share_waited(begun),
            None,
            "asked for the first time"
        );
        let waited = machine
            .share_waited(begun + Duration::from_secs(60))
            .unwrap();
        assert!(waited < ALL / 8, "{waited}");
    }

    #[test]
    fn nobody_looks_inside_a_pass_or_without_a_multi_thread_runtime() {
        assert_eq!(Patience::default().look(Instant::now()), None);
        let _pass = Pass::enter();
        assert_eq!(Patience::default().look(Instant::now()), None);
    }
}
