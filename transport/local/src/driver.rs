//! One task of a runtime that drives all of its connections.
//!
//! A connection becomes ready when its doorbell rings, its socket stirs, one of its handlers is
//! woken, or somebody asks for it. The driver gives each ready connection a bounded pass, looks a
//! while longer at those that were busy, then arms their sleep words and sleeps.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id, RuntimeMetrics};

use crate::connection::{Connection, Progress};
use crate::waiting::{Pass, Patience, Seen, look_until, note_behind_us, wake_later};

/// How long the driver keeps its worker while tasks wait for one.
const TURN: Duration = Duration::from_millis(1);
/// How long it keeps it anyway. Each turn's end wakes another worker, because that is how tokio
/// hands out work: a thread more, for a moment, on a machine that may have just enough CPUs.
const LONGEST_TURN: Duration = Duration::from_millis(10);
/// Connections that are looked at without a doorbell, at most.
const MAX_BUSY: usize = 64;

/// Drives the connections of one runtime.
#[derive(Debug)]
pub struct Driver {
    runtime: Handle,
    /// `None` once the runtime has ended: connections keep their driver, so it must not keep them.
    ready: Mutex<Option<Vec<Arc<Connection>>>>,
    /// Whether `ready` holds any.
    listed: AtomicBool,
    /// The driver's task is at work and will look at `ready` again before it sleeps: waking it
    /// would only have the runtime poll it once more, and wake another worker for that.
    awake: AtomicBool,
    /// Tasks were woken that have not all had their turn: until the driver has come back after them,
    /// nobody keeps a worker from them by looking.
    others_first: AtomicBool,
    /// What to look at after them.
    later: Mutex<Vec<Weak<Connection>>>,
    task: Arc<DriverTask>,
    /// Wakes the driver's task after others.
    after_others: Waker,
}

/// How the driver's task is woken.
#[derive(Debug, Default)]
struct DriverTask {
    waker: AtomicWaker,
    /// The tasks before which it stood back have had their turn.
    had_their_turn: AtomicBool,
}

impl Wake for DriverTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.had_their_turn.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl Driver {
    /// The driver of the current tokio runtime; the first caller starts it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as tokio's own types do.
    pub fn current() -> Arc<Self> {
        static DRIVERS: OnceLock<Mutex<HashMap<Id, Weak<Driver>>>> = OnceLock::new();
        let runtime = Handle::current();
        let mut drivers = DRIVERS.get_or_init(Mutex::default).lock();
        if let Some(driver) = drivers.get(&runtime.id()).and_then(Weak::upgrade) {
            return driver;
        }
        drivers.retain(|_, driver| driver.strong_count() > 0);
        let task = Arc::<DriverTask>::default();
        let driver = Arc::new(Self {
            runtime: runtime.clone(),
            ready: Mutex::new(Some(Vec::new())),
            listed: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            others_first: AtomicBool::new(false),
            later: Mutex::default(),
            after_others: Waker::from(Arc::clone(&task)),
            task,
        });
        drivers.insert(runtime.id(), Arc::downgrade(&driver));
        let task = Arc::downgrade(&driver);
        runtime.spawn(tokio::task::unconstrained(drive(task)));
        driver
    }

    /// Runs `work` beside the driver, whatever thread asks.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Puts `connection` on the list and wakes the driver.
    pub(crate) fn add_ready(&self, connection: Arc<Connection>) {
        match &mut *self.ready.lock() {
            Some(ready) => ready.push(connection),
            None => return,
        }
        self.listed.store(true, Ordering::SeqCst);
        if !self.awake.load(Ordering::SeqCst) {
            self.task.waker.wake();
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
        self.task.waker.register(context.waker());
        self.awake.store(true, Ordering::SeqCst);
        if self.task.had_their_turn.swap(false, Ordering::SeqCst) {
            self.others_first.store(false, Ordering::SeqCst);
            let later = std::mem::take(&mut *self.later.lock());
            let later = later.iter().filter_map(Weak::upgrade);
            later.for_each(|connection| connection.mark_ready());
        }
        turn.busy.iter().for_each(|connection| connection.step_in());
        let started = Instant::now();
        loop {
            let progress = self.pass(turn);
            if progress == Progress::GiveWayToAll {
                self.others_first.store(true, Ordering::SeqCst);
            }
            if progress.gives_way() || self.others_first() {
                return self.give_way(context, turn);
            }
            let now = Instant::now();
            if !self.wait(turn, progress, now) {
                turn.sleep();
                self.awake.store(false, Ordering::SeqCst);
                if !self.listed.load(Ordering::SeqCst) {
                    return Poll::Pending;
                }
                self.awake.store(true, Ordering::SeqCst);
            }
            let elapsed = now - started;
            if elapsed > LONGEST_TURN || (elapsed > TURN && turn.tasks_wait()) {
                self.awake.store(false, Ordering::SeqCst);
                self.come_back_after_others();
                return Poll::Pending;
            }
        }
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
        self.awake.store(false, Ordering::SeqCst);
        if !quiet || self.listed.load(Ordering::SeqCst) {
            // There is more to do already: any worker may do it.
            context.waker().wake_by_ref();
        } else if !turn.busy.is_empty() || self.others_first() {
            self.come_back_after_others();
        }
        Poll::Pending
    }

    /// Drives what is ready; keeps what was busy for the look that follows.
    fn pass(&self, turn: &mut Turn) -> Progress {
        if self.listed.load(Ordering::SeqCst) {
            self.listed.store(false, Ordering::SeqCst);
            if let Some(ready) = &mut *self.ready.lock() {
                std::mem::swap(ready, &mut turn.ready);
            }
        }
        let _pass = Pass::enter();
        let mut total = Progress::Idle;
        for connection in turn.busy.iter().filter(|busy| busy.has_work()) {
            if turn.looked {
                connection.tallies().note_look(true);
            }
            total = total.and(connection.drive());
        }
        turn.looked = false;
        // What an ended one still holds would keep the driver awake for ever.
        turn.busy.retain(|busy| busy.is_open());
        for connection in turn.ready.drain(..) {
            let promised = connection.unlist();
            let brought = connection.drive();
            total = total.and(brought);
            let known = turn.busy.iter().any(|busy| Arc::ptr_eq(busy, &connection));
            // Whoever has done already what it was listed for looks on by itself.
            let looks = promised || brought > Progress::Idle;
            if looks && !known && connection.is_open() && turn.busy.len() < MAX_BUSY {
                if !promised {
                    connection.keep_awake();
                }
                turn.busy.push(connection);
            } else if promised {
                connection.let_sleep();
            } else if !known && connection.is_open() {
                // It may have been rung for, which is spent now.
                connection.rely_on_doorbell();
            }
        }
        total
    }

    /// Looks at the busy connections; true if something came.
    fn wait(&self, turn: &mut Turn, progress: Progress, now: Instant) -> bool {
        if turn.busy.is_empty() {
            return false;
        }
        let behind_us = |busy: &&Arc<Connection>| busy.peer_waits_for_this_cpu();
        if let Some(busy) = turn.busy.iter().find(behind_us) {
            // One of the two steps aside, not both.
            if busy.is_client() {
                note_behind_us(now);
            }
            return self.anything(turn);
        }
        let Some(budget) = turn.patience.look(now) else {
            return progress == Progress::Busy && self.anything(turn);
        };
        let found = look_until(now, budget, || Seen::from(self.anything(turn)));
        turn.patience.learn(found);
        turn.looked = found;
        if !found {
            turn.busy
                .iter()
                .for_each(|busy| busy.tallies().note_look(false));
        }
        found
    }

    fn anything(&self, turn: &Turn) -> bool {
        turn.busy.iter().any(|busy| busy.has_work()) || self.listed.load(Ordering::SeqCst)
    }
}

/// What the driver's task keeps from one poll to the next.
#[derive(Debug)]
struct Turn {
    runtime: RuntimeMetrics,
    ready: Vec<Arc<Connection>>,
    busy: Vec<Arc<Connection>>,
    patience: Patience,
    /// A look has just found something.
    looked: bool,
}

impl Turn {
    fn new() -> Self {
        Self {
            runtime: Handle::current().metrics(),
            ready: Vec::new(),
            busy: Vec::new(),
            patience: Patience::default(),
            looked: false,
        }
    }

    /// Whether to look on when the tasks that were just woken have run.
    fn may_come_back(&self) -> bool {
        !self.busy.is_empty() && self.patience.look(Instant::now()).is_some()
    }

    /// Lets tasks run before the next look; false if something has come meanwhile.
    fn step_out(&self) -> bool {
        self.busy.iter().all(|connection| connection.step_out())
    }

    /// Whether tasks wait for any worker of the runtime.
    fn tasks_wait(&self) -> bool {
        self.runtime.global_queue_depth() > 0
    }

    /// Arms every busy connection's doorbell. One that has records after that marks itself ready.
    fn sleep(&mut self) {
        for connection in self.busy.drain(..) {
            connection.let_sleep();
        }
    }
}

/// Lets go of what is ready when the driver's task is dropped: with its runtime.
struct Driving(Weak<Driver>);

impl Drop for Driving {
    fn drop(&mut self) {
        if let Some(driver) = self.0.upgrade() {
            let ready = driver.ready.lock().take();
            // Without the lock: a connection that ends here may mark others.
            drop(ready);
        }
    }
}

async fn drive(driver: Weak<Driver>) {
    let _driving = Driving(Weak::clone(&driver));
    let mut turn = Turn::new();
    poll_fn(|context| match driver.upgrade() {
        Some(driver) => driver.poll(context, &mut turn),
        None => Poll::Ready(()),
    })
    .await;
}
