//! The drivers of one runtime: one, and more where one is busy for most of its time.
//!
//! Connections begin with the first driver, unless their number is fixed. [`load`](super::load) says when it gives some of them to another one,
//! and when they come back. Only the task that drives a connection gives it away, between two passes; a wake that
//! still finds the former driver is passed on. So a connection is never without a driver, and no call notices.
//!
//! A further driver is idle for ever where it is not needed: a task that nothing wakes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use ringway_sys::schedule::online_cpus;
use tokio::runtime::{Handle, Id, RuntimeFlavor};

use super::Driver;
use super::count::DriverCount;
use super::home::Home;
use super::load::{LoadRules, PerMille};
use crate::connection::{Connection, connections};
use crate::{runtime, watchdog};

/// The most drivers of one runtime.
const MOST: usize = 64;
/// The drivers that hand their connections round.
const RESTLESS: usize = 4;

/// The drivers of one runtime.
#[derive(Debug)]
pub(crate) struct Crew {
    home: Arc<Home>,
    first: Arc<Driver>,
    more: Box<[OnceLock<Arc<Driver>>]>,
    count: DriverCount,
    /// The next connection goes to this driver, where their number is fixed.
    next: Mutex<usize>,
}

/// How busy a driver was in its last window, and when.
#[derive(Debug, Default)]
pub(super) struct Standing {
    last: Mutex<Option<(Instant, PerMille)>>,
    /// It has been given connections, and has not returned them.
    pub(super) serves: AtomicBool,
}

impl Standing {
    pub(super) fn note(&self, now: Instant, busy: PerMille) {
        *self.last.lock() = Some((now, busy));
    }

    /// A driver that has not come to the end of a window for a while is asleep.
    fn busy(&self, now: Instant, rules: &LoadRules) -> PerMille {
        let last = *self.last.lock();
        let is_new = |at: &Instant| now.saturating_duration_since(*at) < 3 * rules.window;
        last.filter(|(at, _)| is_new(at))
            .map_or(0, |(_, busy)| busy)
    }

    /// Counts what it is about to be given: others look for a taker as well.
    fn expect(&self, now: Instant, rules: &LoadRules, more: PerMille) {
        let busy = self.busy(now, rules);
        self.note(now, busy.saturating_add(more));
    }
}

/// How drivers share their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    ByLoad,
    /// They hand them round.
    Restless,
}

/// A driver that takes connections of another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taker {
    number: usize,
    pub(super) busy: PerMille,
}

impl Crew {
    /// The drivers of a runtime; the first caller starts the first of them.
    pub(crate) fn of(runtime: &Handle) -> Arc<Self> {
        static CREWS: OnceLock<Mutex<HashMap<Id, Weak<Crew>>>> = OnceLock::new();
        let mut crews = CREWS.get_or_init(Mutex::default).lock();
        let known = crews.get(&runtime.id()).and_then(Weak::upgrade);
        // One that has moved away since drives connections of other runtimes.
        if let Some(crew) = known.filter(|known| known.home.is(runtime.id())) {
            return crew;
        }
        crews.retain(|_, crew| crew.strong_count() > 0);
        let home = Arc::new(Home::at(runtime));
        let count = DriverCount::from_environment();
        let more = most(runtime, count) - 1;
        let crew = Arc::new_cyclic(|me| Self {
            first: Driver::new(0, &home, Weak::clone(me)),
            home,
            more: (0..more).map(|_| OnceLock::new()).collect(),
            count,
            next: Mutex::new(0),
        });
        crews.insert(runtime.id(), Arc::downgrade(&crew));
        drop(crews);
        // A runtime of one thread has no other that could take over, and may not run at all for now.
        if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
            watchdog::watch(&crew.first);
        }
        crew.first.begin(runtime);
        crew
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// The driver of that number; the first one where there is none.
    #[inline]
    pub(crate) fn driver(&self, number: usize) -> &Arc<Driver> {
        match number.checked_sub(1) {
            None => &self.first,
            Some(place) => {
                let more = self.more.get(place).and_then(OnceLock::get);
                more.unwrap_or(&self.first)
            }
        }
    }

    /// The number of the driver with which a new connection begins.
    pub(crate) fn number_for_new(self: &Arc<Self>) -> usize {
        if !matches!(self.count, DriverCount::Fixed(_)) || self.more.is_empty() {
            return 0;
        }
        let number = {
            let mut next = self.next.lock();
            let number = *next;
            *next = (number + 1) % (self.more.len() + 1);
            number
        };
        if self.open(number) { number } else { 0 }
    }

    /// Has the driver of that number drive; false where it can't.
    pub(super) fn open(self: &Arc<Self>, number: usize) -> bool {
        let Some(place) = number.checked_sub(1) else {
            return true;
        };
        let (Some(slot), Some(runtime)) = (self.more.get(place), self.runtime()) else {
            return false;
        };
        let driver = slot.get_or_init(|| {
            let driver = Driver::new(number, &self.home, Arc::downgrade(self));
            watchdog::watch(&driver);
            driver
        });
        driver.begin(&runtime);
        driver.standing.serves.store(true, Ordering::SeqCst);
        true
    }

    /// How drivers share their connections, if they do.
    pub(super) fn sharing(&self) -> Option<Sharing> {
        if self.more.is_empty() || self.runtime().is_none() {
            return None;
        }
        match self.count {
            DriverCount::Adaptive => Some(Sharing::ByLoad),
            DriverCount::Restless => Some(Sharing::Restless),
            DriverCount::Fixed(_) => None,
        }
    }

    /// Hands all that `driver` has on to the next one; false where that can't drive.
    pub(super) fn hand_on(self: &Arc<Self>, driver: &Arc<Driver>) -> bool {
        let next = (driver.number() + 1) % (self.more.len() + 1);
        let opened = self.open(next);
        if opened {
            driver
                .connections()
                .for_each(|connection| connection.move_to_driver(next));
        }
        opened
    }

    /// The runtime, if several of its tasks can run at once.
    fn runtime(&self) -> Option<Handle> {
        let runtime = self.home.runtime()?;
        (runtime.runtime_flavor() != RuntimeFlavor::CurrentThread).then_some(runtime)
    }

    /// How busy the first driver is.
    pub(super) fn first_busy(&self, now: Instant, rules: &LoadRules) -> PerMille {
        self.first.standing.busy(now, rules)
    }

    /// The driver that has least to do beside `giver`: one that serves, or else a further one.
    pub(super) fn taker(&self, giver: usize, now: Instant, rules: &LoadRules) -> Option<Taker> {
        let serving = (0..=self.more.len()).filter(|number| *number != giver);
        let serving = serving.filter_map(|number| {
            let driver = self.known(number)?;
            let serves = number == 0 || driver.standing.serves.load(Ordering::SeqCst);
            serves.then(|| Taker {
                number,
                busy: driver.standing.busy(now, rules),
            })
        });
        let least = serving.min_by_key(|taker| taker.busy);
        let has_room = least.is_some_and(|taker| taker.busy <= rules.has_room);
        if has_room {
            return least;
        }
        let unused = (1..=self.more.len()).find(|number| {
            let driver = self.known(*number);
            driver.is_none_or(|driver| !driver.standing.serves.load(Ordering::SeqCst))
        });
        unused.map(|number| Taker { number, busy: 0 }).or(least)
    }

    /// Gives connections to another driver, which has so much more to do then; false where it can't drive.
    pub(super) fn give(
        self: &Arc<Self>,
        given: &[Arc<Connection>],
        taker: Taker,
        now: Instant,
        rules: &LoadRules,
        more: PerMille,
    ) -> bool {
        if !self.open(taker.number) {
            return false;
        }
        self.driver(taker.number).standing.expect(now, rules, more);
        for connection in given {
            connection.move_to_driver(taker.number);
        }
        true
    }

    /// Gives all that `driver` has back to the first one, which has so much more to do then.
    pub(super) fn give_back(
        self: &Arc<Self>,
        driver: &Arc<Driver>,
        now: Instant,
        rules: &LoadRules,
        more: PerMille,
    ) {
        driver.standing.serves.store(false, Ordering::SeqCst);
        self.first.standing.expect(now, rules, more);
        driver
            .connections()
            .for_each(|connection| connection.move_to_driver(0));
    }

    fn known(&self, number: usize) -> Option<&Arc<Driver>> {
        match number.checked_sub(1) {
            None => Some(&self.first),
            Some(place) => self.more.get(place).and_then(OnceLock::get),
        }
    }

    fn connections(self: &Arc<Self>) -> impl Iterator<Item = Arc<Connection>> {
        let all = connections().into_iter();
        all.filter(|connection| connection.is_driven_by_one_of(self))
    }

    /// Has the runtime at hand drive if none does, or one that is only a refuge: a connection belongs to the
    /// process, not to the runtime that made it.
    #[inline]
    pub(crate) fn ensure_driven(self: &Arc<Self>) {
        if self.home.is_astray() {
            self.move_to(&runtime::at_hand());
        }
    }

    #[cold]
    fn move_to(self: &Arc<Self>, runtime: &Handle) {
        let was_lost = self.home.is_lost();
        let serves = |connection: Arc<Connection>| !connection.is_client();
        if !was_lost && (self.home.is(runtime.id()) || self.connections().any(serves)) {
            return;
        }
        if !self.home.move_to(runtime) {
            return;
        }
        if was_lost {
            // What served there has ended with its handlers.
            let served = self.connections().filter(|served| !served.is_client());
            served.for_each(|served| served.close());
        }
        self.dismiss_further();
        self.first.begin_in(runtime);
        tracing::debug!("connections of a runtime that has ended are driven by another one");
    }

    /// Ends the tasks of all but the first driver, which has their connections from now on.
    fn dismiss_further(self: &Arc<Self>) {
        for driver in self.more.iter().filter_map(OnceLock::get) {
            driver.end();
        }
        self.connections()
            .for_each(|connection| connection.move_to_driver(0));
    }

    /// The task of a driver's generation was dropped: with its runtime, or because it has panicked. Where calls of other
    /// runtimes wait, the process's own drives from now on; else whichever makes the next call.
    pub(super) fn lose(self: &Arc<Self>, driver: &Arc<Driver>, generation: u32) {
        if driver.generation() != generation {
            return;
        }
        let is_first = Arc::ptr_eq(driver, &self.first);
        // First: who finds the home lost begins a task of its own.
        driver.end();
        if is_first {
            self.home.lose();
        }
        if std::thread::panicking() {
            // The task has failed, not its runtime: another one would fail on the same connection. Where the first
            // one has failed, the others have no home either.
            let failed = |connection: &Arc<Connection>| is_first || connection.is_driven_by(driver);
            for connection in self.connections().filter(failed) {
                // What it drops is the user's, and a second panic would end the process.
                let _ = catch_unwind(AssertUnwindSafe(|| connection.close_undriven()));
            }
        }
        if !is_first {
            // The runtime may be ending: then the first one is about to be dropped as well, or was.
            driver
                .connections()
                .for_each(|connection| connection.move_to_driver(0));
            return;
        }
        self.dismiss_further();
        let mut awaited = false;
        for connection in self.connections() {
            connection.lose_driver();
            awaited |= connection.is_client() && connection.calls_in_flight() > 0;
        }
        if awaited {
            self.move_to(runtime::own());
        }
    }
}

/// As many drivers as can run at once.
fn most(runtime: &Handle, count: DriverCount) -> usize {
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return 1;
    }
    let workers = runtime.metrics().num_workers().clamp(1, MOST);
    match count {
        DriverCount::Adaptive => workers.min(online_cpus()),
        DriverCount::Fixed(count) => count.get().min(MOST),
        DriverCount::Restless => workers.min(RESTLESS),
    }
}
