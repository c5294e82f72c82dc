//! A thread of the process that has drivers replaced which are stuck in the user's code, connections given up whose
//! peer takes nothing any more, and threads freed that a peer's doorbell holds up. It finds out as well which shared
//! memory peers have given back.
//!
//! It is the one thing here that runs outside of tokio, because what it looks for stops tokio as well: the worker
//! that is stuck may be the one that waits for all descriptors and timers of its runtime. It ticks while drivers
//! are at work, and sleeps while none is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_sys::schedule::run_delay_of;

use crate::budgets;
use crate::connection::connections;
use crate::driver::{Driver, Suspect};
use crate::link::shm::peer_bell;

/// The time between two looks at drivers that are at work. A look costs some 5 us of CPU.
const TICK: Duration = Duration::from_millis(2);
/// The time after which a driver that seems stuck is looked at again.
const CONFIRM_AFTER: Duration = Duration::from_millis(1);
/// The time after which a driver is replaced that waits to be polled. On a busy runtime it may only wait for its
/// turn; behind a task that blocks it waits in vain.
const UNPOLLED_AFTER: Duration = Duration::from_millis(8);
/// The time between two looks at connections whose peer may take nothing any more.
pub(crate) const LOOK_AT_PEERS_EVERY: Duration = Duration::from_secs(1);
/// The time between two looks at shared memory that this side is done with.
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_millis(100);
/// Ticks without work after which the thread sleeps until a driver wakes it.
const LINGER_TICKS: u32 = 16;
/// The longest sleep: bounds what a driver can lose that has just missed to wake the thread.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct Watchdog {
    drivers: Mutex<Vec<Weak<Driver>>>,
    ticking: AtomicBool,
    thread: OnceLock<Thread>,
}

static WATCHDOG: Watchdog = Watchdog {
    drivers: Mutex::new(Vec::new()),
    ticking: AtomicBool::new(false),
    thread: OnceLock::new(),
};

/// Watches `driver` from now on, for as long as it lives.
pub(crate) fn watch(driver: &Arc<Driver>) {
    WATCHDOG.drivers.lock().push(Arc::downgrade(driver));
    start();
}

/// Starts the thread, with the first call; where none can be started, nothing is watched.
pub(crate) fn start() {
    WATCHDOG.thread.get_or_init(|| {
        let builder = thread::Builder::new().name("ringway-watch".to_owned());
        match builder.spawn(run) {
            Ok(thread) => thread.thread().clone(),
            Err(error) => {
                tracing::warn!(%error, "no thread can be started that watches for blocked handlers");
                thread::current()
            }
        }
    });
}

/// Says that a driver is at work: cheap while the thread ticks.
#[inline]
pub(crate) fn note_work() {
    if !WATCHDOG.ticking.load(Ordering::Relaxed) {
        wake();
    }
}

#[cold]
fn wake() {
    if !WATCHDOG.ticking.swap(true, Ordering::SeqCst)
        && let Some(thread) = WATCHDOG.thread.get()
    {
        thread.unpark();
    }
}

/// The thread's work.
fn run() {
    let mut idle_ticks = 0;
    let mut suspects: Vec<(Weak<Driver>, Suspicion)> = Vec::new();
    let mut looked = Instant::now();
    let mut settled = looked;
    let mut ringing = Vec::new();
    loop {
        if looked.elapsed() >= LOOK_AT_PEERS_EVERY {
            looked = Instant::now();
            connections()
                .iter()
                .for_each(|connection| connection.look_at_peer());
        }
        if settled.elapsed() >= LOOK_AT_MEMORY_EVERY {
            settled = Instant::now();
            budgets::settle();
        }
        if idle_ticks >= LINGER_TICKS {
            WATCHDOG.ticking.store(false, Ordering::SeqCst);
            thread::park_timeout(LONGEST_SLEEP);
            WATCHDOG.ticking.store(true, Ordering::SeqCst);
            idle_ticks = 0;
        }
        thread::sleep(if suspects.is_empty() {
            TICK
        } else {
            CONFIRM_AFTER
        });
        suspects.retain(|(driver, suspicion)| {
            let driver = driver.upgrade();
            driver.is_some_and(|driver| suspicion.judge(&driver) == Verdict::Open)
        });
        let mut drivers = WATCHDOG.drivers.lock();
        drivers.retain(|driver| driver.strong_count() > 0);
        let alive: Vec<_> = drivers.iter().filter_map(Weak::upgrade).collect();
        drop(drivers);
        let before = std::mem::replace(&mut ringing, peer_bell::ringing());
        for held in ringing.iter().filter(|held| before.contains(held)) {
            let connections = connections();
            connections
                .iter()
                .for_each(|connection| connection.free(*held));
        }
        let mut idle = suspects.is_empty() && ringing.is_empty();
        for driver in alive {
            idle &= !driver.has_worked_since_last_tick();
            let known =
                |(suspected, _): &(Weak<Driver>, _)| suspected.as_ptr() == Arc::as_ptr(&driver);
            if let Some(suspect) = driver.suspect().filter(|_| !suspects.iter().any(known)) {
                idle = false;
                suspects.push((Arc::downgrade(&driver), Suspicion::of(suspect)));
            }
        }
        idle_ticks = if idle { idle_ticks + 1 } else { 0 };
    }
}

/// Says whether a suspicion has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Closed,
}

/// A driver that may be stuck, as it was at a tick.
struct Suspicion {
    suspect: Suspect,
    at: Instant,
    waited: Option<Duration>,
}

impl Suspicion {
    fn of(suspect: Suspect) -> Self {
        Self {
            suspect,
            at: Instant::now(),
            waited: suspect.thread.and_then(|thread| run_delay_of(thread).ok()),
        }
    }

    /// Has the driver replaced if nothing has changed, unless it was only kept waiting for a CPU.
    fn judge(&self, driver: &Arc<Driver>) -> Verdict {
        if driver.suspect() != Some(self.suspect) {
            return Verdict::Closed;
        }
        if self.suspect.thread.is_none() && self.at.elapsed() < UNPOLLED_AFTER {
            return Verdict::Open;
        }
        let waited_now = self
            .suspect
            .thread
            .and_then(|thread| run_delay_of(thread).ok());
        if let (Some(before), Some(now)) = (self.waited, waited_now)
            && now.saturating_sub(before) > self.at.elapsed() / 2
        {
            return Verdict::Closed;
        }
        driver.take_over(self.suspect);
        Verdict::Closed
    }
}
