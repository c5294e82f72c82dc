//! What arrives for a call: who takes it, who looks for it, and who waits.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ringway_wire::code;

use super::{Call, CallSender, Side};
use crate::connection::{Inbound, Looker};
use crate::pace::beside_the_poll;
use crate::shared_cpu::SIT_OUT;
use crate::spin::{Outcome, WaitPolicy};
use crate::waiting::{Seen, in_pass, is_blocked, look_until, may_spin, wake_later};

/// So often may a call have its task go on without a break while other calls are active, whose tasks may
/// wait for the same worker. Tokio's own budget is 128, but not every loop spends it.
const MAX_IN_A_ROW: u32 = 16;

/// The bytes that a task reads of a call before it gives way, also where no other call is active: the peer may send
/// without end, and the task keeps its worker from the driver, for which other connections wait.
const MAX_READ_IN_A_ROW_BYTES: usize = 4 * 1024 * 1024;
/// The bytes that each message counts beside its own.
const MESSAGE_BYTES: usize = 4 * 1024;

/// What has become of a call at this end.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) over: bool,
    /// The bytes that the task has read since it last waited.
    read_bytes: usize,
    /// In so many polls in a row something had come already, while other calls were active.
    in_a_row: u32,
}

impl Call {
    /// What arrives next; `None` once the call is over.
    ///
    /// Looks at the ring by itself for a while where that pays, and delivers for everyone.
    pub fn poll_inbound(&mut self, context: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if self.course.read_bytes >= MAX_READ_IN_A_ROW_BYTES && !is_blocked() {
            self.course.read_bytes = 0;
            if in_pass() {
                context.waker().wake_by_ref();
            } else {
                wake_later(context.waker());
            }
            return Poll::Pending;
        }
        let polled = self.poll_arrived(context);
        match &polled {
            Poll::Ready(Some(Inbound::Message(message))) => {
                self.course.read_bytes += message.bytes.len() + MESSAGE_BYTES;
            }
            Poll::Ready(_) => {}
            Poll::Pending => self.course.read_bytes = 0,
        }
        polled
    }

    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if self.course.over {
            return Poll::Ready(None);
        }
        if let Some(noted) = self.noted.take()
            && noted.reader == context.waker().data() as usize
            && noted.as_of == self.connection().readers_woken()
        {
            self.polls = 1;
            self.wait_for_driver(noted.is_only);
            return self.or_expired(context);
        }
        let may_look = self.may_look_now(context);
        if may_look {
            if self.course.in_a_row >= MAX_IN_A_ROW && !is_blocked() {
                self.course.in_a_row = 0;
                wake_later(context.waker());
                return Poll::Pending;
            }
            let seen = self.connection().delivered();
            // Most calls are looked for as soon as they are made: nothing can have come.
            let is_fresh = self.polls == 1 && self.made_at == Some(seen);
            let there = if is_fresh { None } else { self.take() };
            if let Some(inbound) = there.or_else(|| self.look(context.waker(), seen)) {
                return Poll::Ready(Some(self.unless_late(inbound)));
            }
            self.course.in_a_row = 0;
        }
        let id = self.sender.id;
        let mut state = self.sender.connection.lock();
        if let Some((inbound, handler)) = state.take_inbound(id) {
            drop(state);
            drop(handler);
            self.course.over = inbound.ends_call();
            return Poll::Ready(Some(self.unless_late(inbound)));
        }
        state.wait_to_read(id, context.waker());
        let is_only = !state.others_are_active(Some(id));
        drop(state);
        self.wait_for_driver(!may_look && is_only && self.side == Side::Client);
        self.or_expired(context)
    }

    /// Waits, but not beyond the deadline.
    fn or_expired(&mut self, context: &mut Context<'_>) -> Poll<Option<Inbound>> {
        match self.deadline.poll_passed(context) {
            true => Poll::Ready(Some(self.expire())),
            false => Poll::Pending,
        }
    }

    /// What has arrived, unless its call goes on and has no time left: a stream that is always ready never waits.
    fn unless_late(&mut self, inbound: Inbound) -> Inbound {
        match !self.course.over && self.deadline.has_passed() {
            true => self.expire(),
            false => inbound,
        }
    }

    fn expire(&mut self) -> Inbound {
        self.cancel(code::DEADLINE_EXCEEDED);
        Inbound::Expired
    }

    /// The last step before a task waits. `first` says that it waits alone, and did not look by itself.
    fn wait_for_driver(&self, first: bool) {
        self.connection().ensure_driven();
        if first && !in_pass() {
            // The driver looks instead, after this task and on this very worker.
            self.connection().ask_for_a_look();
        } else {
            self.connection().wait_for_doorbell();
        }
    }

    fn take(&mut self) -> Option<Inbound> {
        self.course
            .take_and_ask(&self.sender)
            .map(|(inbound, _)| inbound)
    }

    /// The first poll of a call must not keep a caller from sending its other calls: unless the
    /// caller has shown that it makes one call at a time, the first look waits for the second poll.
    fn may_look_now(&mut self, context: &Context<'_>) -> bool {
        if in_pass() {
            return false;
        }
        self.polls = self.polls.saturating_add(1);
        let known = self.side != Side::Client || self.polls > 1;
        known || is_blocked() || self.connection().habits().is_alone(context.waker())
    }

    /// Drives the connection until something arrives for this call or patience ends. There was nothing for it
    /// yet when the connection had [`delivered`](Connection::delivered) what was `seen`.
    fn look(&mut self, waker: &Waker, seen: u32) -> Option<Inbound> {
        let mut looker = Looker {
            call: self.sender.id,
            waker,
            owes: false,
        };
        let found = beside_the_poll(|| self.look_as(&mut looker, seen));
        if looker.owes {
            self.connection().ask_for_a_look();
        }
        found
    }

    fn look_as(&mut self, looker: &mut Looker<'_>, mut seen: u32) -> Option<Inbound> {
        let connection = &self.sender.connection;
        // A blocked thread keeps nobody from a worker.
        let shares_worker = !is_blocked();
        let mut woke_others = false;
        if connection.handlers().any_woken() || connection.has_work() {
            woke_others = connection.drive_for(Some(looker)).gives_way() && shares_worker;
            if woke_others {
                connection.let_others_run();
            }
            seen = connection.delivered();
            if let Some((inbound, _)) = self.course.take_and_ask(&self.sender) {
                return Some(inbound);
            }
        }
        if woke_others || (shares_worker && connection.others_first()) {
            return None;
        }
        let start = Instant::now();
        if !may_spin() {
            return None;
        }
        let record = connection.spin_record();
        let spin = if connection.peer_waits_for_this_cpu() {
            None
        } else {
            Some(record.begin(connection.wait_policy(), connection.peer_posture())?)
        };
        let budget = match &spin {
            Some(spin) => spin.budget,
            None if self.may_poll_on() => SIT_OUT,
            None => return None,
        };
        connection.keep_awake();
        let mut found = None;
        let mut parts = connection.parts();
        let mut outcome = look_until(start, budget, || {
            if connection.has_work() || connection.handlers().any_woken() {
                woke_others |= connection.drive_for(Some(looker)).gives_way() && shares_worker;
            }
            // By whichever thread's pass.
            let delivered = connection.delivered();
            if delivered != seen {
                seen = delivered;
                found = self.course.take_and_ask(&self.sender);
                let parts_before = std::mem::replace(&mut parts, connection.parts());
                if found.is_none() && parts != parts_before {
                    return Seen::Part;
                }
            }
            Seen::from(found.is_some() || woke_others)
        });
        if woke_others {
            connection.let_others_run();
        }
        let found = match found {
            // A server waits for requests, whatever becomes of this one.
            Some((inbound, quiet)) if self.course.over && self.side == Side::Client => {
                connection.let_sleep_if_awaited(quiet);
                Some(inbound)
            }
            found => {
                connection.let_sleep();
                found.map(|(inbound, _)| inbound)
            }
        };
        if found.is_none() && !woke_others {
            outcome = Outcome::Missed;
        }
        if let Some(spin) = spin
            && (found.is_some() || !woke_others)
        {
            record.learn(spin, outcome);
        }
        connection.tallies().note_look(found.is_some());
        found
    }
}

impl Call {
    /// Whether to poll on though the peer waits for this CPU; not where the user wants threads parked.
    fn may_poll_on(&self) -> bool {
        let connection = self.connection();
        connection.wait_policy() != WaitPolicy::Park && connection.polls_on_shared_cpu()
    }
}

impl Course {
    /// What has arrived for a call; and, if nobody waits for anything more, as of which opening.
    fn take_and_ask(&mut self, sender: &CallSender) -> Option<(Inbound, Option<u32>)> {
        let connection = &sender.connection;
        let mut state = connection.lock();
        let (inbound, handler) = state.take_inbound(sender.id)?;
        self.over = inbound.ends_call();
        self.in_a_row = match !self.over && state.others_are_active(Some(sender.id)) {
            true => self.in_a_row + 1,
            false => 0,
        };
        let quiet = (!state.awaits_anything()).then(|| connection.opened());
        drop(state);
        drop(handler);
        Some((inbound, quiet))
    }
}
