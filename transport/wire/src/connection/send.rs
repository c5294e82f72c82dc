//! Headers of what the caller sends. Each method checks, charges, and changes the state at once.

use super::{Connection, Leftover};
use crate::call::{Call, Phase};
use crate::flow::{LargeWindows, charge, is_large};
use crate::limits::{MAX_HEAD_BYTES, MAX_MESSAGE_BYTES};
use crate::{CallId, Flags, FrameHeader, Kind, Role, SendError};

/// What a caller may say about a message.
const MESSAGE_FLAGS: Flags = Flags(Flags::END.0 | Flags::COMPRESSED.0);

impl Connection {
    /// Client: the REQUEST of a call that was opened, with `head_len` bytes of
    /// [`RequestHead`](crate::RequestHead) and, if `message_len` is given, the only or first
    /// message as payload. `flags`: END if no further message follows, COMPRESSED.
    ///
    /// # Errors
    /// [`SendError::ConnectionBlocked`]: there is no credit for the message; wait, or send the
    /// request without it. The call stays open.
    #[inline]
    pub fn request_frame(
        &mut self,
        id: CallId,
        head_len: usize,
        message_len: Option<usize>,
        flags: Flags,
    ) -> Result<FrameHeader, SendError> {
        let head_len = head_len32(head_len)?;
        let message = message_len.map(message_len32).transpose()?;
        let call = self.calls.get_mut(id).ok_or(SendError::Gone)?;
        match call.phase {
            Phase::Reserved => {}
            Phase::Open => return Err(SendError::OutOfOrder),
            Phase::Idle | Phase::Closed => return Err(SendError::Gone),
        }
        if self.closed {
            return Err(SendError::Gone);
        }
        if let Some(len) = message {
            let cost = charge(len);
            let window = LargeWindows::send_or(&mut self.large, &mut self.send, cost);
            if !window.is_open() {
                return Err(blocked_by(cost));
            }
            call.request_cost = cost;
            window.spend(cost);
            call.send.spend(cost);
        }
        let end = flags & Flags::END;
        call.phase = Phase::Open;
        call.requested = true;
        call.sent_end = end == Flags::END;
        let flags = if message.is_some() {
            flags & MESSAGE_FLAGS | Flags::HAS_MESSAGE
        } else {
            end
        };
        Ok(header(
            Kind::Request,
            id,
            flags,
            head_len,
            message.unwrap_or(0),
        ))
    }

    /// Checks that a message of at most [`LARGE_MESSAGE_BYTES`](crate::limits::LARGE_MESSAGE_BYTES) could start now: to
    /// be asked before a reservation is made for it.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message).
    #[inline]
    pub fn can_send(&self, id: CallId) -> Result<(), SendError> {
        self.can_start(id, 0)
    }

    /// Checks that a longer message could start now.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message).
    pub fn can_send_large(&self, id: CallId) -> Result<(), SendError> {
        self.can_start(id, charge(MAX_MESSAGE_BYTES))
    }

    #[inline]
    fn can_start(&self, id: CallId, cost: i64) -> Result<(), SendError> {
        let call = self.calls.get(id).filter(|call| call.phase == Phase::Open);
        match call {
            Some(_) if self.closed => Err(SendError::Gone),
            None => Err(SendError::Gone),
            Some(call) if call.sent_end => Err(SendError::HalfClosed),
            Some(call) if call.send_pieces.is_under_way() => Err(SendError::OutOfOrder),
            Some(call) if !call.send.is_open() => Err(SendError::Blocked),
            Some(_) if self.large.is_some() && is_large(cost) => {
                let has_credit = self.has_large_credit();
                has_credit.then_some(()).ok_or(SendError::LargeBlocked)
            }
            Some(call) if !self.send.has_share_for(call.send.under_way()) => {
                Err(SendError::ShareBlocked)
            }
            Some(_) => Ok(()),
        }
    }

    /// A message, whole, as payload of a frame without head. `flags`: COMPRESSED, and on a client
    /// END.
    ///
    /// # Errors
    /// [`SendError::Blocked`] and [`SendError::ShareBlocked`] pass; the others do not.
    #[inline]
    pub fn send_message(
        &mut self,
        id: CallId,
        message_len: usize,
        flags: Flags,
    ) -> Result<FrameHeader, SendError> {
        self.send_piece(id, message_len, message_len, flags)
    }

    /// The next piece of a message of `message_len` bytes. The first piece is charged for all of
    /// it, the others for nothing, so a message that has begun is never held up by credit. END, if
    /// given, takes effect with the last piece.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message); [`SendError::OutOfOrder`] if the pieces do not
    /// add up.
    pub fn send_piece(
        &mut self,
        id: CallId,
        message_len: usize,
        piece_len: usize,
        flags: Flags,
    ) -> Result<FrameHeader, SendError> {
        let (len, piece) = (message_len32(message_len)?, message_len32(piece_len)?);
        let server = self.role == Role::Server;
        if server && flags.has(Flags::END) {
            return Err(SendError::OutOfOrder);
        }
        if !self.open_call(id)?.send_pieces.is_under_way() {
            self.can_start(id, charge(len))?;
        }
        let call = self.open_call(id)?;
        let pieces = call
            .send_pieces
            .cut(len, piece)
            .ok_or(SendError::OutOfOrder)?;
        let last = !pieces.has(Flags::MORE);
        let kept = (Flags::COMPRESSED | Flags::PACKED).with(Flags::END, last);
        let flags = pieces | flags & kept;
        call.answered |= server;
        call.sent_end |= flags.has(Flags::END);
        if !flags.has(Flags::CONTINUED) {
            let cost = charge(len);
            call.send.spend(cost);
            LargeWindows::send_or(&mut self.large, &mut self.send, cost).spend(cost);
        }
        let whole = header(Kind::Message, id, flags, 0, len);
        Ok(FrameHeader {
            payload_len: piece,
            ..whole
        })
    }

    /// Client: no further message follows; a frame of its own.
    ///
    /// # Errors
    /// [`SendError::HalfClosed`] if that was said before.
    pub fn half_close(&mut self, id: CallId) -> Result<FrameHeader, SendError> {
        let client = self.role == Role::Client;
        let call = self.open_call(id)?;
        if call.sent_end {
            return Err(SendError::HalfClosed);
        }
        if !client || call.send_pieces.is_under_way() {
            return Err(SendError::OutOfOrder);
        }
        call.sent_end = true;
        Ok(header(Kind::Message, id, Flags::END, 0, 0))
    }

    /// Server: initial metadata, as a block of `head_len` bytes; at most once, and before the
    /// first message. May be left out.
    ///
    /// # Errors
    /// [`SendError::OutOfOrder`] if it is too late.
    pub fn send_headers(&mut self, id: CallId, head_len: usize) -> Result<FrameHeader, SendError> {
        let head_len = head_len32(head_len)?;
        let call = self.answering(id)?;
        if call.answered {
            return Err(SendError::OutOfOrder);
        }
        call.answered = true;
        Ok(header(Kind::Headers, id, Flags::NONE, head_len, 0))
    }

    /// Server: the whole answer of a unary call, status OK. `head_len` bytes of
    /// [`ResponseHead`](crate::ResponseHead), often none. Closes the call, so encode before. An
    /// answer that needs pieces goes as headers, message and trailers.
    ///
    /// # Errors
    /// [`SendError::ConnectionBlocked`]: try again later. [`SendError::OutOfOrder`]: something
    /// was sent before.
    #[inline]
    pub fn send_response(
        &mut self,
        id: CallId,
        head_len: usize,
        message_len: usize,
        flags: Flags,
    ) -> Result<FrameHeader, SendError> {
        let (head_len, len) = (head_len32(head_len)?, message_len32(message_len)?);
        if self.answering(id)?.answered {
            return Err(SendError::OutOfOrder);
        }
        let cost = charge(len);
        let window = LargeWindows::send_or(&mut self.large, &mut self.send, cost);
        if !window.is_open() {
            return Err(blocked_by(cost));
        }
        window.spend(cost);
        self.end_answer(id);
        let flags = flags & Flags::COMPRESSED | Flags::HAS_MESSAGE;
        Ok(header(Kind::Response, id, flags, head_len, len))
    }

    /// Server: the end of a call, with a status code and `head_len` bytes of
    /// [`StatusHead`](crate::StatusHead). Needs no credit. Closes the call.
    ///
    /// # Errors
    /// [`SendError::Gone`]; [`SendError::OutOfOrder`] for OK in the middle of a message.
    pub fn send_trailers(
        &mut self,
        id: CallId,
        code: u16,
        head_len: usize,
    ) -> Result<FrameHeader, SendError> {
        let head_len = head_len32(head_len)?;
        let call = self.answering(id)?;
        if code == crate::code::OK && call.send_pieces.is_under_way() {
            return Err(SendError::OutOfOrder);
        }
        self.end_answer(id);
        let plain = header(Kind::Trailers, id, Flags::NONE, head_len, 0);
        Ok(FrameHeader { code, ..plain })
    }

    /// Takes back a MESSAGE or REQUEST whose header was made but which was not written, nor was
    /// anything after it on its call.
    pub fn retract(&mut self, unsent: &FrameHeader) {
        let Some(id) = CallId::from_wire(unsent.call) else {
            return;
        };
        match unsent.kind {
            Kind::Request => self.abandon_open(id),
            Kind::Message => self.retract_message(id, unsent),
            _ => {}
        }
    }

    fn retract_message(&mut self, id: CallId, unsent: &FrameHeader) {
        if unsent.starts_message() {
            let cost = charge(unsent.message_len);
            LargeWindows::send_or(&mut self.large, &mut self.send, cost).unspend(cost);
        }
        let Ok(call) = self.open_call(id) else { return };
        if unsent.flags.has(Flags::END) {
            call.sent_end = false;
        }
        if unsent.flags.has(Flags::HAS_MESSAGE) {
            call.send_pieces.uncut(unsent);
        }
        if unsent.starts_message() {
            call.send.unspend(charge(unsent.message_len));
        }
    }

    #[inline]
    fn open_call(&mut self, id: CallId) -> Result<&mut Call, SendError> {
        if self.closed {
            return Err(SendError::Gone);
        }
        let call = self
            .calls
            .get_mut(id)
            .filter(|call| call.phase == Phase::Open);
        call.ok_or(SendError::Gone)
    }

    #[inline]
    fn answering(&mut self, id: CallId) -> Result<&mut Call, SendError> {
        if self.role != Role::Server {
            return Err(SendError::OutOfOrder);
        }
        self.open_call(id)
    }

    #[inline]
    fn end_answer(&mut self, id: CallId) {
        self.close_call(id, Leftover::GiveBack);
        // An answered call makes up for one that was cancelled early.
        self.early_resets.count = self.early_resets.count.saturating_sub(1);
    }
}

#[inline]
fn header(kind: Kind, id: CallId, flags: Flags, head_len: u32, len: u32) -> FrameHeader {
    FrameHeader {
        flags,
        head_len,
        call: id.to_wire(),
        payload_len: len,
        message_len: len,
        ..FrameHeader::new(kind)
    }
}

/// What a message that starts with its call's request, or is its whole answer, waits for.
#[cold]
fn blocked_by(cost: i64) -> SendError {
    if is_large(cost) {
        SendError::LargeBlocked
    } else {
        SendError::ConnectionBlocked
    }
}

#[inline]
fn head_len32(len: usize) -> Result<u32, SendError> {
    u32::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_HEAD_BYTES)
        .ok_or(SendError::TooLarge)
}

#[inline]
fn message_len32(len: usize) -> Result<u32, SendError> {
    u32::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_MESSAGE_BYTES)
        .ok_or(SendError::TooLarge)
}
