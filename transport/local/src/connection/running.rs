//! Runs the user's code that passes lead to: handlers, request streams of clients, and their drops.
//!
//! It runs without any lock, and what waits for its turn lies where any thread finds it: calls that have begun
//! in the [`Backlog`], woken futures on their list. So code that blocks its thread holds up nothing but itself
//! once another thread drives the connection. Quick futures are polled in place, all others are tasks: the
//! method's [`Pace`] decides.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use ringway_wire::{CallId, code};
use tokio::runtime::Handle;

use super::handlers::{AbortOnDrop, HandlerFuture, Inline, Work};
use super::inbound::Started;
use super::pass::LONGEST_PASS;
use super::state::Kept;
use super::{Connection, Progress};
use crate::link::stream::later::flush_now;
use crate::pace::{Pace, PollTimer};
use crate::pressing::BRIEF_FRAMES;
use crate::waiting;

/// Woken futures that one drive polls, at most: they may wake each other for ever.
const MAX_POLLS: usize = 256;
/// Futures after which a drive looks at the clock: one that has taken as long as a pass leaves the others to the next.
const POLLS_UNTIMED: usize = 32;
/// A task whose method has become quick goes on inline after so many polls of its own.
const POLLS_BEFORE_INLINE: u32 = 8;

/// Calls that have begun and wait to be started.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    calls: Mutex<VecDeque<Started>>,
    any: AtomicBool,
}

impl Backlog {
    /// Adds calls behind those that wait. `first` precedes them, and stays where it is if none waits.
    pub(super) fn take_over(&self, started: &mut VecDeque<Started>, first: &mut Option<Started>) {
        let any = self.any.load(Ordering::Acquire);
        if started.is_empty() && !(any && first.is_some()) {
            return;
        }
        let mut calls = self.calls.lock();
        if !calls.is_empty() {
            calls.extend(first.take());
        }
        if calls.is_empty() {
            std::mem::swap(&mut *calls, started);
        } else {
            calls.append(started);
        }
        self.any.store(!calls.is_empty(), Ordering::Release);
    }

    /// Drops the calls that wait: none of them is started any more.
    pub(super) fn clear(&self) {
        let calls = std::mem::take(&mut *self.calls.lock());
        self.any.store(false, Ordering::Release);
        drop(calls);
    }

    fn next(&self) -> Option<Started> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut calls = self.calls.lock();
        let next = calls.pop_front();
        if calls.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        next
    }
}

/// The time that a drive spends in the user's code before other connections have their turn.
#[derive(Debug, Default)]
struct Budget {
    polls: usize,
    /// When the first polls had been made, which are not timed.
    since: Option<Instant>,
    is_spent: bool,
    /// It has no time, but a few polls.
    brief: bool,
}

impl Budget {
    /// Counts a poll that is to be made; returns true, from then on, if it has to wait.
    fn is_spent(&mut self) -> bool {
        if self.brief && self.polls == BRIEF_FRAMES {
            self.is_spent = true;
        } else if self.polls == POLLS_UNTIMED {
            self.polls = 0;
            let since = self.since.get_or_insert_with(Instant::now);
            self.is_spent = since.elapsed() >= LONGEST_PASS;
        }
        self.polls += 1;
        self.is_spent
    }
}

impl Connection {
    /// Runs what passes have brought: `first`, the backlog, and the futures that were woken.
    pub(super) fn run_brought(self: &Arc<Self>, first: &mut Option<Started>) -> Progress {
        if first.is_none() && !self.has_waiting_work() {
            return Progress::Idle;
        }
        let _inside = waiting::in_pass().then(|| self.driver().enter_user_code());
        self.run_all(first)
    }

    /// Drops the futures of calls that have ended: what they own may block as well.
    pub(super) fn drop_user_code(&self, dropped: Vec<Work>) {
        if !dropped.is_empty() {
            let _inside = waiting::in_pass().then(|| self.driver().enter_user_code());
            drop(dropped);
        }
    }

    fn run_all(self: &Arc<Self>, first: &mut Option<Started>) -> Progress {
        let mut progress = Progress::Idle;
        if first.is_some() {
            progress = progress.and(self.start_handler(first));
        }
        let mut budget = Budget {
            brief: self.pressing.is_brief(),
            ..Budget::default()
        };
        while !budget.is_spent()
            && let Some(started) = self.backlog.next()
        {
            progress = progress.and(self.start_handler(&mut Some(started)));
        }
        for polls in 0.. {
            if polls == MAX_POLLS || budget.is_spent() {
                self.pressing.note_used_up();
                break;
            }
            let Some(slot) = self.handlers.next_woken() else {
                break;
            };
            let taken = self.lock().take_handler(slot);
            progress = progress.max(Progress::Busy);
            if let Some((id, handler)) = taken {
                let begun = handler.pace.begin_inline();
                self.poll_inline(id, handler, begun);
            }
        }
        if self.has_waiting_work() {
            self.mark_ready();
        }
        progress
    }

    fn has_waiting_work(&self) -> bool {
        self.backlog.any.load(Ordering::Acquire) || self.handlers.any_woken()
    }

    /// Starts a handler: polls it where its request was read, or makes it a task.
    fn start_handler(self: &Arc<Self>, started: &mut Option<Started>) -> Progress {
        let (Some(service), Some(opened)) = (&self.service, &*started) else {
            return Progress::Idle;
        };
        let (id, pace) = (opened.call.id(), Arc::clone(&opened.method.pace));
        if !pace.is_inline() {
            let started = started.take();
            self.spawn(id, Spawned::new(self, id, pace, Begun::Not(started)), None);
            return Progress::GiveWay;
        }
        let begun = pace.begin_inline();
        let made = catch_unwind(AssertUnwindSafe(|| service.start(started)));
        if let Ok(future) = made {
            let inline = Inline {
                future,
                pace,
                anywhere: false,
            };
            self.poll_inline(id, inline, begun);
        }
        Progress::Busy
    }

    /// Gives a call a future that runs beside it from now on: a client's request stream.
    pub(crate) fn attach(self: &Arc<Self>, id: CallId, future: HandlerFuture, pace: Arc<Pace>) {
        // User code is polled inside its own runtime alone. Outside of all there is no other place for it than the
        // passes of its connection.
        let here = Handle::try_current();
        if let Ok(runtime) = &here
            && !(pace.is_inline() && self.crew.home().is(runtime.id()))
        {
            let spawned = Spawned::new(self, id, pace, Begun::Is(future));
            return self.spawn(id, spawned, Some(runtime));
        }
        let anywhere = here.is_err();
        self.keep(
            id,
            Inline {
                future,
                pace,
                anywhere,
            },
        );
        self.handlers.wake(id.slot());
        if waiting::in_pass() {
            self.mark_ready();
        } else {
            self.drive();
        }
    }

    /// Polls a future in place. A panic ends the future alone: dropping it drops its call, which then fails.
    fn poll_inline(self: &Arc<Self>, id: CallId, mut handler: Inline, begun: Option<PollTimer>) {
        let driver = self.driver();
        let generation = driver.generation();
        let polled = {
            let _pass = waiting::Pass::enter();
            let mut context = Context::from_waker(self.handlers.waker(id.slot()));
            catch_unwind(AssertUnwindSafe(|| {
                // A budget of its own: the task that runs this pass must not pay for it.
                let unconstrained = tokio::task::unconstrained(handler.future.as_mut());
                pin!(unconstrained).poll(&mut context)
            }))
        };
        if generation != driver.generation() {
            handler.pace.note_stuck();
        } else if let Some(begun) = begun {
            handler.pace.note_poll(&begun);
        }
        if !matches!(polled, Ok(Poll::Pending)) {
            return;
        }
        if handler.pace.is_inline() {
            self.keep(id, handler);
        } else {
            let Inline { future, pace, .. } = handler;
            self.spawn(id, Spawned::new(self, id, pace, Begun::Is(future)), None);
        }
    }

    /// Keeps a future that waits in its call's slot.
    fn keep(&self, id: CallId, handler: Inline) {
        let kept = self.lock().keep_handler(id, handler);
        if let Kept::Woken = kept {
            self.handlers.wake(id.slot());
            self.mark_ready();
        }
    }

    fn spawn(&self, id: CallId, spawned: Spawned, runtime: Option<&Handle>) {
        let task = match runtime {
            Some(runtime) => Some(runtime.spawn(spawned).abort_handle()),
            None => {
                self.driver().note_spawned();
                self.driver().spawn(spawned)
            }
        };
        // Without a runtime it was dropped, and its call has ended.
        let Some(task) = task else { return };
        let task = Work::Task(AbortOnDrop::new(task));
        let rejected = self.lock().keep_task(id, task);
        drop(rejected);
    }
}

/// The work of a call that is a task of the runtime.
struct Spawned {
    connection: Arc<Connection>,
    id: CallId,
    pace: Arc<Pace>,
    begun: Begun,
    polls: u32,
    /// It is being polled, or a poll has panicked.
    polling: bool,
    over: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "it lies in its task: a box would be one allocation more for each call"
)]
enum Begun {
    Not(Option<Started>),
    Is(HandlerFuture),
}

impl Spawned {
    fn new(connection: &Arc<Connection>, id: CallId, pace: Arc<Pace>, begun: Begun) -> Self {
        Self {
            connection: Arc::clone(connection),
            id,
            pace,
            begun,
            polls: 0,
            polling: false,
            over: false,
        }
    }

    /// Starts the handler, in its task as well: decoding and interceptors may take long.
    fn future(&mut self) -> Option<&mut HandlerFuture> {
        if let Begun::Not(started) = &mut self.begun {
            let service = self.connection.service.as_ref()?;
            self.begun = Begun::Is(service.start(started));
        }
        match &mut self.begun {
            Begun::Is(future) => Some(future),
            Begun::Not(_) => None,
        }
    }

    /// Returns true if its method is quick, and the driver polls in the runtime that polls it now.
    fn may_go_inline(&self) -> bool {
        self.pace.is_inline() && self.connection.crew.home().is_here()
    }

    /// Goes on inline from here on.
    fn hand_over(&mut self) {
        let begun = std::mem::replace(&mut self.begun, Begun::Not(None));
        if let Begun::Is(future) = begun {
            let pace = Arc::clone(&self.pace);
            let inline = Inline {
                future,
                pace,
                anywhere: false,
            };
            self.connection.keep(self.id, inline);
            // Its wakers are those of this task.
            self.connection.handlers.wake(self.id.slot());
            self.connection.mark_ready();
        }
    }
}

impl Future for Spawned {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // It may block its thread, and so keep what the thread was to send after it.
        flush_now();
        let timer = self.pace.begin_task();
        self.polling = true;
        let polled = match self.future() {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Ready(()),
        };
        self.polling = false;
        if !waiting::has_workers() {
            // A runtime of one thread forgets what it has put off when it leaves `block_on`.
            flush_now();
        }
        if let Some(timer) = timer {
            self.pace.note_poll(&timer);
        }
        if polled.is_ready() {
            self.over = true;
            return polled;
        }
        self.polls = self.polls.saturating_add(1);
        if self.polls >= POLLS_BEFORE_INLINE && self.may_go_inline() {
            self.over = true;
            self.hand_over();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Its runtime ends, or its call has. A handler that panics has not answered, and its call says so; a
        // client's call goes on without its request stream.
        if !self.over && !self.polling && !self.connection.is_client() {
            let given_up = self.connection.lock().cancel(self.id, code::CANCELLED);
            given_up.let_go();
        }
    }
}
