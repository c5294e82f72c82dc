//! What a peer's frame means. Nothing of it is trusted: every rule that it could break is checked
//! here, and the first broken one ends the connection.

use std::time::{Duration, Instant};

use super::{Connection, Drain, Leftover};
use crate::call::{Control, Phase};
use crate::flow::{LargeWindows, charge, is_large};
use crate::limits::MAX_HEADS_BYTES;
use crate::{
    CallId, Event, Flags, FrameHeader, Kind, Message, Metadata, ProtocolError, Request,
    RequestHead, Response, ResponseHead, Role, StatusHead, Verdict, code,
};

/// How long early resets are counted together.
const RESET_WINDOW: Duration = Duration::from_secs(1);

impl Connection {
    /// Takes in a frame: its header, decoded, and its head, in memory that the peer cannot change
    /// any more. The payload stays with the caller.
    ///
    /// # Errors
    /// The rule that the peer broke. The connection is over then: send what
    /// [`poll_transmit`](Self::poll_transmit) still has (a GOAWAY), and end all calls.
    #[inline]
    pub fn handle_frame<'h>(
        &mut self,
        now: Instant,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        if self.closed {
            return Err(ProtocolError::Closed);
        }
        if let Some(watch) = &mut self.watch {
            watch.on_frame(now);
        }
        let event = self.dispatch(now, header, head);
        if let Err(error) = &event {
            self.poison(error);
        }
        event
    }

    /// Judges a frame of which the payload has not arrived, or was not copied yet: so no memory is taken for
    /// a message that is longer than its call takes, or that nobody waits for. Nothing changes; when the
    /// payload was taken or passed over, the frame goes to [`handle_frame`](Self::handle_frame) as usual. All
    /// frames before it must have been handled.
    ///
    /// # Errors
    /// The rule that the peer broke, as for [`handle_frame`](Self::handle_frame).
    pub fn judge<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Verdict<'h>, ProtocolError> {
        if self.closed {
            return Err(ProtocolError::Closed);
        }
        let verdict = self.verdict(header, head);
        if let Err(error) = &verdict {
            self.poison(error);
        }
        verdict
    }

    fn verdict<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Verdict<'h>, ProtocolError> {
        self.check_role(header.kind)?;
        match header.kind {
            Kind::Request => Ok(Verdict::ByMethod(RequestHead::decode(head)?.method)),
            Kind::Message | Kind::Response => Ok(match self.calls.incoming(header.call)? {
                Some(call) if !call.refuses_messages && !call.is_too_long(header) => Verdict::Take,
                _ => Verdict::Drop,
            }),
            // No other frame of the protocol has a payload, and no link has a use for one.
            _ => Ok(Verdict::Drop),
        }
    }

    /// Sets the longest message that the application takes on a call. A longer one is
    /// [`Event::TooLong`] as soon as it begins.
    #[inline]
    pub fn limit_messages(&mut self, call: CallId, max_message_len: u32) {
        if let Some(call) = self.calls.get_mut(call) {
            call.max_message_len = max_message_len;
        }
    }

    /// Takes no further message of a call.
    pub fn refuse_messages(&mut self, call: CallId) {
        if let Some(call) = self.calls.get_mut(call) {
            call.refuses_messages = true;
        }
    }

    #[inline]
    fn dispatch<'h>(
        &mut self,
        now: Instant,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        if head.len() != header.head_len as usize {
            let announced = header.head_len;
            return Err(ProtocolError::HeadLength {
                announced,
                got: head.len(),
            });
        }
        self.check_role(header.kind)?;
        match header.kind {
            Kind::Request => self.on_request(now, header, head),
            Kind::Message => self.on_message(header),
            Kind::Headers => self.on_headers(header, head),
            Kind::Response => self.on_response(header, head),
            Kind::Trailers => self.on_trailers(header, head),
            Kind::Reset => self.on_reset(now, header),
            Kind::Credit => self.on_credit(header),
            Kind::Ping => self.pings.on_ping(header.call).map(|()| Event::Handled),
            Kind::Pong => self.on_pong(header.call),
            Kind::GoAway => self.on_goaway(header, head),
            Kind::Link(_) => Ok(Event::Link(*header)),
        }
    }

    #[inline]
    fn check_role(&self, kind: Kind) -> Result<(), ProtocolError> {
        let receiver = match kind {
            Kind::Request => Role::Server,
            Kind::Headers | Kind::Response | Kind::Trailers => Role::Client,
            _ => return Ok(()),
        };
        if self.role != receiver {
            return Err(ProtocolError::WrongRole { kind: kind.as_u8() });
        }
        Ok(())
    }

    #[inline]
    fn on_request<'h>(
        &mut self,
        now: Instant,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let head = RequestHead::decode(head)?;
        let call = self.calls.admit(id)?;
        self.methods.resolve(head.method)?;
        call.recv_end = header.flags.has(Flags::END);
        call.head_len = header.head_len;
        self.heads_bytes += u64::from(header.head_len);
        let message_len = header.starts_message().then_some(header.message_len);
        if let Some(len) = message_len {
            let cost = charge(len);
            let window = LargeWindows::recv_or(&mut self.large, &mut self.recv, cost);
            // A fresh call's own window is always open.
            if !(window.charge(cost) && call.recv.charge(cost)) {
                return Err(ProtocolError::CreditOverrun { call: 0 });
            }
            call.note_unconsumed(cost, self.large.is_some());
            self.note_charge();
        }
        self.calls_in_flight += 1;
        if let Some((code, control)) = self.refusal(&head) {
            return Ok(self.refuse(id, code, control));
        }
        let timeout = match self.call_timeout {
            Some(limit) => Some(head.timeout.map_or(limit, |asked| asked.min(limit))),
            None => head.timeout,
        };
        if let Some(at) = timeout.and_then(|timeout| now.checked_add(timeout)) {
            self.watch_deadline(id, at);
        }
        Ok(Event::Request(Request {
            call: id,
            method: head.method,
            timeout,
            trace: head.trace,
            metadata: head.metadata,
            message_len,
            compressed: header.flags.has(Flags::COMPRESSED),
            end: header.flags.has(Flags::END),
        }))
    }

    /// Whether a call that was just counted has to be turned away.
    #[inline]
    fn refusal(&self, head: &RequestHead<'_>) -> Option<(u16, Control)> {
        if self.drain == Drain::Final {
            let code = code::UNAVAILABLE;
            return Some((
                code,
                Control::Reset {
                    code,
                    refused: true,
                },
            ));
        }
        if self.calls_in_flight > self.max_concurrent_calls {
            let code = code::RESOURCE_EXHAUSTED;
            let text = "too many concurrent calls on this connection";
            return Some((code, Control::Trailers { code, text }));
        }
        if self.heads_bytes > MAX_HEADS_BYTES {
            let code = code::RESOURCE_EXHAUSTED;
            let text = "too much metadata of concurrent calls on this connection";
            return Some((code, Control::Trailers { code, text }));
        }
        if head.timeout == Some(Duration::ZERO) {
            let code = code::DEADLINE_EXCEEDED;
            let text = "the deadline passed before the call arrived";
            return Some((code, Control::Trailers { code, text }));
        }
        None
    }

    #[cold]
    fn refuse(&mut self, id: CallId, code: u16, control: Control) -> Event<'static> {
        self.close_call(id, Leftover::GiveBack);
        self.queue_control(id.slot(), control);
        Event::Refused { call: id, code }
    }

    #[inline]
    fn on_message(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let client = self.role == Role::Client;
        let Some(call) = self.calls.incoming(header.call)? else {
            return self.on_late(header);
        };
        let end = header.flags.has(Flags::END);
        if client && end {
            return Err(out_of_order(header));
        }
        if call.recv_end {
            return Err(ProtocolError::MessageAfterEnd { call: header.call });
        }
        if !header.flags.has(Flags::HAS_MESSAGE) {
            if call.recv_pieces.is_under_way() {
                return Err(ProtocolError::BadPiece { call: header.call });
            }
            call.recv_end = true;
            return Ok(Event::HalfClosed { call: id });
        }
        if !call.recv_pieces.accept(header) {
            return Err(ProtocolError::BadPiece { call: header.call });
        }
        if header.starts_message() {
            let cost = charge(header.message_len);
            if !call.recv.charge(cost) {
                return Err(ProtocolError::CreditOverrun { call: header.call });
            }
            if !LargeWindows::recv_or(&mut self.large, &mut self.recv, cost).charge(cost) {
                return Err(ProtocolError::CreditOverrun { call: 0 });
            }
            call.note_unconsumed(cost, self.large.is_some());
        }
        call.answered |= client;
        call.recv_end |= end;
        if call.refuses_messages {
            self.note_charge();
            return Ok(Event::Ignored);
        }
        if call.is_too_long(header) {
            call.refuses_messages = true;
            let limit = call.max_message_len;
            self.note_charge();
            return Ok(too_long(id, header, limit));
        }
        self.note_charge();
        Ok(Event::Message(Message {
            call: id,
            message_len: header.message_len,
            piece_len: header.payload_len,
            first: !header.flags.has(Flags::CONTINUED),
            more: header.flags.has(Flags::MORE),
            compressed: header.flags.has(Flags::COMPRESSED),
            end,
        }))
    }

    fn on_headers<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        let metadata = Metadata::decode(head)?;
        let Some(call) = self.calls.incoming(header.call)? else {
            return self.on_late(header);
        };
        if std::mem::replace(&mut call.answered, true) {
            return Err(out_of_order(header));
        }
        let call = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        Ok(Event::Headers { call, metadata })
    }

    #[inline]
    fn on_response<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let head = ResponseHead::decode(head)?;
        let Some(call) = self.calls.incoming(header.call)? else {
            return self.on_late(header);
        };
        if call.answered || !header.flags.has(Flags::HAS_MESSAGE) {
            return Err(out_of_order(header));
        }
        let cost = charge(header.message_len);
        if !LargeWindows::recv_or(&mut self.large, &mut self.recv, cost).charge(cost) {
            return Err(ProtocolError::CreditOverrun { call: 0 });
        }
        call.note_unconsumed(cost, self.large.is_some());
        let (is_too_long, limit) = (call.is_too_long(header), call.max_message_len);
        self.close_call(id, Leftover::Keep);
        self.note_charge();
        if is_too_long {
            return Ok(too_long(id, header, limit));
        }
        Ok(Event::Response(Response {
            call: id,
            message_len: header.message_len,
            compressed: header.flags.has(Flags::COMPRESSED),
            initial: head.initial,
            trailing: head.trailing,
        }))
    }

    fn on_trailers<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let status = StatusHead::decode(head)?;
        let Some(call) = self.calls.incoming(header.call)? else {
            return self.on_late(header);
        };
        if header.code == code::OK && call.recv_pieces.is_under_way() {
            return Err(ProtocolError::BadPiece { call: header.call });
        }
        self.close_call(id, Leftover::Keep);
        Ok(Event::Trailers {
            call: id,
            code: header.code,
            status,
        })
    }

    fn on_reset(
        &mut self,
        now: Instant,
        header: &FrameHeader,
    ) -> Result<Event<'static>, ProtocolError> {
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let Some(call) = self.calls.incoming(header.call)? else {
            return self.on_late(header);
        };
        let leftover = if self.role == Role::Server {
            if !call.answered {
                self.early_resets.count(now)?;
            }
            Leftover::GiveBack
        } else {
            Leftover::Keep
        };
        self.close_call(id, leftover);
        let refused = header.flags.has(Flags::REFUSED);
        Ok(Event::Reset {
            call: id,
            code: header.code,
            refused,
        })
    }

    /// A frame of a call that is over on this side. What it carries counts against the connection
    /// and is given back at once.
    #[cold]
    fn on_late(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        if header.starts_message() {
            let cost = charge(header.message_len);
            let window = LargeWindows::recv_or(&mut self.large, &mut self.recv, cost);
            if !window.charge(cost) {
                return Err(ProtocolError::CreditOverrun { call: 0 });
            }
            if self.large.is_some() && is_large(cost) {
                self.take_back_large(cost);
            } else {
                self.take_back(cost);
            }
        }
        if matches!(header.kind, Kind::Response | Kind::Trailers | Kind::Reset) {
            self.forget_control(header.call);
        }
        Ok(Event::Ignored)
    }

    /// The peer ended a call at the same time as this side: what this side had not yet said about
    /// it needs no saying. It must not be said either, since the peer may use the slot again.
    fn forget_control(&mut self, word: u64) {
        let Some(id) = CallId::from_wire(word) else {
            return;
        };
        let client = self.role == Role::Client;
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let pending = call.control.take().is_some();
        if pending && client && call.released && call.phase == Phase::Closed {
            self.calls.free(id.slot());
        }
    }

    fn on_credit(&mut self, header: &FrameHeader) -> Result<Event<'static>, ProtocolError> {
        let bad = ProtocolError::BadCredit {
            call: header.call,
            granted: header.message_len,
        };
        if header.flags.has(Flags::LARGE) {
            let large = self.large.as_mut().filter(|_| header.call == 0);
            let opened = large.and_then(|large| large.send.grant(header.message_len));
            return Ok(if opened.ok_or(bad)? {
                Event::WritableAll
            } else {
                Event::Handled
            });
        }
        if header.call == 0 {
            // Where there is less than a call may have under way, one may wait for its share.
            let little = !self.send.has_share_for(self.calls.send_window());
            let opened = self.send.grant(header.message_len).ok_or(bad)?;
            return Ok(match opened || little {
                true => Event::WritableAll,
                false => Event::Handled,
            });
        }
        let id = CallId::from_wire(header.call).ok_or(ProtocolError::CallIdZero)?;
        let Some(call) = self.calls.incoming(header.call)? else {
            return Ok(Event::Ignored);
        };
        let had_share = self.send.has_share_for(call.send.under_way());
        let opened = call.send.grant(header.message_len).ok_or(bad)?;
        Ok(match opened || !had_share {
            true => Event::Writable { call: id },
            false => Event::Handled,
        })
    }

    fn on_pong(&mut self, token: u64) -> Result<Event<'static>, ProtocolError> {
        self.pings.on_pong(token)?;
        if self.drain == (Drain::Announced { token }) {
            self.drain = Drain::Final;
            return Ok(Event::Handled);
        }
        Ok(Event::Pong { token })
    }

    fn on_goaway<'h>(
        &mut self,
        header: &FrameHeader,
        head: &'h [u8],
    ) -> Result<Event<'h>, ProtocolError> {
        let text = crate::cursor::utf8(head)?;
        if self.role == Role::Client {
            self.drain = Drain::Final;
        }
        Ok(Event::GoAway {
            code: header.code,
            text,
        })
    }
}

impl super::EarlyResets {
    fn count(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if now.saturating_duration_since(self.since) >= RESET_WINDOW {
            self.since = now;
            self.count = 0;
        }
        self.count += 1;
        if self.count > self.limit {
            return Err(ProtocolError::ResetFlood { limit: self.limit });
        }
        Ok(())
    }
}

fn too_long(call: CallId, header: &FrameHeader, limit: u32) -> Event<'static> {
    Event::TooLong {
        call,
        message_len: header.message_len,
        limit,
    }
}

fn out_of_order(header: &FrameHeader) -> ProtocolError {
    ProtocolError::OutOfOrder {
        call: header.call,
        kind: header.kind.as_u8(),
    }
}
