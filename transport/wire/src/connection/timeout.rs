//! What time brings about: calls that expire, and peers that stay silent.

use std::time::Instant;

use super::{Connection, Leftover};
use crate::call::{Control, Phase};
use crate::keepalive::Verdict;
use crate::{CallId, Event, Role, code};

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) has something to do, as things stand now.
    #[inline]
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let calls = &self.calls;
        let deadline = self.deadlines.next(|call| calls.awaits_deadline(call));
        let watch = self
            .watch
            .as_ref()
            .and_then(|watch| watch.next(self.calls_in_flight > 0));
        match (deadline, watch) {
            (Some(deadline), Some(watch)) => Some(deadline.min(watch)),
            (deadline, watch) => deadline.or(watch),
        }
    }

    /// Does what is due at `now`; the events come from [`poll_event`](Self::poll_event). Calling
    /// it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        while let Some(call) = self.deadlines.pop_expired(now) {
            if self.calls.awaits_deadline(call) {
                self.expire(call);
            }
        }
        let busy = self.calls_in_flight > 0;
        match self.watch.as_mut().map(|watch| watch.look(now, busy)) {
            Some(Verdict::Ping) => {
                // If none can be started, others are under way: any answer will do.
                let _token = self.pings.start();
            }
            Some(Verdict::Lost) => {
                self.close(code::UNAVAILABLE, "peer did not answer in time");
                self.events.push_back(Event::PeerSilent);
            }
            Some(Verdict::Fine) | None => {}
        }
    }

    /// What happened without a frame.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event<'static>> {
        self.events.pop_front()
    }

    fn expire(&mut self, id: CallId) {
        let code = code::DEADLINE_EXCEEDED;
        let control = match (self.role, self.calls.get(id).map(|call| call.phase)) {
            (Role::Server, Some(Phase::Open)) => Some(Control::Trailers {
                code,
                text: "the deadline passed",
            }),
            (Role::Client, Some(Phase::Open)) => Some(Control::Reset {
                code,
                refused: false,
            }),
            // Opened, but the peer was not told of it yet, so it need not be told of its end.
            _ => None,
        };
        self.close_call(id, Leftover::GiveBack);
        if let Some(control) = control {
            self.queue_control(id.slot(), control);
        }
        self.events.push_back(Event::Expired { call: id });
    }
}
