//! Learns how long the polls of a method's futures take, and decides from it where they run.
//!
//! A quick future is polled in the pass that read its request: handing it to another worker costs more than
//! the poll. Any other one blocks the driver, and with it all calls of the runtime's connections, so it runs
//! as a task of the runtime. A method that is not known yet is not trusted with the driver.
//!
//! On a machine whose CPUs are all wanted, other threads take the CPU from polls that are quick. By the wall's clock
//! such a method seems slow; as a task it then wakes more threads, which take the CPU from more polls. So a poll
//! that seems slow is judged by its CPU time, unless it has waited: one that blocks uses little. And what the transport
//! does within a poll is not the poll's: ringing a peer, and driving a connection while the caller looks for its answer.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway_sys::thread_account::thread_cpu_time;
use ringway_sys::{ThreadAccount, thread_account};

/// Where a server runs its handlers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandlerPolicy {
    /// Learns from the duration of polls: quick handlers run inline, all others as tasks.
    #[default]
    Adaptive,
    /// Polls each handler in the pass that read its request. A handler that computes or blocks holds up the
    /// calls of all connections, until the driver is taken over.
    Inline,
    /// Runs each handler as a task of the runtime that serves, as tonic does.
    Spawn,
}

impl fmt::Display for HandlerPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Adaptive => "adaptive",
            Self::Inline => "inline",
            Self::Spawn => "spawn",
        })
    }
}

/// The longest poll, on average, that counts as quick: about the price of handing a task to another worker.
const QUICK_NS: u32 = 14_000;
/// The most by which one poll counts in the average.
const MOST_NS: u32 = 40_000;
/// A poll that loses a method its place at once. A shorter one may have waited for its CPU, or have woken other
/// threads, so it counts by its part of the average.
const SLOW_NS: u32 = 100_000;
/// A poll that has waited so long has blocked.
const BLOCKED: Duration = Duration::from_millis(1);
/// Each poll makes one of so many parts of the average.
const AVERAGED_OVER: u32 = 8;
/// One in so many inline polls is timed: reading the clock twice costs a fiftieth of a small call.
const TIMED_EVERY: u32 = 16;
/// The same of the polls of tasks, of which the first are all timed: what is not known yet is learnt soon.
const TASK_TIMED_EVERY: u32 = 8;
const FIRST_TASK_POLLS: u32 = 64;
/// Quick polls, of those that are timed, in a row after which a method is first trusted.
const FIRST_TRUST_POLLS: u32 = 8;
/// The same after it has been slow again and again.
const MAX_TRUST_POLLS: u32 = 1024;
/// Each slow poll of a trusted method makes its next trust so many times dearer.
const DEARER: u32 = 4;
/// Timed inline polls in a row after which one demotion is forgiven.
const FORGIVEN_AFTER_POLLS: u32 = 256;

thread_local! {
    /// The time that this thread has spent on the transport's own work within polls.
    static BESIDE: Cell<Beside> = const { Cell::new(Beside::ZERO) };
    /// The polls under way on this thread that are timed, and those of them that are by its CPU time as well.
    static TIMED: Cell<u32> = const { Cell::new(0) };
    static PRECISE: Cell<u32> = const { Cell::new(0) };
    /// The frames of streams that this thread has sent, counted round and round.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
}

/// Notes that the poll of a stream has sent a frame. A stream that is always ready sends several in a poll, and then
/// gives way: how long it takes for each is what tells a quick one.
#[inline]
pub(crate) fn note_frame() {
    FRAMES.set(FRAMES.get().wrapping_add(1));
}

/// Runs the transport's own `work`, whose time is not that of the poll that needs it: a kernel call that wakes another
/// process takes as long as many a handler, and so does a pass.
pub(crate) fn beside_the_poll<T>(work: impl FnOnce() -> T) -> T {
    if TIMED.get() == 0 {
        return work();
    }
    let before = BESIDE.get();
    let cpu = (PRECISE.get() > 0).then(thread_cpu_time).flatten();
    let begun = Instant::now();
    let done = work();
    let wall = begun.elapsed();
    let cpu = cpu.and_then(|cpu| Some(thread_cpu_time()?.saturating_sub(cpu)));
    // What was beside other polls within the work is part of it.
    BESIDE.set(Beside {
        wall: before.wall + wall,
        cpu: before.cpu + cpu.unwrap_or_default(),
    });
    done
}

/// Time spent on the transport's own work.
#[derive(Debug, Clone, Copy)]
struct Beside {
    wall: Duration,
    /// Counted while polls are timed precisely.
    cpu: Duration,
}

impl Beside {
    const ZERO: Self = Self {
        wall: Duration::ZERO,
        cpu: Duration::ZERO,
    };
}

/// Times one poll.
#[derive(Debug)]
pub(crate) struct PollTimer {
    begun: Instant,
    beside: Beside,
    frames: u32,
    /// The account of the thread when the poll began; `None` if the poll is timed by the wall's clock alone.
    account: Option<ThreadAccount>,
}

impl PollTimer {
    /// Begins to time a poll, by the wall's clock alone.
    pub(crate) fn start() -> Self {
        TIMED.set(TIMED.get() + 1);
        Self {
            begun: Instant::now(),
            beside: BESIDE.get(),
            frames: FRAMES.get(),
            account: None,
        }
    }

    /// Begins to time a poll from which other threads may take the CPU: what they take is not its own.
    fn start_precisely() -> Self {
        let mut timer = Self::start();
        timer.account = thread_account();
        if timer.account.is_some() {
            PRECISE.set(PRECISE.get() + 1);
        }
        timer
    }

    /// The poll's own time, for each of its frames where it has sent several.
    fn elapsed(&self) -> Duration {
        let beside = BESIDE.get();
        let frames = FRAMES.get().wrapping_sub(self.frames);
        let wall = self.begun.elapsed();
        let wall = wall.saturating_sub(beside.wall.saturating_sub(self.beside.wall));
        let own = match self.account {
            Some(before) if wall.as_nanos() > QUICK_NS.into() => {
                let beside_cpu = beside.cpu.saturating_sub(self.beside.cpu);
                own_time(wall, before, beside_cpu)
            }
            Some(_) | None => wall,
        };
        own / frames.max(1)
    }
}

impl Drop for PollTimer {
    fn drop(&mut self) {
        TIMED.set(TIMED.get().saturating_sub(1));
        if self.account.is_some() {
            PRECISE.set(PRECISE.get().saturating_sub(1));
        }
    }
}

/// Returns how much of `wall` was the poll's own, by the account of this thread when the poll began, less the CPU time
/// that was spent beside it.
fn own_time(wall: Duration, before: ThreadAccount, beside_cpu: Duration) -> Duration {
    match thread_account() {
        Some(now) if now.waits == before.waits => {
            let cpu = now.cpu.saturating_sub(before.cpu);
            wall.min(cpu.saturating_sub(beside_cpu))
        }
        // A short wait, as for a lock whose holder has lost its CPU, counts by its part of the average.
        Some(_) if wall < BLOCKED => wall.min(Duration::from_nanos(MOST_NS.into())),
        Some(_) | None => wall,
    }
}

/// The learned pace of one method's futures, shared by all connections of a server.
///
/// Its counters are hints: threads may lose each other's updates, which costs a few polls.
#[derive(Debug)]
pub struct Pace {
    policy: HandlerPolicy,
    inline: AtomicBool,
    /// Quick polls in a row: untimed trust is earned with them, and forgiveness.
    quick_polls: AtomicU32,
    /// Quick polls in a row that the next trust takes.
    trust_polls: AtomicU32,
    inline_polls: AtomicU32,
    task_polls: AtomicU32,
    /// How long polls took lately, but for the doorbells that they rang.
    mean_ns: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(HandlerPolicy::default())
    }
}

impl Pace {
    /// The pace of a method of which nothing is known yet.
    pub fn new(policy: HandlerPolicy) -> Self {
        Self {
            policy,
            inline: AtomicBool::new(policy == HandlerPolicy::Inline),
            quick_polls: AtomicU32::new(0),
            trust_polls: AtomicU32::new(FIRST_TRUST_POLLS),
            inline_polls: AtomicU32::new(0),
            task_polls: AtomicU32::new(0),
            mean_ns: AtomicU32::new(0),
        }
    }

    /// The policy that was asked for.
    pub fn policy(&self) -> HandlerPolicy {
        self.policy
    }

    /// Returns true if the method's futures are polled inline now.
    #[inline]
    pub fn is_inline(&self) -> bool {
        self.inline.load(Ordering::Relaxed)
    }

    /// Returns how long polls took lately, on average; `None` before one was timed, and where nothing is learnt.
    /// Longer polls count as 100 µs.
    pub fn mean_poll(&self) -> Option<Duration> {
        let mean_ns = self.mean_ns.load(Ordering::Relaxed);
        (mean_ns > 0).then(|| Duration::from_nanos(mean_ns.into()))
    }

    /// Begins to time an inline poll, if this one is to be timed.
    #[inline]
    pub(crate) fn begin_inline(&self) -> Option<PollTimer> {
        let polls = self.inline_polls.load(Ordering::Relaxed);
        self.inline_polls
            .store(polls.wrapping_add(1), Ordering::Relaxed);
        polls
            .is_multiple_of(TIMED_EVERY)
            .then(PollTimer::start_precisely)
    }

    /// Begins to time the poll of a task, if this one is to be timed. One that lost its CPU would be a slow one by the
    /// wall's clock, and of those that a method needs to be trusted not one may be.
    pub(crate) fn begin_task(&self) -> Option<PollTimer> {
        if self.policy != HandlerPolicy::Adaptive {
            return None;
        }
        let polls = self.task_polls.load(Ordering::Relaxed);
        self.task_polls
            .store(polls.wrapping_add(1), Ordering::Relaxed);
        (polls < FIRST_TASK_POLLS || polls.is_multiple_of(TASK_TIMED_EVERY))
            .then(PollTimer::start_precisely)
    }

    /// Learns from a poll that has just ended.
    pub(crate) fn note_poll(&self, timer: &PollTimer) {
        self.note(timer.elapsed());
    }

    /// Learns from a poll that was so long that the driver was taken from it.
    pub(crate) fn note_stuck(&self) {
        self.note(Duration::MAX);
    }

    fn note(&self, elapsed: Duration) {
        if self.policy != HandlerPolicy::Adaptive {
            return;
        }
        let elapsed_ns = u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX);
        let mean_ns = self.mean_ns.load(Ordering::Relaxed);
        let mean_ns = if elapsed_ns >= SLOW_NS {
            SLOW_NS
        } else {
            mean_ns - mean_ns / AVERAGED_OVER + elapsed_ns.min(MOST_NS) / AVERAGED_OVER
        };
        self.mean_ns.store(mean_ns, Ordering::Relaxed);
        if mean_ns > QUICK_NS {
            self.note_slow();
        } else {
            self.note_quick();
        }
    }

    fn note_slow(&self) {
        self.quick_polls.store(0, Ordering::Relaxed);
        if self.inline.swap(false, Ordering::Relaxed) {
            let polls = self.trust_polls.load(Ordering::Relaxed);
            let dearer = polls.saturating_mul(DEARER).min(MAX_TRUST_POLLS);
            self.trust_polls.store(dearer, Ordering::Relaxed);
        }
    }

    fn note_quick(&self) {
        let quick_polls = self.quick_polls.load(Ordering::Relaxed) + 1;
        let trust_polls = self.trust_polls.load(Ordering::Relaxed);
        let mut next = quick_polls;
        if self.is_inline() {
            if quick_polls >= FORGIVEN_AFTER_POLLS {
                next = 0;
                let cheaper = (trust_polls / DEARER).max(FIRST_TRUST_POLLS);
                self.trust_polls.store(cheaper, Ordering::Relaxed);
            }
        } else if quick_polls >= trust_polls {
            next = 0;
            self.inline.store(true, Ordering::Relaxed);
        }
        self.quick_polls.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_micros(1);
    const LONG: Duration = Duration::from_millis(1);

    /// Quick polls after which the average has forgotten a long one.
    const FORGOTTEN_AFTER: u32 = 16;

    fn polls_until_trusted(pace: &Pace) -> u32 {
        (1..=2 * MAX_TRUST_POLLS)
            .find(|_| {
                pace.note(BRIEF);
                pace.is_inline()
            })
            .unwrap()
    }

    fn assert_dearer(pace: &Pace, trust_polls: u32) {
        let polls = polls_until_trusted(pace);
        assert!(
            (trust_polls..=trust_polls + FORGOTTEN_AFTER + AVERAGED_OVER).contains(&polls),
            "{polls} polls in place of {trust_polls}"
        );
    }

    #[test]
    fn trust_is_earned_lost_at_once_and_dearer_each_time() {
        let pace = Pace::default();
        assert!(!pace.is_inline(), "not known yet");
        assert_eq!(pace.mean_poll(), None);
        assert_eq!(polls_until_trusted(&pace), FIRST_TRUST_POLLS);
        assert!(pace.mean_poll().unwrap() <= BRIEF);
        pace.note(LONG);
        assert!(!pace.is_inline());
        assert_eq!(pace.mean_poll(), Some(Duration::from_micros(100)));
        assert_dearer(&pace, FIRST_TRUST_POLLS * DEARER);
        for _ in 0..8 {
            pace.note(LONG);
            polls_until_trusted(&pace);
        }
        pace.note_stuck();
        assert_dearer(&pace, MAX_TRUST_POLLS);
    }

    /// Of a poll that others have interrupted its own time alone counts; one that has waited is as long as it took.
    #[test]
    fn what_other_threads_take_of_the_cpu_is_not_the_polls_own_time() {
        let mut timer = PollTimer::start_precisely();
        let Some(began) = timer.begun.checked_sub(LONG) else {
            return;
        };
        timer.begun = began;
        assert!(timer.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(2));
        assert!(timer.elapsed() > LONG);
    }

    #[test]
    fn a_poll_that_sends_frames_is_judged_by_each() {
        let timer = PollTimer::start();
        std::thread::sleep(Duration::from_millis(20));
        let whole = timer.elapsed();
        (0..1000).for_each(|_| note_frame());
        assert!(whole >= Duration::from_millis(20) && timer.elapsed() < whole / 10);
    }

    #[test]
    fn a_slow_poll_begins_the_count_anew() {
        let pace = Pace::default();
        for _ in 1..FIRST_TRUST_POLLS {
            pace.note(BRIEF);
        }
        pace.note(LONG);
        assert_dearer(&pace, FIRST_TRUST_POLLS);
    }

    #[test]
    fn polls_of_twice_the_price_of_a_hand_over_are_slow_and_an_odd_one_is_not() {
        let pace = Pace::default();
        for _ in 0..64 {
            pace.note(Duration::from_micros(20));
        }
        assert!(!pace.is_inline());
        polls_until_trusted(&pace);
        for _ in 0..64 {
            pace.note(Duration::from_micros(40));
            (0..8).for_each(|_| pace.note(BRIEF));
            assert!(pace.is_inline());
        }
        for _ in 0..16 {
            pace.note(Duration::from_micros(20));
        }
        assert!(!pace.is_inline());
    }

    #[test]
    fn the_transports_work_is_not_the_polls_own_time() {
        let timer = PollTimer::start();
        beside_the_poll(|| {
            // Driving a connection rings its peer.
            beside_the_poll(|| std::thread::sleep(Duration::from_millis(20)));
        });
        let own = timer.elapsed();
        assert!(own < Duration::from_millis(10), "{own:?}");
        assert_eq!(BESIDE.get().cpu, Duration::ZERO);
    }

    fn compute(time: Duration) {
        let Some(began) = thread_cpu_time() else {
            return;
        };
        while thread_cpu_time().is_some_and(|now| now - began < time) {}
    }

    /// Also where the poll is judged by its CPU time, of which the work takes most.
    #[test]
    fn the_transports_cpu_time_is_not_the_polls_own() {
        let mut timer = PollTimer::start_precisely();
        if timer.account.is_none() {
            return;
        }
        beside_the_poll(|| compute(20 * LONG));
        // The thread has lost its CPU for longer than anything took.
        timer.begun -= 40 * LONG;
        let own = timer.elapsed();
        assert!(own < 10 * LONG, "{own:?}");
        drop(timer);
        let before = BESIDE.get().cpu;
        beside_the_poll(|| compute(LONG));
        assert_eq!(BESIDE.get().cpu, before, "nobody asks for it any more");
    }

    /// A lock whose holder has lost its CPU makes no method a blocking one; a poll that blocks does.
    #[test]
    fn a_short_wait_counts_by_its_part() {
        let timer = PollTimer::start_precisely();
        std::thread::sleep(Duration::from_micros(200));
        let own = timer.elapsed();
        assert!(
            own.as_nanos() <= MOST_NS.into() || own >= BLOCKED,
            "{own:?}"
        );
        let timer = PollTimer::start_precisely();
        std::thread::sleep(2 * BLOCKED);
        assert!(timer.elapsed() >= BLOCKED);
    }

    #[test]
    fn long_quickness_is_forgiven_for() {
        let pace = Pace::default();
        polls_until_trusted(&pace);
        pace.note(LONG);
        polls_until_trusted(&pace);
        for _ in 0..FORGIVEN_AFTER_POLLS {
            pace.note(BRIEF);
        }
        pace.note(LONG);
        assert_dearer(&pace, FIRST_TRUST_POLLS * DEARER);
    }

    #[test]
    fn a_fixed_policy_learns_nothing() {
        let (inline, spawn) = (
            Pace::new(HandlerPolicy::Inline),
            Pace::new(HandlerPolicy::Spawn),
        );
        inline.note_stuck();
        assert!(inline.is_inline());
        assert_eq!(inline.mean_poll(), None);
        for _ in 0..MAX_TRUST_POLLS {
            spawn.note(BRIEF);
        }
        assert!(!spawn.is_inline());
    }

    #[test]
    fn one_in_so_many_inline_polls_is_timed() {
        let pace = Pace::new(HandlerPolicy::Inline);
        let timed = (0..TIMED_EVERY * 3).filter(|_| pace.begin_inline().is_some());
        assert_eq!(timed.count(), 3);
    }
}
