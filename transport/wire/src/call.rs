//! One call's state, and the table of all calls of a connection, indexed by slot.
//!
//! An id is a slot and the slot's generation. Generations go up by one, never to 0, so both sides
//! know which id comes next in each slot, and a frame for an older one is known to be late.

use std::num::NonZeroU64;
use std::time::Instant;

use crate::flow::{RecvWindow, SendWindow, is_large};
use crate::limits::MAX_PACKED_BYTES;
use crate::{Flags, FrameHeader, ProtocolError};

/// The id of a call: unique for the life of a connection (up to four thousand million calls in
/// one slot). Callers index their own tables by [`CallId::slot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(NonZeroU64);

impl CallId {
    #[inline]
    pub(crate) fn new(slot: u32, generation: u32) -> Option<CallId> {
        Self::from_wire(u64::from(generation) << 32 | u64::from(slot))
    }

    /// The id in a frame's `call` field; None for generation 0, which no call has.
    #[inline]
    pub fn from_wire(word: u64) -> Option<CallId> {
        if word >> 32 == 0 {
            None
        } else {
            NonZeroU64::new(word).map(CallId)
        }
    }

    /// The frame's `call` field.
    #[inline]
    pub fn to_wire(self) -> u64 {
        self.0.get()
    }

    /// Small number, below the slots agreed in the handshake; used again by later calls.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    pub fn slot(self) -> u32 {
        self.0.get() as u32
    }

    /// How often the slot was used.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    #[inline]
    fn index(self) -> usize {
        self.slot() as usize
    }
}

/// Where a slot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Nobody uses it.
    #[default]
    Idle,
    /// Client: opened by the application; no frame was made yet.
    Reserved,
    /// The peer knows it, or is about to.
    Open,
    /// Over. A client's slot stays so until it is released.
    Closed,
}

/// What the core itself has to tell the peer about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Reset { code: u16, refused: bool },
    Trailers { code: u16, text: &'static str },
}

#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    /// The generation went round once: older ones are those behind it in a circle.
    wrapped: bool,
    /// A REQUEST was made or came, so both sides know this generation.
    pub(crate) requested: bool,
    pub(crate) sent_end: bool,
    pub(crate) recv_end: bool,
    /// Initial metadata, or what follows it, was sent (server) or came (client).
    pub(crate) answered: bool,
    /// Stands in the queue of [`crate::Connection::poll_transmit`].
    pub(crate) queued: bool,
    /// Client: the application is done with it.
    pub(crate) released: bool,
    pub(crate) control: Option<Control>,
    pub(crate) send: SendWindow,
    pub(crate) recv: RecvWindow,
    /// Charged to the connection's window, and not yet taken by the application.
    pub(crate) unconsumed: i64,
    /// The same of the window of large messages.
    pub(crate) unconsumed_large: i64,
    /// Spent on the message within REQUEST, to be taken back if it is never sent.
    pub(crate) request_cost: i64,
    pub(crate) send_pieces: Pieces,
    pub(crate) recv_pieces: Pieces,
    pub(crate) deadline: Option<Instant>,
    /// The longest message that the application takes.
    pub(crate) max_message_len: u32,
    /// A longer one came: neither it nor what follows it is taken.
    pub(crate) refuses_messages: bool,
    /// Server: bytes of the request's head.
    pub(crate) head_len: u32,
}

impl Call {
    /// Everything but the id, which belongs to the slot.
    #[inline]
    fn restart(&mut self, begins: Phase, sends: &SendWindow, receives: &RecvWindow) {
        // Field by field where it lies: one made elsewhere and moved here would cost a call some 20 ns.
        let Call {
            generation: _,
            wrapped: _,
            queued: _,
            phase,
            requested,
            sent_end,
            recv_end,
            answered,
            released,
            control,
            send,
            recv,
            unconsumed,
            unconsumed_large,
            request_cost,
            send_pieces,
            recv_pieces,
            deadline,
            max_message_len,
            refuses_messages,
            head_len,
        } = self;
        *phase = begins;
        (*requested, *sent_end, *recv_end) = (false, false, false);
        (*answered, *released) = (false, false);
        *control = None;
        (*send, *recv) = (*sends, *receives);
        (*unconsumed, *unconsumed_large, *request_cost) = (0, 0, 0);
        *send_pieces = Pieces::default();
        *recv_pieces = Pieces::default();
        *deadline = None;
        (*max_message_len, *refuses_messages) = (u32::MAX, false);
        *head_len = 0;
    }

    /// Notes what was charged for a message that came; `has_large` says that there is a window for large ones.
    #[inline]
    pub(crate) fn note_unconsumed(&mut self, cost: i64, has_large: bool) {
        if has_large && is_large(cost) {
            self.unconsumed_large += cost;
        } else {
            self.unconsumed += cost;
        }
    }

    /// Returns true if the message that begins with this frame is longer than the application takes. A
    /// frame of packed messages holds several, which are judged one by one when they are decoded.
    #[inline]
    pub(crate) fn is_too_long(&self, header: &FrameHeader) -> bool {
        let longest = if header.flags.has(Flags::PACKED) {
            self.max_message_len.max(MAX_PACKED_BYTES)
        } else {
            self.max_message_len
        };
        header.message_len > longest
    }

    #[inline]
    fn next_generation(&self) -> u32 {
        self.generation.wrapping_add(1).max(1)
    }

    #[inline]
    fn advance(&mut self) {
        let next = self.next_generation();
        self.wrapped |= next < self.generation;
        self.generation = next;
    }

    /// Undoes [`Call::advance`]: the peer never saw the generation.
    fn retreat(&mut self) {
        self.generation = match self.generation {
            1 if self.wrapped => u32::MAX,
            generation => generation.saturating_sub(1),
        };
    }

    fn is_older(&self, generation: u32) -> bool {
        let behind = self.generation.wrapping_sub(generation);
        if self.wrapped {
            behind < 1 << 31
        } else {
            generation <= self.generation
        }
    }
}

/// A message on its way in pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pieces {
    total: u32,
    left: u32,
}

impl Pieces {
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.left != 0
    }

    /// Receiver: counts a frame with a message; false if it does not fit what came before.
    #[inline]
    pub(crate) fn accept(&mut self, header: &FrameHeader) -> bool {
        let fits = if header.flags.has(Flags::CONTINUED) {
            self.is_under_way() && header.message_len == self.total
        } else {
            let free = !self.is_under_way();
            if free {
                *self = Pieces {
                    total: header.message_len,
                    left: header.message_len,
                };
            }
            free
        };
        if !fits || header.payload_len > self.left {
            return false;
        }
        self.left -= header.payload_len;
        self.is_under_way() == header.flags.has(Flags::MORE)
    }

    /// Sender: the flags of the next piece, or None if it does not fit.
    pub(crate) fn cut(&mut self, message_len: u32, piece_len: u32) -> Option<Flags> {
        let continued = self.is_under_way();
        let left = if continued { self.left } else { message_len };
        if continued && message_len != self.total {
            return None;
        }
        let after = left.checked_sub(piece_len)?;
        // An empty piece of a longer message gets nobody anywhere.
        if piece_len == 0 && message_len != 0 {
            return None;
        }
        *self = Pieces {
            total: message_len,
            left: after,
        };
        let flags = Flags::HAS_MESSAGE.with(Flags::CONTINUED, continued);
        Some(flags.with(Flags::MORE, after != 0))
    }

    /// Sender: takes a piece back.
    pub(crate) fn uncut(&mut self, header: &FrameHeader) {
        if header.flags.has(Flags::CONTINUED) {
            self.left += header.payload_len;
        } else {
            *self = Pieces::default();
        }
    }
}

/// All calls of a connection.
#[derive(Debug)]
pub(crate) struct Calls {
    slots: Vec<Call>,
    /// Client: slots to use again; the last one freed is the warmest.
    free: Vec<u32>,
    limit: u32,
    send: SendWindow,
    recv: RecvWindow,
}

impl Calls {
    /// No less than `least_grant` of a call's credit is granted at a time.
    pub(crate) fn new(limit: u32, send_window: u32, recv_window: u32, least_grant: u32) -> Self {
        Calls {
            slots: Vec::new(),
            free: Vec::new(),
            limit,
            send: SendWindow::new(send_window),
            recv: RecvWindow::new(recv_window, least_grant),
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Client: how many calls may be opened beside those that are not over.
    #[inline]
    pub(crate) fn unused(&self) -> u32 {
        let used = self.slots.len() - self.free.len();
        self.limit
            .saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Client: calls from now on that are not over, at most.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// What a call may have under way, in bytes.
    #[inline]
    pub(crate) fn send_window(&self) -> i64 {
        self.send.limit()
    }

    /// Slots of calls that are not over.
    pub(crate) fn open_slots(&self) -> impl Iterator<Item = (u32, &Call)> {
        let open = |(_, call): &(u32, &Call)| call.phase == Phase::Open;
        (0..).zip(&self.slots).filter(open)
    }

    /// Client: takes a slot.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Option<CallId> {
        if self.unused() == 0 {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow_by_one()?,
        };
        let call = &mut self.slots[slot as usize];
        call.advance();
        call.restart(Phase::Reserved, &self.send, &self.recv);
        CallId::new(slot, call.generation)
    }

    /// Client: gives a slot back.
    #[inline]
    pub(crate) fn free(&mut self, slot: u32) {
        let call = &mut self.slots[slot as usize];
        if !call.requested {
            call.retreat();
        }
        call.phase = Phase::Idle;
        self.free.push(slot);
    }

    /// Server: takes the slot that a client chose, if the id is the next one there.
    #[inline]
    pub(crate) fn admit(&mut self, id: CallId) -> Result<&mut Call, ProtocolError> {
        if id.slot() >= self.limit {
            return Err(ProtocolError::SlotOutOfRange {
                slot: id.slot(),
                limit: self.limit,
            });
        }
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, Call::default);
        }
        let call = &mut self.slots[id.index()];
        let busy = call.phase == Phase::Open || call.control.is_some();
        if busy || id.generation() != call.next_generation() {
            return Err(ProtocolError::CallIdReused { call: id.to_wire() });
        }
        call.advance();
        call.restart(Phase::Open, &self.send, &self.recv);
        call.requested = true;
        Ok(call)
    }

    /// The call that a peer's frame is for; None if it is over, an error if it never was.
    #[inline]
    pub(crate) fn incoming(&mut self, word: u64) -> Result<Option<&mut Call>, ProtocolError> {
        let id = CallId::from_wire(word).ok_or(ProtocolError::CallIdZero)?;
        let unknown = ProtocolError::UnknownCall { call: word };
        let call = self.slots.get_mut(id.index()).ok_or(unknown)?;
        if id.generation() == call.generation {
            return match call.phase {
                Phase::Open => Ok(Some(call)),
                Phase::Reserved => Err(unknown),
                // Opened, and given up before the peer was told.
                Phase::Closed if !call.requested => Err(unknown),
                Phase::Closed | Phase::Idle => Ok(None),
            };
        }
        if call.is_older(id.generation()) {
            Ok(None)
        } else {
            Err(unknown)
        }
    }

    /// The call behind an id of our own caller, unless the slot has moved on.
    #[inline]
    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        self.slots
            .get(id.index())
            .filter(|call| call.generation == id.generation())
    }

    /// The same, to change it.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.slots
            .get_mut(id.index())
            .filter(|call| call.generation == id.generation())
    }

    /// The call in a slot that the core itself wrote down.
    #[inline]
    pub(crate) fn at(&mut self, slot: u32) -> &mut Call {
        &mut self.slots[slot as usize]
    }

    /// Whether a deadline of this call still means something.
    #[inline]
    pub(crate) fn awaits_deadline(&self, id: CallId) -> bool {
        self.get(id).is_some_and(|call| call.deadline.is_some())
    }

    fn grow_by_one(&mut self) -> Option<u32> {
        let slot = u32::try_from(self.slots.len()).ok()?;
        if slot >= self.limit {
            return None;
        }
        self.slots.push(Call::default());
        Some(slot)
    }

    #[cfg(test)]
    pub(crate) fn set_generation(&mut self, slot: u32, generation: u32) {
        while self.slots.len() <= slot as usize {
            self.slots.push(Call::default());
            self.free.push(slot);
        }
        self.slots[slot as usize].generation = generation;
    }
}
