//! Calls that are not open yet.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::deadline::Deadline;
use super::{Call, CallSender, Encode, Noted, Side, place, wait};
use crate::connection::{Connection, Request, Ticket, Waiter};
use crate::error::SendError;
use crate::link::Payload;
use crate::waiting::in_pass;

/// A call that is being opened, from one poll to the next. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Opening<'a> {
    connection: &'a Arc<Connection>,
    deadline: Deadline,
    ticket: Option<Ticket>,
}

impl<'a> Opening<'a> {
    /// A call over `connection` that has to be over at `deadline`, by the [clock](crate::clock) of the runtime
    /// that polls it.
    pub fn new(connection: &'a Arc<Connection>, deadline: Option<Instant>) -> Self {
        Self {
            connection,
            deadline: Deadline::at(deadline),
            ticket: None,
        }
    }

    /// Opens the call and sends its request; pending while there is no room for it.
    ///
    /// # Errors
    /// A [`SendError`]; nothing of the call has reached the peer then.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        message: Option<(usize, Encode<'_>)>,
    ) -> Poll<Result<Call, SendError>> {
        let len = message.as_ref().map_or(0, |(len, _)| *len);
        match self.open(context, request, message) {
            Ok(call) => {
                self.leave();
                Poll::Ready(Ok(call))
            }
            Err(SendError::Blocked(_)) if self.deadline.poll_passed(context) => {
                Poll::Ready(Err(SendError::DeadlinePassed))
            }
            Err(SendError::Blocked(lack)) => {
                let ticket = Waiter::Opening(&mut self.ticket);
                wait(self.connection, lack, ticket, len, context);
                Poll::Pending
            }
            Err(error) => {
                self.connection.note_spare_memory();
                Poll::Ready(Err(error))
            }
        }
    }

    fn open(
        &mut self,
        context: &Context<'_>,
        request: &Request<'_>,
        mut message: Option<(usize, Encode<'_>)>,
    ) -> Result<Call, SendError> {
        let connection = self.connection;
        connection.ensure_driven();
        let made_at = connection.delivered();
        let place = place(connection, None, request.max_head_len(), &mut message)?;
        let payload = message.map(|(len, encode)| Payload { len, encode });
        // The driver has one timer for all; to set one for each call costs more than many a call. It goes by the
        // clock of its runtime.
        let expires = request.deadline.is_some() && connection.is_driven_here();
        let mut state = connection.lock();
        if state.unused_calls() == 0 {
            drop(state);
            connection.borrow_slots();
            state = connection.lock();
        }
        let waker = context.waker();
        let others_are_active = state.others_are_active(None);
        connection.habits().note(waker, others_are_active);
        let id = state.open(request, expires, payload, place)?;
        connection.note_opened();
        let mut noted = None;
        if in_pass() || !connection.habits().is_alone(waker) {
            // Its first poll will not look, but wait: done here, it need not lock again.
            state.wait_to_read(id, waker);
            noted = Some(Noted {
                reader: waker.data() as usize,
                as_of: connection.readers_woken(),
                is_only: !others_are_active,
            });
        }
        let needs_timer = state.needs_timer();
        drop(state);
        if needs_timer {
            connection.mark_ready();
        }
        let connection = Arc::clone(connection);
        let mut call = Call::held(CallSender { connection, id }, Side::Client);
        call.noted = noted;
        call.made_at = Some(made_at);
        if !expires {
            call.deadline = std::mem::take(&mut self.deadline);
        }
        Ok(call)
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.connection.lock().leave(ticket);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
