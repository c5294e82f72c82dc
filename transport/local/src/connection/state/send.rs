//! Opening calls and sending frames, and waiting where that is not possible now.

use std::task::Waker;
use std::time::{Duration, Instant};

use ringway_ring::BlockRef;
use ringway_sys::fork;
use ringway_wire::{CallId, Flags, FrameHeader, RequestHead};

use super::receive::Deliveries;
use super::waiting::Ticket;
use super::{GivenUp, State};
use crate::clock;
use crate::connection::inbound::{Inbound, Request};
use crate::error::{Closed, Lack, SendError};
use crate::link::shm::MAX_INLINE_BYTES;
use crate::link::{LinkError, Outgoing, Payload, Place};

/// Waiters of a line that one pass wakes, at most: each has the next one woken when it has sent.
const MAX_CALLED: usize = 16;
/// What a record takes beside its payload, or so.
const RECORD_BYTES: usize = 128;

impl State {
    /// Opens a call and sends its request in one frame. `expires` says that its deadline is kept here, by the
    /// driver's timer; else its caller keeps it.
    pub(crate) fn open(
        &mut self,
        request: &Request<'_>,
        expires: bool,
        payload: Option<Payload<'_>>,
        place: Place,
    ) -> Result<CallId, SendError> {
        self.check_open()?;
        if payload.is_some() {
            self.check_credit()?;
        }
        // Only these need the time, which costs about as much as all the rest here.
        let now = match request.deadline.is_some() || self.core.keeps_time() {
            true => clock::now(),
            false => self.now,
        };
        let time_left = |at: Instant| at.saturating_duration_since(now);
        let timeout = request.deadline.map(time_left);
        if timeout == Some(Duration::ZERO) {
            return Err(SendError::DeadlinePassed);
        }
        let head = RequestHead {
            method: self.core.method(request.method_number, request.path),
            timeout,
            trace: request
                .trace
                .copied()
                .filter(|_| self.core.carries_traces()),
            metadata: request.metadata,
        };
        let head_len = head
            .encoded_len()
            .map_err(|error| SendError::Limit(error.to_string()))?;
        let deadline = request.deadline.filter(|_| expires);
        let message_len = payload.as_ref().map(|payload| payload.len);
        let flags = Flags::NONE
            .with(Flags::END, request.end)
            .with(Flags::COMPRESSED, request.compressed);
        let (core, mut opened) = (&mut self.core, Err(SendError::Blocked(Lack::Room)));
        let sent = self.sender.send(Outgoing {
            head_len,
            payload,
            place,
            finish: &mut |bytes| {
                head.encode(bytes);
                let (id, header) = open_call(core, now, deadline, head_len, message_len, flags)
                    .map_err(|error| opened = Err(error))
                    .ok()?;
                core.limit_messages(id, request.max_answer_bytes);
                core.method_sent(head.method);
                opened = Ok(id);
                // The peer may see it as soon as it is there, so this comes before.
                if let Some(stamp) = request.published {
                    stamp.set();
                }
                Some(header)
            },
        });
        settle(sent, opened.as_ref().err())?;
        let id = opened?;
        self.counts.calls += 1;
        if let Some(len) = message_len {
            self.counts.note_sent(1, len);
        }
        let sent = self.sender.position();
        let nobody = &mut Vec::new();
        self.slots.occupy(id, self.counts.calls, nobody).sent = sent;
        self.ring();
        Ok(id)
    }

    /// Sends a message of a call.
    pub(crate) fn send_message(
        &mut self,
        id: CallId,
        (flags, messages): (Flags, u32),
        payload: Payload<'_>,
        place: Place,
    ) -> Result<(), SendError> {
        self.check_message(id)?;
        let len = payload.len;
        self.send(&[], Some(payload), place, |core| {
            core.send_message(id, len, flags)
        })?;
        self.counts.note_sent(messages, len);
        self.leave_line(id);
        Ok(())
    }

    /// Sends the next piece of a message of `message_len` bytes.
    pub(crate) fn send_piece(
        &mut self,
        id: CallId,
        message_len: usize,
        flags: Flags,
        piece: Payload<'_>,
        place: Place,
    ) -> Result<(), SendError> {
        let (len, mut is_last) = (piece.len, false);
        self.send(&[], Some(piece), place, |core| {
            let header = core.send_piece(id, message_len, len, flags)?;
            is_last = !header.flags.has(Flags::MORE);
            Ok(header)
        })?;
        self.counts.note_sent(u32::from(is_last), len);
        self.leave_line(id);
        Ok(())
    }

    /// Sends a frame once there is room for it; only then does `make` change the core.
    fn send(
        &mut self,
        head: &[u8],
        payload: Option<Payload<'_>>,
        place: Place,
        make: impl FnOnce(&mut ringway_wire::Connection) -> Result<FrameHeader, ringway_wire::SendError>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        let (core, mut make, mut refused) = (&mut self.core, Some(make), None);
        let sent = self.sender.send(Outgoing {
            head_len: head.len(),
            payload,
            place,
            finish: &mut |bytes| {
                bytes.copy_from_slice(head);
                let made = make.take()?(core);
                made.map_err(|error| refused = Some(send_error(error))).ok()
            },
        });
        settle(sent, refused.as_ref())?;
        self.ring();
        Ok(())
    }

    /// Tells how much of a block is filled whose frame follows. Nobody is woken for that.
    pub(crate) fn tell_filled(&mut self, block: BlockRef, filled: usize) {
        if self.closed.is_none() {
            self.sender.tell_filled(block, filled);
        }
    }

    /// Client: sends no more messages on the call.
    pub(crate) fn half_close(&mut self, id: CallId) -> Result<(), SendError> {
        self.send(&[], None, Place::Inline, |core| core.half_close(id))?;
        self.leave_line(id);
        Ok(())
    }

    /// Server: sends initial metadata.
    pub(crate) fn send_headers(
        &mut self,
        id: CallId,
        metadata: &[u8],
        place: Place,
    ) -> Result<(), SendError> {
        let len = metadata.len();
        self.send(metadata, None, place, |core| core.send_headers(id, len))?;
        self.leave_line(id);
        Ok(())
    }

    /// Server: sends the whole answer of a unary call. The call is over.
    pub(crate) fn send_response(
        &mut self,
        id: CallId,
        head: &[u8],
        payload: Payload<'_>,
        place: Place,
    ) -> Result<(), SendError> {
        self.check_credit()?;
        let (head_len, len) = (head.len(), payload.len);
        self.send(head, Some(payload), place, |core| {
            core.send_response(id, head_len, len, Flags::NONE)
        })?;
        self.counts.note_sent(1, len);
        self.release(id);
        Ok(())
    }

    /// Server: ends the call with a status.
    pub(crate) fn send_trailers(
        &mut self,
        id: CallId,
        code: u16,
        head: &[u8],
        place: Place,
    ) -> Result<(), SendError> {
        let len = head.len();
        self.send(head, None, place, |core| core.send_trailers(id, code, len))?;
        self.release(id);
        Ok(())
    }

    /// Gives a call up, if it is not over.
    pub(crate) fn cancel(&mut self, id: CallId, code: u16) -> GivenUp {
        if self.closed.is_none() {
            self.core.cancel(id, code);
            // What does not fit now goes out with the next pass.
            let _ = self.flush();
            self.ring();
        }
        GivenUp {
            reader: self.slots.get(id).and_then(|slot| slot.reader.take()),
            work: self.vacate(id),
        }
    }

    /// Gives a call up on behalf of its reader, which is told by `last`. The call's place stays the reader's until
    /// that is taken.
    pub(crate) fn give_up(&mut self, id: CallId, code: u16, last: Inbound) -> Option<Waker> {
        self.core.reset(id, code);
        // What does not fit now goes out with the next pass.
        let _ = self.flush();
        self.ring();
        let slot = self.slots.get(id).filter(|slot| !slot.has_ended())?;
        slot.inbox.push_back(last);
        slot.reader.take()
    }

    /// Whether a call is in flight, or the link has not taken all yet.
    pub(crate) fn awaits_anything(&self) -> bool {
        self.in_flight() > 0 || !self.sender.is_drained()
    }

    /// What the peer has taken of what was sent, while calls wait and it has not taken all.
    pub(crate) fn untaken_by_peer(&mut self) -> Option<u64> {
        let awaited = self.closed.is_none() && (self.in_flight() > 0 || !self.waiting.is_empty());
        awaited.then(|| self.sender.untaken()).flatten()
    }

    /// Whether no call is in flight, nothing waits to be sent, and none can come: the client has
    /// heard that this side goes away, or is `told` for long enough.
    pub(crate) fn has_drained(&self, told: bool) -> bool {
        let over = self.core.is_drained() || (told && self.core.is_idle());
        self.closed.is_some() || (over && self.sender.is_drained())
    }

    /// Sends the core's own frames. Those that do not fit wait for the next pass.
    pub(crate) fn flush(&mut self) -> Result<(), Closed> {
        if self.closed.is_some() {
            return Ok(());
        }
        let mut sent = false;
        while let Some(frame) = self.control.take().or_else(|| self.core.poll_transmit()) {
            let outgoing = Outgoing {
                head_len: frame.head.len(),
                payload: None,
                place: Place::Inline,
                finish: &mut |bytes| {
                    bytes.copy_from_slice(&frame.head);
                    Some(frame.header)
                },
            };
            match self.sender.send(outgoing) {
                Ok(()) => sent = true,
                Err(LinkError::Full) => {
                    let len = frame.head.len();
                    self.control = Some(frame);
                    if !self.sender.wait_for_room(len) {
                        break;
                    }
                }
                Err(LinkError::TooLarge | LinkError::TakenBack) => {}
                Err(LinkError::Closed(why)) => return Err(why),
            }
        }
        if sent {
            self.ring();
        }
        Ok(())
    }

    /// Has `waker` called when what is missing may have come; true if it is there already. A sender that belongs
    /// to no call yet keeps its place in line as `ticket`, and leaves by it.
    pub(crate) fn wait_to_send(
        &mut self,
        lack: Lack,
        sender: Waiter<'_>,
        len: usize,
        waker: &Waker,
    ) -> bool {
        match lack {
            Lack::Room => self.counts.waits_for_room += 1,
            Lack::Credit | Lack::LargeCredit | Lack::CallCredit | Lack::Share => {
                self.counts.waits_for_credit += 1;
            }
            Lack::Memory => self.counts.waits_for_memory += 1,
        }
        let closed = self.closed.is_some();
        let id = match sender {
            Waiter::Opening(ticket) if !closed => {
                *ticket = self.waiting.join(*ticket, lack, in_record(len), waker);
                None
            }
            Waiter::Opening(_) => None,
            Waiter::Call(id) => {
                if let Some(slot) = self.slots.get(id) {
                    // Told as well when its call ends.
                    slot.writer = Some(waker.clone());
                    if !closed {
                        let len = in_record(len);
                        slot.ticket = self.waiting.join(slot.ticket, lack, len, waker);
                    }
                }
                Some(id)
            }
        };
        if closed {
            return true;
        }
        match lack {
            Lack::CallCredit => {
                let asked = id.map(|id| self.core.can_send(id));
                asked != Some(Err(ringway_wire::SendError::Blocked))
            }
            Lack::Credit => self.core.has_credit(),
            Lack::LargeCredit => self.core.has_large_credit(),
            Lack::Share => {
                let Some(id) = id.filter(|id| !self.has_share(*id)) else {
                    return true;
                };
                if let Some(slot) = self.slots.get(id)
                    && !std::mem::replace(&mut slot.awaits_share, true)
                {
                    self.awaiting_share.push(id);
                }
                false
            }
            Lack::Room => self.sender.wait_for_room(len),
            Lack::Memory => false,
        }
    }

    /// Leaves the line in which a sender waited. What it leaves may be for the next one.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.waiting.leave(ticket);
        self.call_next();
    }

    /// The same of a call, which has sent or is over.
    pub(super) fn leave_line(&mut self, id: CallId) {
        if self.waiting.is_empty() {
            return;
        }
        let ticket = self.slots.get(id).and_then(|slot| slot.ticket.take());
        ticket.into_iter().for_each(|ticket| self.leave(ticket));
    }

    /// Has one more waiter woken, as soon as the lock is free, if there is what it waits for.
    fn call_next(&mut self) {
        let next = &mut self.next_in_line;
        if next.is_some() {
            return;
        }
        let (sender, core) = (&mut self.sender, &self.core);
        self.waiting.room.call(
            |waiters, bytes| waiters == 1 && sender.wait_for_room(bytes),
            |waker| *next = Some(waker.clone()),
        );
        if next.is_none() {
            self.waiting.credit.call(
                |waiters, _| waiters == 1 && core.has_credit(),
                |waker| *next = Some(waker.clone()),
            );
        }
        if next.is_none() {
            self.waiting.large_credit.call(
                |waiters, _| waiters == 1 && core.has_large_credit(),
                |waker| *next = Some(waker.clone()),
            );
        }
        if next.is_none() {
            self.waiting.memory.call(
                |waiters, _| waiters == 1,
                |waker| *next = Some(waker.clone()),
            );
        }
    }

    /// The waiter that is to be woken when the lock is free.
    pub(crate) fn take_next_in_line(&mut self) -> Option<Waker> {
        self.next_in_line.take()
    }

    fn has_share(&self, id: CallId) -> bool {
        self.core.can_send(id) != Err(ringway_wire::SendError::ShareBlocked)
    }

    /// Wakes those for whom the connection's credit is enough now. The others stay asleep: there may be a
    /// thousand of them, and credit that comes bit by bit is for none of them.
    pub(super) fn wake_those_with_credit(&mut self, deliveries: &mut Deliveries) {
        let core = &self.core;
        self.waiting.credit.call(
            |waiters, _| waiters <= MAX_CALLED && core.has_credit(),
            |waker| deliveries.wakers.push(waker.clone()),
        );
        // One message is all that there is credit for, as a rule; its sender has the next one woken.
        self.waiting.large_credit.call(
            |waiters, _| waiters == 1 && core.has_large_credit(),
            |waker| deliveries.wakers.push(waker.clone()),
        );
        let mut waiting = std::mem::take(&mut self.awaiting_share);
        waiting.retain(|id| {
            let waits_on = !self.has_share(*id);
            let Some(slot) = self.slots.get(*id) else {
                return false;
            };
            slot.awaits_share = waits_on;
            if !waits_on {
                deliveries.wakers.extend(slot.writer.take());
            }
            waits_on
        });
        self.awaiting_share = waiting;
    }

    /// Wakes those who wait for room, as many as it is enough for, and for memory, if `fed`. Those that are woken
    /// leave their line when they have sent, and have the next ones woken.
    /// Returns true if memory is still awaited by those that were not.
    pub(crate) fn retry_blocked(&mut self, fed: bool, deliveries: &mut Deliveries) -> bool {
        let (sender, line) = (&mut self.sender, &mut self.waiting.room);
        let mut lacking = self.control.is_some() && !sender.wait_for_room(0);
        line.call(
            |waiters, bytes| waiters <= MAX_CALLED && sender.wait_for_room(bytes),
            |waker| deliveries.wakers.push(waker.clone()),
        );
        lacking |= line.awaits();
        if !lacking {
            self.sender.forget_room();
        }
        if fed {
            self.waiting.memory.call(
                |waiters, _| waiters <= MAX_CALLED,
                |waker| deliveries.wakers.push(waker.clone()),
            );
        }
        fed && self.waiting.memory.awaits()
    }

    fn check_open(&self) -> Result<(), SendError> {
        if self.generation != fork::generation() {
            return Err(SendError::Closed(Closed::Inherited));
        }
        match &self.closed {
            Some(why) => Err(SendError::Closed(why.clone())),
            None => Ok(()),
        }
    }

    /// The same for a message of a stream.
    pub(crate) fn check_message(&self, id: CallId) -> Result<(), SendError> {
        self.check_open()?;
        self.core.can_send(id).map_err(send_error)
    }

    /// The same for a message that goes in pieces.
    pub(crate) fn check_large_message(&self, id: CallId) -> Result<(), SendError> {
        self.check_open()?;
        self.core.can_send_large(id).map_err(send_error)
    }

    /// Whether a stream may send long frames.
    pub(crate) fn has_plenty(&self) -> bool {
        self.core.has_plenty()
    }

    /// Asked before a message is encoded, which may be long; others may still take the credit
    /// meanwhile.
    pub(crate) fn check_credit(&self) -> Result<(), SendError> {
        self.check_open()?;
        match self.core.has_credit() {
            true => Ok(()),
            false => Err(SendError::Blocked(Lack::Credit)),
        }
    }
}

/// The sender that waits.
pub(crate) enum Waiter<'a> {
    /// Of a call that is not open yet, which keeps its place itself.
    Opening(&'a mut Option<Ticket>),
    Call(CallId),
}

/// The room that a message of a length takes in the ring: a long one takes a block beside it.
fn in_record(len: usize) -> usize {
    match len {
        0..=MAX_INLINE_BYTES => len + RECORD_BYTES,
        _ => RECORD_BYTES,
    }
}

fn open_call(
    core: &mut ringway_wire::Connection,
    now: Instant,
    deadline: Option<Instant>,
    head_len: usize,
    message_len: Option<usize>,
    flags: Flags,
) -> Result<(CallId, FrameHeader), SendError> {
    let id = core.open(now, deadline).map_err(open_error)?;
    match core.request_frame(id, head_len, message_len, flags) {
        Ok(header) => Ok((id, header)),
        Err(error) => {
            core.abandon_open(id);
            Err(send_error(error))
        }
    }
}

/// What sending came to, where the core may have refused the frame at the last moment.
fn settle(sent: Result<(), LinkError>, refused: Option<&SendError>) -> Result<(), SendError> {
    match (sent, refused) {
        (Ok(()), _) => Ok(()),
        (Err(LinkError::TakenBack), Some(refused)) => Err(refused.clone()),
        (Err(error), _) => Err(link_error(error)),
    }
}

fn open_error(error: ringway_wire::OpenError) -> SendError {
    match error {
        ringway_wire::OpenError::GoingAway => SendError::GoingAway,
        ringway_wire::OpenError::DeadlinePassed => SendError::DeadlinePassed,
        other => SendError::Limit(other.to_string()),
    }
}

fn send_error(error: ringway_wire::SendError) -> SendError {
    match error {
        ringway_wire::SendError::Blocked => SendError::Blocked(Lack::CallCredit),
        ringway_wire::SendError::ConnectionBlocked => SendError::Blocked(Lack::Credit),
        ringway_wire::SendError::LargeBlocked => SendError::Blocked(Lack::LargeCredit),
        ringway_wire::SendError::ShareBlocked => SendError::Blocked(Lack::Share),
        ringway_wire::SendError::Gone => SendError::CallEnded,
        other => SendError::Limit(other.to_string()),
    }
}

fn link_error(error: LinkError) -> SendError {
    match error {
        LinkError::Full | LinkError::TakenBack => SendError::Blocked(Lack::Room),
        LinkError::TooLarge => SendError::Limit("larger than this connection carries".into()),
        LinkError::Closed(why) => SendError::Closed(why),
    }
}
