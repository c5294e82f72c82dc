//! What a connection keeps behind its state lock: the protocol core, the sending half, the calls.
//!
//! | file | what it does |
//! | --- | --- |
//! | `send.rs` | opens calls, sends frames, has those wait who can't |
//! | `waiting.rs` | who waits to send, in lines |
//! | `receive.rs` | judges frames: the core's events become deliveries |
//! | `held.rs` | what of the budget of the peer's user it takes up |

mod held;
mod receive;
mod send;
mod waiting;

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use ringway_ring::MemoryBudget;
use ringway_sys::fork;
use ringway_wire::{CallId, ControlFrame, code};

use self::held::HeldMemory;
pub(crate) use self::receive::Deliveries;
pub(crate) use self::send::Waiter;
pub(crate) use self::waiting::Ticket;
use self::waiting::Waiting;
use super::counters::{ConnectionStats, Counts};
use super::handlers::{Inline, Work};
use super::inbound::{Inbound, ServedMethod};
use super::slots::Slots;
use crate::clock;
use crate::error::Closed;
use crate::link::Sender;

/// The outcome of handing a future back to its call.
pub(crate) enum Kept {
    /// It waits to be woken.
    Waiting,
    /// It was woken while it was polled, and is to be polled again.
    Woken,
    /// Its call is over: to be dropped without the lock.
    Rejected(#[allow(dead_code, reason = "held to be dropped")] Inline),
}

/// What is left to do, without the lock, when a connection has ended.
#[derive(Default)]
pub(crate) struct Ended {
    wakers: Vec<Waker>,
    handlers: Vec<Work>,
}

impl Ended {
    pub(crate) fn finish(self) {
        drop(self.handlers);
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

/// What a call leaves behind that was given up: for after the lock.
#[must_use]
#[derive(Debug)]
pub(crate) struct GivenUp {
    work: Option<Work>,
    /// A handler's leftover task may read its requests: it finds no call any more, and has to be told.
    reader: Option<Waker>,
}

impl GivenUp {
    pub(crate) fn finish(self) {
        drop(self.work);
        self.reader.into_iter().for_each(Waker::wake);
    }

    /// Does the same, but lets a task of the call go on to its own end.
    pub(crate) fn let_go(self) {
        self.work.into_iter().for_each(Work::let_go);
        self.reader.into_iter().for_each(Waker::wake);
    }
}

/// The part of a connection behind its state lock.
#[derive(Debug)]
pub(crate) struct State {
    core: ringway_wire::Connection,
    held: HeldMemory,
    sender: Sender,
    slots: Slots,
    waiting: Waiting,
    /// The calls whose writers, in their slots, wait for a share of the connection's credit.
    awaiting_share: Vec<CallId>,
    /// It is to be woken as soon as the lock is free: there is what it waits for.
    next_in_line: Option<Waker>,
    control: Option<ControlFrame>,
    /// Server: what the client's method numbers stand for.
    routes: Vec<Option<Arc<ServedMethod>>>,
    closed: Option<Closed>,
    /// The peer's doorbell is to be rung as soon as the lock is free.
    ring_due: bool,
    /// The time of the last pass that asked for it.
    now: Instant,
    /// When the driver's timer fires.
    timer_at: Option<Instant>,
    /// A handler's leftover task that reads requests of a call that was just answered.
    left_reading: Option<Waker>,
    pub(super) counts: Counts,
    /// Tells the process whose connection it is from its forked children.
    generation: u32,
}

impl State {
    pub(crate) fn new(core: ringway_wire::Connection, sender: Sender) -> Self {
        Self {
            now: clock::now(),
            timer_at: None,
            left_reading: None,
            counts: Counts::default(),
            generation: fork::generation(),
            core,
            held: HeldMemory::default(),
            sender,
            slots: Slots::default(),
            waiting: Waiting::default(),
            awaiting_share: Vec::new(),
            next_in_line: None,
            control: None,
            routes: Vec::new(),
            closed: None,
            ring_due: false,
        }
    }

    /// Slots for calls, as the server announced.
    pub(crate) fn call_slots(&self) -> u32 {
        self.core.call_slots()
    }

    /// Client: calls at once that it keeps to.
    pub(crate) fn call_limit(&self) -> u32 {
        self.core.call_limit()
    }

    /// Client: how many calls may be opened now.
    #[inline]
    pub(crate) fn unused_calls(&self) -> u32 {
        self.core.unused_calls()
    }

    /// Client: keeps to fewer calls than there are slots.
    pub(crate) fn limit_calls(&mut self, limit: u32) {
        self.core.limit_calls(limit);
    }

    /// Whether all calls have ended: none begins any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(crate) fn why_closed(&self) -> Option<Closed> {
        self.closed.clone()
    }

    pub(crate) fn is_going_away(&self) -> bool {
        self.core.is_draining()
    }

    /// Whether another call than `id` has something to do just now, and is no watch that waits for long.
    pub(crate) fn others_are_active(&self, id: Option<CallId>) -> bool {
        self.slots.others_are_active(id, self.counts.calls)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.core.calls_in_flight()
    }

    /// Calls that were begun so far.
    pub(crate) fn calls(&self) -> u64 {
        self.counts.calls
    }

    pub(crate) fn drain(&mut self) {
        self.core.drain();
        // What does not fit now goes out with the next pass.
        let _ = self.flush();
        self.ring();
    }

    /// Has the peer take what was sent; by its doorbell only when the lock is free.
    fn ring(&mut self) {
        self.ring_due |= self.sender.must_ring(self.core.calls_in_flight());
    }

    /// Whether the peer's doorbell is to be rung now.
    pub(crate) fn take_ring(&mut self) -> bool {
        let due = std::mem::take(&mut self.ring_due);
        self.counts.doorbells += u64::from(due);
        due
    }

    /// Fills in what is counted here.
    pub(super) fn fill_in(&mut self, stats: &mut ConnectionStats) {
        let counts = self.counts;
        stats.calls = counts.calls;
        stats.calls_in_flight = self.in_flight();
        stats.messages_sent = counts.messages_sent;
        stats.bytes_sent = counts.bytes_sent;
        stats.messages_received = counts.messages_received;
        stats.bytes_received = counts.bytes_received;
        stats.doorbells += counts.doorbells;
        stats.waits_for_room = counts.waits_for_room;
        stats.waits_for_credit = counts.waits_for_credit;
        stats.waits_for_memory = counts.waits_for_memory;
        stats.ring = self.sender.fill();
    }

    /// Whether something is due before the driver's timer fires: then it has to be set anew.
    pub(crate) fn needs_timer(&mut self) -> bool {
        self.core
            .poll_timeout()
            .is_some_and(|due| self.timer_at.is_none_or(|at| due < at))
    }

    /// When the timer has to fire, if it has to be set anew. One that fires too early, because what
    /// it was for is over, costs less than to set one for each call.
    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        if self.needs_timer() {
            self.timer_at = self.core.poll_timeout();
            return self.timer_at;
        }
        None
    }

    /// The timer has fired.
    pub(crate) fn timer_fired(&mut self) {
        self.timer_at = None;
    }

    // ---- what this side holds

    /// Has what the peer makes this side hold taken from `budget`.
    pub(crate) fn set_budget(&mut self, budget: Arc<MemoryBudget>) {
        self.held.set_budget(budget);
    }

    /// Takes note of how much this side holds, after something has come or was taken.
    #[inline]
    pub(crate) fn note_held(&mut self) {
        let bytes = usize::try_from(self.core.held_bytes()).unwrap_or(usize::MAX);
        self.held.note(bytes);
    }

    // ---- taking what has arrived

    /// The next thing that arrived for a call; a call that is over is released with its last one. Its
    /// handler is to be dropped without the lock: it may hold calls of this very connection.
    pub(crate) fn take_inbound(&mut self, id: CallId) -> Option<(Inbound, Option<Work>)> {
        let Some(slot) = self.slots.get(id) else {
            // Its place was given to another call: it was given up.
            let given_up = Inbound::Reset {
                code: code::CANCELLED,
                refused: false,
            };
            return Some((given_up, None));
        };
        let inbound = slot.inbox.pop_front()?;
        // Who takes something does not wait.
        slot.reader = None;
        let mut handler = None;
        if inbound.ends_call() {
            handler = self.vacate(id);
        } else {
            if let Some(consumed) = inbound.message_bytes() {
                self.core
                    .consumed(id, u32::try_from(consumed).unwrap_or(u32::MAX));
                self.note_held();
                let _ = self.flush();
            }
        }
        Some((inbound, handler))
    }

    pub(crate) fn wait_to_read(&mut self, id: CallId, waker: &Waker) {
        if let Some(slot) = self.slots.get(id) {
            match &mut slot.reader {
                Some(reader) if reader.will_wake(waker) => {}
                reader => *reader = Some(waker.clone()),
            }
        }
    }

    // ---- handlers

    /// Keeps a call's handler; returns it if the call has ended meanwhile. Its slot may be another
    /// call's by then, which came in the same pass. Also says whether it was woken while it was away.
    pub(crate) fn keep_handler(&mut self, id: CallId, handler: Inline) -> Kept {
        match self.slots.get(id) {
            Some(slot) if !slot.has_ended() => {
                let task = slot.handler.replace(Work::Inline(handler));
                // The task that has handed it over.
                task.into_iter().for_each(Work::let_go);
                if std::mem::take(&mut slot.woken_meanwhile) {
                    Kept::Woken
                } else {
                    Kept::Waiting
                }
            }
            _ => Kept::Rejected(handler),
        }
    }

    /// Keeps the task that does a call's work; returns it if the call has ended meanwhile, to be aborted.
    pub(crate) fn keep_task(&mut self, id: CallId, task: Work) -> Option<Work> {
        match self.slots.get(id) {
            Some(slot) if !slot.has_ended() => {
                match slot.handler {
                    // The task has handed its future over already.
                    Some(Work::Inline(_)) => task.let_go(),
                    _ => slot.handler = Some(task),
                }
                None
            }
            // Or it has done its work by now: then there is nothing to abort.
            _ => Some(task),
        }
    }

    /// Takes the waiting futures that belong to the runtime whose passes polled them.
    pub(crate) fn take_inline_work(&mut self) -> Vec<(CallId, Work)> {
        let belongs = |work: &mut Work| matches!(work, Work::Inline(inline) if !inline.anywhere);
        let held = self.slots.held();
        held.filter_map(|(id, slot)| Some((id, slot.handler.take_if(belongs)?)))
            .collect()
    }

    /// Takes the future in a slot, to poll it.
    pub(crate) fn take_handler(&mut self, slot: u32) -> Option<(CallId, Inline)> {
        let slot = self.slots.at(slot)?;
        let id = slot.id()?;
        match slot.handler.take() {
            Some(Work::Inline(handler)) => return Some((id, handler)),
            // Polled elsewhere just now, and perhaps kept here again.
            task => slot.handler = task,
        }
        slot.woken_meanwhile = true;
        None
    }

    /// Ends all calls.
    pub(crate) fn close(&mut self, why: Closed) -> Ended {
        let mut ended = Ended::default();
        for (id, slot) in self.slots.held() {
            // Who is merely silent may yet read what it was sent.
            let unseen = why != Closed::PeerSilent && self.sender.was_not_seen(slot.sent);
            ended.handlers.extend(slot.handler.take());
            ended.wakers.extend(slot.reader.take());
            ended.wakers.extend(slot.writer.take());
            let over = slot.has_ended();
            if !over {
                let why = why.clone();
                slot.inbox.push_back(Inbound::Lost { why, unseen });
            }
            self.core.release(id);
        }
        ended.wakers.extend(self.waiting.take_all());
        self.closed = Some(why);
        ended
    }

    fn vacate(&mut self, id: CallId) -> Option<Work> {
        self.leave_line(id);
        let handler = self.slots.vacate(id)?;
        self.core.release(id);
        if self.core.wants_transmit() {
            // Credit that the call held: the peer may have nothing else to wait for. What does not
            // fit now goes out with the next pass.
            let _ = self.flush();
        }
        handler
    }

    fn release(&mut self, id: CallId) {
        self.left_reading = self.slots.get(id).and_then(|slot| slot.reader.take());
        // The handler that answers is being polled: inline, it is not in its slot; a task goes on.
        self.vacate(id).into_iter().for_each(Work::let_go);
    }

    /// Who still waited for requests of the call that was released last: to be woken without the lock.
    pub(crate) fn take_left_reading(&mut self) -> Option<Waker> {
        self.left_reading.take()
    }
}
