//! The state machine of one connection. [`Connection`] is here with its getters and the calls' ends;
//! what each direction does stands in the submodules.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `open.rs` | client: opening calls, methods by number |
//! | `send.rs` | headers of what the caller sends |
//! | `receive.rs` | what a peer's frame means |
//! | `transmit.rs` | frames that the core itself has to send |
//! | `timeout.rs` | deadlines and keepalive |

mod open;
mod receive;
mod send;
mod timeout;
mod transmit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::call::{CallId, Calls, Control, Phase};
use crate::config::Config;
use crate::deadline::Deadlines;
use crate::flow::{
    GRANT_PARTS, LargeWindows, RecvWindow, STREAM_GRANT_PARTS, Scarcity, SendWindow, charge,
    is_large,
};
use crate::keepalive::{Pings, Watch};
use crate::limits::MAX_PINGS_OUTSTANDING;
use crate::method::{DefinedMethods, MethodTable};
use crate::{Capabilities, Event, FrameHeader, Kind, Negotiated, ProtocolError, RequestHead, Role};

pub use transmit::ControlFrame;

/// The protocol of one connection, either end: admission, ids, credit, headers. No payload, no
/// clock, no I/O.
///
/// # How to drive it
///
/// 1. For each frame that arrived: [`FrameHeader::decode`](crate::FrameHeader::decode), then
///    [`handle_frame`](Self::handle_frame) with a private copy of its head. Act on the event.
///    An error ends the connection; one of `decode` is reported with [`close`](Self::close).
/// 2. When [`poll_timeout`](Self::poll_timeout) has come: [`handle_timeout`](Self::handle_timeout).
/// 3. [`poll_event`](Self::poll_event) until it is empty: what timers brought about.
/// 4. While [`wants_transmit`](Self::wants_transmit) and there is room for a frame:
///    [`poll_transmit`](Self::poll_transmit), and write what it returns.
/// 5. [`poll_timeout`](Self::poll_timeout), and set the timer to it.
///
/// The methods that make headers ([`request_frame`](Self::request_frame), `send_*`,
/// [`half_close`](Self::half_close)) change state at once. So make room and encode first, then
/// take the header under the same lock as the write that makes the frame visible: frames must
/// become visible in the order in which their headers were made. A frame that could not be
/// written after all is taken back with [`abandon_open`](Self::abandon_open) or
/// [`retract`](Self::retract).
///
/// # Life of a call
///
/// A client's slot is taken by [`open`](Self::open) and given back by
/// [`release`](Self::release) (or [`cancel`](Self::cancel)), once the application has taken what
/// came. A server's call ends by itself: with the answer that it sends, or with
/// [`Event::Reset`] or [`Event::Expired`]. Frames for a call that is over on this side are
/// [`Event::Ignored`]; frames for one that never was end the connection. So does a message after
/// half-close: the sender's own core refuses it, so only a broken peer can send one.
///
/// # A unary call
///
/// ```
/// use std::time::Instant;
/// use ringway_wire::*;
///
/// let now = Instant::now();
/// let config = Config::default();
/// let agreed = |role| Negotiated::within_process(role, &config, &config);
/// let mut client = Connection::new(Role::Client, &agreed(Role::Client), &config, now);
/// let mut server = Connection::new(Role::Server, &agreed(Role::Server), &config, now);
///
/// // The client opens a call, encodes its head, and makes the header last.
/// let call = client.open(now, None)?;
/// let method = client.method(0, "/shop.Catalog/Get");
/// let head = RequestHead::new(method);
/// let mut bytes = vec![0; head.encoded_len()?];
/// head.encode(&mut bytes);
/// let request = client.request_frame(call, bytes.len(), Some(5), Flags::END)?;
/// client.method_sent(method); // from now on, two bytes name the method
///
/// // Header, head and payload ("hello") travel; the server gets header and head.
/// let Event::Request(got) = server.handle_frame(now, &request, &bytes)? else { panic!() };
/// assert_eq!(got.method, Method::Define(0, "/shop.Catalog/Get"));
/// assert_eq!((got.message_len, got.end), (Some(5), true));
/// let answer = server.send_response(got.call, 0, 7, Flags::NONE)?; // closes it on the server
///
/// let Event::Response(got) = client.handle_frame(now, &answer, &[])? else { panic!() };
/// assert_eq!((got.call, got.message_len), (call, 7));
/// client.release(call);
/// assert!(client.is_idle() && server.is_idle());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    role: Role,
    calls: Calls,
    calls_in_flight: u32,
    call_slots: u32,
    /// Server: bytes of the heads of these calls.
    heads_bytes: u64,
    max_concurrent_calls: u32,
    call_timeout: Option<Duration>,
    carries_traces: bool,
    takes_whole_streams: bool,
    send: SendWindow,
    recv: RecvWindow,
    /// For messages that would hold up others, if both ends have it.
    large: Option<LargeWindows>,
    scarcity: Scarcity,
    /// Slots with something to send: a control frame, or credit.
    due: VecDeque<u32>,
    events: VecDeque<Event<'static>>,
    deadlines: Deadlines,
    pings: Pings,
    watch: Option<Watch>,
    defined: DefinedMethods,
    methods: MethodTable,
    drain: Drain,
    /// Code and text of a GOAWAY to be sent.
    goaway: Option<(u16, String)>,
    closed: bool,
    early_resets: EarlyResets,
}

/// How far this side, or (client) the peer, is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// GOAWAY is sent or queued, and a ping after it. What the client opened before it heard of
    /// it still comes, and is served.
    Announced {
        token: u64,
    },
    /// The peer has heard of it.
    Final,
}

/// Rapid resets within the current second.
#[derive(Debug)]
struct EarlyResets {
    count: u32,
    limit: u32,
    since: Instant,
}

impl Connection {
    /// A connection on which the handshake is done.
    pub fn new(role: Role, agreed: &Negotiated, config: &Config, now: Instant) -> Connection {
        // A call can't use more than the connection has, and both ends count its share alike.
        let (send, recv) = (
            agreed.send_connection_window_bytes,
            agreed.recv_connection_window_bytes,
        );
        let stream_recv = agreed.recv_stream_window_bytes.min(recv);
        let stream_send = agreed.send_stream_window_bytes.min(send);
        Connection {
            role,
            calls: Calls::new(
                agreed.call_slots,
                stream_send,
                stream_recv,
                (stream_recv / 4).min(recv / STREAM_GRANT_PARTS),
            ),
            calls_in_flight: 0,
            call_slots: agreed.call_slots,
            heads_bytes: 0,
            max_concurrent_calls: config.max_concurrent_calls,
            call_timeout: config.call_timeout,
            carries_traces: agreed.capabilities.has(Capabilities::TRACES),
            takes_whole_streams: agreed.capabilities.has(Capabilities::WHOLE_STREAMS),
            send: SendWindow::new(send),
            recv: RecvWindow::new(recv, recv / GRANT_PARTS),
            large: agreed
                .capabilities
                .has(Capabilities::LARGE_WINDOW)
                .then(|| LargeWindows::new(send, recv)),
            scarcity: Scarcity::new(recv),
            due: VecDeque::new(),
            events: VecDeque::new(),
            deadlines: Deadlines::default(),
            pings: Pings::default(),
            watch: config.keepalive.map(|keepalive| Watch::new(keepalive, now)),
            defined: DefinedMethods::default(),
            methods: MethodTable::default(),
            drain: Drain::No,
            goaway: None,
            closed: false,
            early_resets: EarlyResets {
                count: 0,
                limit: config.max_early_resets,
                since: now,
            },
        }
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the peer takes a [`TraceContext`](crate::TraceContext) in a request's head.
    #[inline]
    pub fn carries_traces(&self) -> bool {
        self.carries_traces
    }

    /// Whether the client takes [`Self::send_response`] as the answer to any call.
    pub fn takes_whole_streams(&self) -> bool {
        self.takes_whole_streams
    }

    /// Calls that are not over.
    #[inline]
    pub fn calls_in_flight(&self) -> usize {
        self.calls_in_flight as usize
    }

    /// No call is in flight, and nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.calls_in_flight == 0 && !self.wants_transmit()
    }

    /// This side drains, or the peer said that it goes away.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Draining is finished: the peer knows, no call is left, and nothing waits to be sent.
    pub fn is_drained(&self) -> bool {
        self.drain == Drain::Final && self.is_idle()
    }

    /// The connection has ended, by an error or by [`close`](Self::close).
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a call is known and not over.
    #[inline]
    pub fn is_open(&self, call: CallId) -> bool {
        let phase = self.calls.get(call).map(|call| call.phase);
        matches!(phase, Some(Phase::Open | Phase::Reserved))
    }

    /// Whether the connection has credit for a message: if not, [`Event::WritableAll`] tells when.
    #[inline]
    pub fn has_credit(&self) -> bool {
        self.send.is_open()
    }

    /// Returns true if the connection has credit for a message above
    /// [`LARGE_MESSAGE_BYTES`](crate::limits::LARGE_MESSAGE_BYTES): if not, [`Event::WritableAll`] tells when.
    pub fn has_large_credit(&self) -> bool {
        self.large
            .map_or(self.send.is_open(), |large| large.send.is_open())
    }

    /// Whether so much of the connection's credit is free that a stream may send long frames. Of many
    /// streams that nobody reads each comes to hold a frame, and together they must leave credit for others.
    #[inline]
    pub fn has_plenty(&self) -> bool {
        self.send.has_plenty()
    }

    /// Whether the time of each frame matters: with keepalive it does. Otherwise only requests and
    /// resets need a true one, and what has a deadline.
    #[inline]
    pub fn keeps_time(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether [`handle_frame`](Self::handle_frame) has to be told the true time of this frame. An
    /// older one does for all others.
    #[inline]
    pub fn needs_time(&self, header: &FrameHeader, head: &[u8]) -> bool {
        match header.kind {
            Kind::Request => self.keeps_time() || RequestHead::has_timeout(head),
            Kind::Reset => true,
            _ => self.keeps_time(),
        }
    }

    /// The deadline of a call that is not over.
    pub fn deadline(&self, call: CallId) -> Option<Instant> {
        self.calls.get(call)?.deadline
    }

    /// Server: the path that a client gave a number.
    pub fn method_path(&self, number: u32) -> Option<&str> {
        self.methods.path(number)
    }

    /// Bytes of what the peer has sent and nobody has taken: messages, and heads of calls in flight.
    #[inline]
    pub fn held_bytes(&self) -> u64 {
        let large = self.large.as_ref().map_or(0, |large| large.recv.held());
        u64::try_from(self.recv.held() + large).unwrap_or(0) + self.heads_bytes
    }

    /// The application took a message of this length: its room may be granted again. Messages
    /// left over when a call ends are given back by that end (server) or by the release (client).
    #[inline]
    pub fn consumed(&mut self, call: CallId, message_len: u32) {
        let cost = charge(message_len);
        self.give_back(call, cost, self.large.is_some() && is_large(cost));
    }

    /// Takes note of `messages` messages of `bytes` bytes together that the application took, none of them large.
    pub fn consumed_batch(&mut self, call: CallId, messages: u32, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let cost = bytes.saturating_add(charge(0) * i64::from(messages));
        self.give_back(call, cost, false);
    }

    /// Gives a call up: the peer gets a RESET with this status code through
    /// [`poll_transmit`](Self::poll_transmit). On a client this releases the call as well. A call
    /// that is over is only released.
    pub fn cancel(&mut self, call: CallId, code: u16) {
        self.reset(call, code);
        self.release(call);
    }

    /// Gives a call up as [`cancel`](Self::cancel) does, but keeps a client's slot until it is
    /// [released](Self::release).
    pub fn reset(&mut self, call: CallId, code: u16) {
        if self.is_requested(call) {
            self.close_call(call, Leftover::GiveBack);
            self.queue_control(
                call.slot(),
                Control::Reset {
                    code,
                    refused: false,
                },
            );
        }
    }

    /// Ends a call of which this side could not take a message: a server with a status of this text, a client as
    /// [`reset`](Self::reset) does.
    pub fn refuse_message(&mut self, call: CallId, code: u16, text: &'static str) {
        if self.role == Role::Client {
            return self.reset(call, code);
        }
        if self.is_requested(call) {
            self.close_call(call, Leftover::GiveBack);
            self.queue_control(call.slot(), Control::Trailers { code, text });
        }
    }

    /// Client: the application is done with a call and everything that came on it; its slot may
    /// be used again. A call that is not over is cancelled.
    #[inline]
    pub fn release(&mut self, call: CallId) {
        if self.role == Role::Server {
            return;
        }
        if self.is_open(call) {
            return self.release_open(call);
        }
        let Some(state) = self.calls.get_mut(call) else {
            return;
        };
        if state.phase != Phase::Closed || state.released {
            return;
        }
        state.released = true;
        let unconsumed = std::mem::take(&mut state.unconsumed);
        let large = std::mem::take(&mut state.unconsumed_large);
        let free = state.control.is_none();
        self.take_back(unconsumed);
        self.take_back_large(large);
        if free {
            self.calls.free(call.slot());
        }
    }

    /// Stops taking calls. A server tells its client, serves what the client opened before it
    /// heard of it, and is done when [`is_drained`](Self::is_drained). A client only stops.
    pub fn drain(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        self.drain = Drain::Final;
        if self.role == Role::Server {
            self.goaway = Some((crate::code::OK, "server is shutting down".to_owned()));
            if let Some(token) = self.pings.start() {
                self.drain = Drain::Announced { token };
            }
        }
    }

    /// Ends the connection at once; the peer gets a GOAWAY with code and text. Calls in flight are
    /// the caller's to end.
    pub fn close(&mut self, code: u16, text: &str) {
        if !self.closed {
            self.closed = true;
            self.due.clear();
            self.goaway = Some((code, text.to_owned()));
        }
    }

    /// Sends a ping; the token comes back in [`Event::Pong`]. None while too many are under way.
    pub fn ping(&mut self) -> Option<u64> {
        // Two are kept for keepalive and drain.
        if self.closed || self.pings.under_way() + 2 >= MAX_PINGS_OUTSTANDING {
            return None;
        }
        self.pings.start()
    }

    #[inline]
    fn give_back(&mut self, id: CallId, bytes: i64, is_large: bool) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let unconsumed = if is_large {
            &mut call.unconsumed_large
        } else {
            &mut call.unconsumed
        };
        // Never more than was charged, whatever the caller says.
        let bytes = bytes.clamp(0, *unconsumed);
        *unconsumed -= bytes;
        let due = call.phase == Phase::Open && !call.recv_end && {
            call.recv.give_back(bytes);
            call.recv.is_due_to_call(self.scarcity.is_scarce())
        };
        if due {
            self.queue(id.slot());
        }
        if is_large {
            self.take_back_large(bytes);
        } else {
            self.take_back(bytes);
        }
    }

    /// Frees so much of the window of large messages.
    #[inline]
    fn take_back_large(&mut self, bytes: i64) {
        if let Some(large) = &mut self.large {
            large.recv.give_back(bytes);
        }
    }

    /// So much of the connection's window is free again.
    #[inline]
    fn take_back(&mut self, bytes: i64) {
        self.recv.give_back(bytes);
        self.scarcity.on_give_back(self.recv.free());
    }

    /// Some of the connection's window was charged.
    #[inline]
    fn note_charge(&mut self) {
        if self.scarcity.on_charge(self.recv.free()) {
            self.grant_all();
        }
    }

    /// Credit has become scarce: what was not worth a frame until now, is.
    #[cold]
    fn grant_all(&mut self) {
        let calls = self.calls.open_slots();
        let due = calls.filter(|(_, call)| !call.recv_end && call.recv.is_due_to_call(true));
        let slots: Vec<u32> = due.map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.queue(slot));
    }

    #[cold]
    fn release_open(&mut self, call: CallId) {
        if self.is_requested(call) {
            self.cancel(call, crate::code::CANCELLED);
        } else {
            self.abandon_open(call);
        }
    }

    fn is_requested(&self, call: CallId) -> bool {
        self.calls
            .get(call)
            .is_some_and(|call| call.phase == Phase::Open)
    }

    /// The call is over for the protocol.
    #[inline]
    fn close_call(&mut self, id: CallId, leftover: Leftover) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        call.phase = Phase::Closed;
        self.heads_bytes -= u64::from(std::mem::take(&mut call.head_len));
        let (given_back, large) = match leftover {
            Leftover::GiveBack => (
                std::mem::take(&mut call.unconsumed),
                std::mem::take(&mut call.unconsumed_large),
            ),
            Leftover::Keep => (0, 0),
        };
        if call.deadline.take().is_some() {
            self.deadlines.forget();
        }
        self.take_back(given_back);
        self.take_back_large(large);
        self.calls_in_flight = self.calls_in_flight.saturating_sub(1);
    }

    fn queue_control(&mut self, slot: u32, control: Control) {
        self.calls.at(slot).control = Some(control);
        self.queue(slot);
    }

    fn queue(&mut self, slot: u32) {
        let call = self.calls.at(slot);
        if !call.queued {
            call.queued = true;
            self.due.push_back(slot);
        }
    }

    #[cold]
    fn poison(&mut self, error: &ProtocolError) {
        self.close(crate::code::INTERNAL, &error.to_string());
    }
}

/// What becomes of messages that the application has not taken when a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    /// The application still takes them (client, after the server's last word).
    Keep,
    /// They are dropped with the call.
    GiveBack,
}

#[cfg(test)]
impl Connection {
    pub(crate) fn set_generation(&mut self, slot: u32, generation: u32) {
        self.calls.set_generation(slot, generation);
    }

    pub(crate) fn deadlines_kept(&self) -> usize {
        self.deadlines.len()
    }
}
