//! A task of a runtime that drives its connections, all of them or some.
//!
//! A connection becomes ready when its doorbell rings, its socket stirs, one of its handlers is
//! woken, or a task asks for it. The driver gives each ready connection a bounded pass, looks a
//! while longer at those that were busy, then arms their sleep words and sleeps.
//!
//! The user's code that runs in a pass, or that runs on the worker whose queue holds the driver's task, may
//! block its thread. No wake comes for a task that is stuck so. The [`watchdog`] finds it out within a few
//! milliseconds, and another task takes the driving over, under a new *generation*. The stuck one finds its
//! generation gone and ends.
//!
//! A runtime may end before the connections that it has made do. Then its driver moves, with all of them, to the
//! runtime that makes the next call: see [`home`]. And a runtime may have several drivers: see [`crew`].

mod count;
mod crew;
mod home;
pub(crate) mod load;
mod meter;
mod round;
mod sharing;
#[cfg(test)]
mod tests;
mod turn;

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_ring::failpoint::{self, Step};
use ringway_ring::{DriverRole, RoleSnapshot};
use ringway_sys::schedule::thread_id;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

pub(crate) use self::crew::Crew;
use self::crew::Standing;
use self::home::Home;
use self::turn::Turn;
use crate::connection::{Connection, Progress, connections};
use crate::spin::Outcome;
use crate::waiting::{Seen, look_until, may_spin, wake_later};
use crate::watchdog;

/// How long the driver keeps its worker while tasks wait for one.
const TURN: Duration = Duration::from_millis(1);
/// How long it keeps it anyway. Each turn's end wakes another worker, because that is how tokio
/// hands out work: a thread more, for a moment, on a machine that may have just enough CPUs. But until then perhaps
/// no worker hears of doorbells: a peer that keeps the driver busy delays the calls of others by as much.
const LONGEST_TURN: Duration = Duration::from_millis(3);
/// Connections that are looked at without a doorbell, at most.
const MAX_BUSY: usize = 64;

/// Drives connections of one runtime.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Its place among the drivers of its runtime.
    number: usize,
    home: Arc<Home>,
    crew: Weak<Crew>,
    standing: Standing,
    /// `None` while no task drives: connections keep their driver, so it must not keep them.
    ready: Mutex<Option<Vec<Arc<Connection>>>>,
    /// Which task drives, whether it is at work, and whether `ready` holds any.
    role: DriverRole,
    /// The generation, plus one, whose task runs the user's code just now; zero if none does.
    in_user_code: AtomicU32,
    /// The driver's task was woken and has not been polled since.
    called: AtomicBool,
    /// Its task has replaced a stuck one and has not been polled since: another one would wait just as long.
    fresh: AtomicBool,
    /// Counts the steps of the driver's task, round and round: one that is stuck makes none.
    steps: AtomicU32,
    /// What it was at the last tick of the watchdog.
    steps_at_tick: AtomicU32,
    /// The thread that polls the driver's task.
    thread: AtomicI32,
    /// The pass has spawned tasks, which may block this worker before any other has heard of anything.
    spawned: AtomicBool,
    /// Tasks were woken that have not all had their turn: until the driver has come back after them,
    /// nobody keeps a worker from them by looking.
    others_first: AtomicBool,
    /// What to look at after them.
    later: Mutex<Vec<Weak<Connection>>>,
    task: Arc<DriverTask>,
    /// Wakes the driver's task after others.
    after_others: Waker,
}

/// A driver that may be stuck: it is if it is found unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspect {
    role: RoleSnapshot,
    steps: u32,
    /// The thread that runs the user's code, where that is the driver's own.
    pub(crate) thread: Option<i32>,
}

/// Marks that the driver's task runs the user's code, until it is dropped.
pub(crate) struct InUserCode<'a> {
    driver: &'a Driver,
    number: u32,
}

impl Drop for InUserCode<'_> {
    fn drop(&mut self) {
        let inside = &self.driver.in_user_code;
        // A task that was replaced meanwhile leaves its successor's mark alone.
        if self.number > 0 && inside.load(Ordering::Relaxed) == self.number {
            inside.store(0, Ordering::Relaxed);
        }
    }
}

/// How the driver's task is woken.
#[derive(Debug, Default)]
struct DriverTask {
    waker: Mutex<Registered>,
    /// The tasks before which it stood back have had their turn.
    had_their_turn: AtomicBool,
}

/// The waker of the task that drives.
#[derive(Debug, Default)]
struct Registered {
    generation: u32,
    waker: Option<Waker>,
}

impl DriverTask {
    /// Registers the task of a generation; false if it was replaced.
    fn register(&self, generation: u32, waker: &Waker) -> bool {
        let mut registered = self.waker.lock();
        if registered.generation != generation {
            return false;
        }
        match &registered.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => registered.waker = Some(waker.clone()),
        }
        true
    }

    /// Has the task of a generation register next, unless a later one has begun already.
    fn replace(&self, generation: u32) {
        let mut registered = self.waker.lock();
        let ahead = registered.generation.wrapping_sub(generation) & (u32::MAX >> 1);
        if ahead == 0 || ahead > u32::MAX >> 2 {
            *registered = Registered {
                generation,
                waker: None,
            };
        }
    }

    /// Wakes the task. One that has not registered yet is about to be polled for the first time.
    fn call(&self) {
        let waker = self.waker.lock().waker.clone();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Wake for DriverTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.had_their_turn.store(true, Ordering::SeqCst);
        self.call();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its task finds nothing to drive, and ends.
        self.task.call();
    }
}

impl Driver {
    /// A driver that does not drive yet.
    fn new(number: usize, home: &Arc<Home>, crew: Weak<Crew>) -> Arc<Self> {
        let task = Arc::<DriverTask>::default();
        Arc::new(Self {
            number,
            home: Arc::clone(home),
            crew,
            standing: Standing::default(),
            ready: Mutex::new(None),
            role: DriverRole::default(),
            in_user_code: AtomicU32::new(0),
            called: AtomicBool::new(false),
            fresh: AtomicBool::new(false),
            steps: AtomicU32::new(0),
            steps_at_tick: AtomicU32::new(0),
            thread: AtomicI32::new(0),
            spawned: AtomicBool::new(false),
            others_first: AtomicBool::new(false),
            later: Mutex::default(),
            after_others: Waker::from(Arc::clone(&task)),
            task,
        })
    }

    /// Has a task of `runtime` drive, if none does.
    fn begin(self: &Arc<Self>, runtime: &Handle) {
        match &mut *self.ready.lock() {
            Some(_) => return,
            ready => *ready = Some(Vec::new()),
        }
        self.begin_in(runtime);
        // It may wait in the queue of a worker that is stuck: then another task drives.
        self.fresh.store(false, Ordering::Relaxed);
    }

    /// Has a task of `runtime` drive, in place of any other.
    fn begin_in(self: &Arc<Self>, runtime: &Handle) {
        let generation = self.next_generation();
        self.ready.lock().get_or_insert_default();
        self.begin_anew(runtime, generation);
    }

    /// Has no task drive any more. What it had is for others to see to.
    fn end(&self) {
        self.next_generation();
        self.called.store(false, Ordering::SeqCst);
        self.in_user_code.store(0, Ordering::Relaxed);
        self.standing.serves.store(false, Ordering::SeqCst);
        let ready = self.ready.lock().take();
        self.role.take_listed();
        // Without the lock: a connection that ends here may mark others.
        drop(ready);
    }

    /// Its place among the drivers of its runtime, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    fn start_task(self: &Arc<Self>, runtime: &Handle, generation: u32) {
        let task = drive(Arc::downgrade(self), generation);
        runtime.spawn(tokio::task::unconstrained(task));
    }

    /// Runs `work` beside the driver, whatever thread asks. Drops it if the runtime has ended.
    pub(crate) fn spawn(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        let runtime = self.home.runtime()?;
        Some(runtime.spawn(work).abort_handle())
    }

    /// Notes that the pass has spawned a task that may block its worker.
    pub(crate) fn note_spawned(&self) {
        self.spawned.store(true, Ordering::Relaxed);
    }

    /// Changes when another task takes the driving over.
    pub(crate) fn generation(&self) -> u32 {
        self.role.generation()
    }

    /// Marks the begin of user code in a pass of the driver; returns what marks its end.
    pub(crate) fn enter_user_code(&self) -> InUserCode<'_> {
        // Another driver's pass that is led here is marked by its own.
        if self.thread.load(Ordering::Relaxed) != this_thread() {
            return InUserCode {
                driver: self,
                number: 0,
            };
        }
        let number = self.generation() + 1;
        self.in_user_code.store(number, Ordering::Relaxed);
        watchdog::note_work();
        InUserCode {
            driver: self,
            number,
        }
    }

    /// Puts `connection` on the list and wakes the driver; false if no task drives.
    pub(crate) fn add_ready(&self, connection: Arc<Connection>) -> bool {
        match &mut *self.ready.lock() {
            Some(ready) => ready.push(connection),
            None => return false,
        }
        if self.role.note_listed() {
            self.called.store(true, Ordering::SeqCst);
            self.task.call();
        }
        true
    }

    /// Returns true if the driver's task was polled since this was last asked.
    pub(crate) fn has_worked_since_last_tick(&self) -> bool {
        let steps = self.steps.load(Ordering::Relaxed);
        self.steps_at_tick.swap(steps, Ordering::Relaxed) != steps
    }

    /// The state of a driver that only the user's code can keep from progress, if it makes none: its own, or that
    /// of a task on the worker in whose queue it waits.
    pub(crate) fn suspect(&self) -> Option<Suspect> {
        let role = self.role.snapshot();
        let thread = if role.is_at_work() {
            (self.in_user_code.load(Ordering::Relaxed) != 0)
                .then(|| Some(self.thread.load(Ordering::Relaxed)))
        } else {
            let waits = self.called.load(Ordering::SeqCst) && !self.fresh.load(Ordering::Relaxed);
            waits.then_some(None)
        };
        Some(Suspect {
            role,
            steps: self.steps.load(Ordering::Relaxed),
            thread: thread?,
        })
    }

    /// Has another task drive. The connections of the stuck one are all looked at anew: it may hold any.
    pub(crate) fn take_over(self: &Arc<Self>, stuck: Suspect) {
        let Some(generation) = self.role.take_over(stuck.role) else {
            return;
        };
        failpoint::reached(Step::HandingOver);
        let Some(runtime) = self.home.runtime() else {
            return;
        };
        self.begin_anew(&runtime, generation);
        tracing::debug!(
            generation,
            "a driver was stuck in user code and was replaced"
        );
    }

    /// Starts the task of a new generation, which looks at all connections: it rings for some of them, and the thread
    /// that starts it may be the watchdog's, which nobody watches.
    fn begin_anew(self: &Arc<Self>, runtime: &Handle, generation: u32) {
        self.task.replace(generation);
        self.fresh.store(true, Ordering::Relaxed);
        self.in_user_code.store(0, Ordering::Relaxed);
        self.others_first.store(false, Ordering::SeqCst);
        self.called.store(true, Ordering::SeqCst);
        self.later.lock().clear();
        self.start_task(runtime, generation);
    }

    fn connections(self: &Arc<Self>) -> impl Iterator<Item = Arc<Connection>> {
        let driven = connections().into_iter();
        driven.filter(|connection| connection.is_driven_by(self))
    }

    /// Makes every task that drives one of a former generation.
    fn next_generation(&self) -> u32 {
        loop {
            if let Some(generation) = self.role.take_over(self.role.snapshot()) {
                return generation;
            }
        }
    }

    /// Whether tasks were woken that have not all had their turn.
    pub(crate) fn others_first(&self) -> bool {
        self.others_first.load(Ordering::Relaxed)
    }

    /// Has the tasks run that this thread has woken, then looks at `connection`, if there is any, beside
    /// what else was put off.
    pub(crate) fn let_others_run(&self, connection: Option<Weak<Connection>>) {
        if let Some(connection) = connection {
            self.later.lock().push(connection);
        }
        if !self.others_first.swap(true, Ordering::SeqCst) {
            self.come_back_after_others();
        }
    }

    /// Has the driver polled again when this thread's runtime has run what is ready.
    fn come_back_after_others(&self) {
        wake_later(&self.after_others);
    }

    fn poll(&self, context: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        if !self.task.register(turn.generation, context.waker())
            || !self.role.begin_work(turn.generation)
        {
            turn.hand_over();
            return Poll::Ready(());
        }
        self.called.store(false, Ordering::SeqCst);
        self.fresh.store(false, Ordering::Relaxed);
        self.thread.store(this_thread(), Ordering::Relaxed);
        if self.task.had_their_turn.swap(false, Ordering::SeqCst) {
            self.others_first.store(false, Ordering::SeqCst);
            let later = std::mem::take(&mut *self.later.lock());
            let later = later.iter().filter_map(Weak::upgrade);
            later.for_each(|connection| connection.mark_ready());
        }
        turn.busy.iter().for_each(|connection| connection.step_in());
        let started = Instant::now();
        turn.load.begin_pass(Some(started));
        turn.see_to_forsaken(&self.ready, started);
        loop {
            self.note_step();
            let progress = self.pass(turn);
            if self.is_replaced(turn) {
                turn.hand_over();
                return Poll::Ready(());
            }
            if progress == Progress::GiveWayToAll {
                self.others_first.store(true, Ordering::SeqCst);
            }
            let now = Instant::now();
            if turn.load.end_pass(now) {
                self.judge_load(turn, now);
            }
            if progress.gives_way() || self.others_first() {
                return self.give_way(context, turn);
            }
            if !self.wait(turn, progress, now) {
                turn.sleep();
                self.role.finish_work(turn.generation);
                if !self.role.is_listed() {
                    return Poll::Pending;
                }
                self.role.begin_work(turn.generation);
            }
            let elapsed = now - started;
            if elapsed > LONGEST_TURN || (elapsed > TURN && turn.tasks_wait()) {
                self.role.finish_work(turn.generation);
                self.come_back_after_others();
                return Poll::Pending;
            }
        }
    }

    /// Written by the task that drives alone.
    fn note_step(&self) {
        let steps = self.steps.load(Ordering::Relaxed).wrapping_add(1);
        self.steps.store(steps, Ordering::Relaxed);
    }

    fn is_replaced(&self, turn: &Turn) -> bool {
        self.generation() != turn.generation
    }

    /// Lets the tasks run that were woken: no other worker may be able to. Looks again after them, if
    /// looking pays.
    fn give_way(&self, context: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        let quiet = if turn.may_come_back() {
            turn.step_out()
        } else {
            turn.sleep();
            true
        };
        self.role.finish_work(turn.generation);
        // This worker may be the one that waits for all descriptors and timers, and it runs next what was spawned
        // last, of which no other worker has heard: a task that wakes itself while it is polled has another
        // worker come.
        let spawned = self.spawned.swap(false, Ordering::Relaxed);
        if spawned || !quiet || self.role.is_listed() {
            // There is more to do already: any worker may do it.
            context.waker().wake_by_ref();
        } else if !turn.busy.is_empty() || self.others_first() {
            self.come_back_after_others();
        }
        Poll::Pending
    }

    /// Looks at the busy connections; true if something came.
    fn wait(&self, turn: &mut Turn, progress: Progress, now: Instant) -> bool {
        turn.load.begin_pass(None);
        if turn.busy.is_empty() {
            return false;
        }
        if self.anything(turn) {
            turn.load.begin_pass(Some(now));
        }
        let spin = if may_spin() {
            turn.posture()
                .and_then(|peer| turn.record.begin(turn.policy(), peer))
        } else {
            None
        };
        let Some(spin) = spin else {
            return progress == Progress::Busy && self.anything(turn);
        };
        let outcome = look_until(now, spin.budget, || Seen::from(self.anything(turn)));
        turn.record.learn(spin, outcome);
        let found = outcome != Outcome::Missed;
        turn.looked = found;
        if !found {
            turn.busy
                .iter()
                .for_each(|busy| busy.tallies().note_look(false));
        }
        found
    }

    fn anything(&self, turn: &Turn) -> bool {
        turn.busy.iter().any(|busy| busy.has_work()) || self.role.is_listed()
    }
}

fn this_thread() -> i32 {
    thread_local! {
        static ID: i32 = thread_id();
    }
    ID.with(|id| *id)
}

/// Has the driver look for another home when its task is dropped: with its runtime.
struct Driving {
    driver: Weak<Driver>,
    generation: u32,
}

impl Drop for Driving {
    fn drop(&mut self) {
        let driver = self.driver.upgrade();
        if let Some((driver, crew)) =
            driver.and_then(|driver| Some((Arc::clone(&driver), driver.crew.upgrade()?)))
        {
            crew.lose(&driver, self.generation);
        }
    }
}

async fn drive(driver: Weak<Driver>, generation: u32) {
    let _driving = Driving {
        driver: Weak::clone(&driver),
        generation,
    };
    let mut turn = Turn::new(generation);
    if let Some(driver) = driver.upgrade()
        && driver.generation() == generation
    {
        driver
            .connections()
            .for_each(|connection| connection.list_anew());
    }
    poll_fn(|context| match driver.upgrade() {
        Some(driver) => driver.poll(context, &mut turn),
        None => Poll::Ready(()),
    })
    .await;
}
