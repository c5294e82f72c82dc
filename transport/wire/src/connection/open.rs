//! Client: opening calls, and naming methods by number.

use std::time::Instant;

use super::{Connection, Drain, Leftover};
use crate::call::Phase;
use crate::flow::LargeWindows;
use crate::{CallId, Method, OpenError, Role};

impl Connection {
    /// Client: takes a slot for a call. Nothing is sent yet: make the head and then the header
    /// with [`request_frame`](Self::request_frame), or [`abandon_open`](Self::abandon_open).
    ///
    /// # Errors
    /// [`OpenError`]; nothing has changed then.
    #[inline]
    pub fn open(&mut self, now: Instant, deadline: Option<Instant>) -> Result<CallId, OpenError> {
        if self.closed || self.drain != Drain::No || self.role != Role::Client {
            return Err(self.why_not_open());
        }
        if deadline.is_some_and(|at| at <= now) {
            return Err(OpenError::DeadlinePassed);
        }
        let Some(call) = self.calls.reserve() else {
            return Err(OpenError::TooManyCalls {
                limit: self.call_slots,
            });
        };
        if self.calls_in_flight == 0
            && let Some(watch) = &mut self.watch
        {
            watch.on_resume(now);
        }
        self.calls_in_flight += 1;
        if let Some(at) = deadline {
            self.watch_deadline(call, at);
        }
        Ok(call)
    }

    /// Client: keeps to fewer calls at once than the slots agreed, which another connection then has. Those that
    /// are open beyond it go on.
    pub fn limit_calls(&mut self, limit: u32) {
        self.calls.set_limit(limit.min(self.call_slots));
    }

    /// Client: calls at once that it keeps to.
    pub fn call_limit(&self) -> u32 {
        self.calls.limit()
    }

    /// Client: how many calls may be opened beside those that are not over.
    #[inline]
    pub fn unused_calls(&self) -> u32 {
        self.calls.unused()
    }

    /// Slots for calls, as the server announced.
    pub fn call_slots(&self) -> u32 {
        self.call_slots
    }

    /// Client: gives up a call whose REQUEST was not written. The peer never saw it, so its id is
    /// used by the next call in the slot. Nothing may have been sent on the call, and nothing come.
    pub fn abandon_open(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        if self.role != Role::Client || call.answered {
            return;
        }
        match call.phase {
            Phase::Reserved | Phase::Open => call.released = true,
            // It expired or was cancelled meanwhile: a peer that never saw it must not hear of it.
            Phase::Closed if call.control.take().is_some() => {}
            Phase::Closed | Phase::Idle => return,
        }
        call.requested = false;
        let released = call.released;
        let cost = std::mem::take(&mut call.request_cost);
        LargeWindows::send_or(&mut self.large, &mut self.send, cost).unspend(cost);
        if matches!(call.phase, Phase::Reserved | Phase::Open) {
            self.close_call(id, Leftover::GiveBack);
        }
        if released {
            self.calls.free(id.slot());
        }
    }

    /// Client: how to name a method. `number` is the caller's own small number for the path, the
    /// same on every call; without one, pass `u32::MAX`, and the path is sent each time.
    #[inline]
    pub fn method<'a>(&self, number: u32, path: &'a str) -> Method<'a> {
        self.defined.refer(number, path)
    }

    /// Client: a REQUEST that named its method so was written, so the peer knows the number.
    #[inline]
    pub fn method_sent(&mut self, method: Method<'_>) {
        if let Method::Define(number, _) = method {
            self.defined.define(number);
        }
    }

    pub(super) fn watch_deadline(&mut self, call: CallId, at: Instant) {
        if let Some(state) = self.calls.get_mut(call) {
            state.deadline = Some(at);
        }
        let calls = &self.calls;
        self.deadlines
            .insert(at, call, |call| calls.awaits_deadline(call));
    }

    #[cold]
    fn why_not_open(&self) -> OpenError {
        if self.role != Role::Client {
            OpenError::NotClient
        } else if self.closed {
            OpenError::Closed
        } else {
            OpenError::GoingAway
        }
    }
}
