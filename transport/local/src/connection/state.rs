//! What frames mean to the calls of a connection: the core's events become deliveries.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_wire::{
    CallId, ControlFrame, Event, Flags, FrameHeader, Method, RequestHead, StatusHead, code,
};

use super::handlers::HandlerFuture;
use super::slots::Slot;
use crate::call::Call;
use crate::error::{Closed, SendError};
use crate::link::{Frame, LinkError, Outgoing, Payload, Place, Sender};

/// A message as it arrived.
#[derive(Debug)]
pub struct Message {
    /// One encoded message, or several if `packed`.
    pub bytes: Bytes,
    /// The bytes are messages one after another, each behind its length (u32, little-endian).
    pub packed: bool,
    /// The message is compressed, with the encoding that the metadata names.
    pub compressed: bool,
}

/// What arrives for a call.
#[derive(Debug)]
pub enum Inbound {
    /// Client: initial metadata, as a metadata block.
    Headers(Bytes),
    /// A message.
    Message(Message),
    /// Server: the client sends no more.
    HalfClosed,
    /// Client: the whole answer of a unary call that succeeded. The call is over.
    Response {
        /// A [`ringway_wire::ResponseHead`], empty if there is no metadata.
        head: Bytes,
        /// The message.
        message: Message,
    },
    /// Client: the status that ends the call.
    Trailers {
        /// Status code.
        code: u16,
        /// A [`StatusHead`].
        head: Bytes,
    },
    /// The peer gave the call up.
    Reset {
        /// Status code.
        code: u16,
        /// No handler saw the call: it may be sent again elsewhere.
        refused: bool,
    },
    /// The deadline passed.
    Expired,
    /// The connection ended under the call.
    Lost {
        /// Why.
        why: Closed,
        /// The peer certainly never saw the call: it may be sent again elsewhere.
        unseen: bool,
    },
}

impl Inbound {
    /// Whether nothing can follow.
    pub(crate) fn ends_call(&self) -> bool {
        !matches!(self, Self::Headers(_) | Self::Message(_) | Self::HalfClosed)
    }

    fn message_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.bytes.len(),
            _ => 0,
        }
    }
}

/// A call that a server is to answer.
#[derive(Debug)]
pub struct Started {
    /// The call.
    pub call: Call,
    /// What [`crate::Serve::resolve`] made of the method's path; `None` if it is unknown.
    pub route: Option<u64>,
    /// The path, for whoever is asked by path. Empty where a route says it all.
    pub path: Arc<str>,
    /// The time that the client allows.
    pub timeout: Option<Duration>,
    /// The client's metadata, as a metadata block.
    pub metadata: Bytes,
    /// The message that came with the request.
    pub message: Option<Message>,
    /// Whether no further message comes.
    pub end: bool,
}

/// What has to be done once the state's lock is released.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) wakers: Vec<Waker>,
    pub(crate) started: Vec<Started>,
    pub(crate) dropped: Vec<HandlerBox>,
    /// Server: the connection and its service, for what a request starts.
    pub(crate) connection: Option<std::sync::Arc<super::Connection>>,
    pub(crate) service: Option<std::sync::Arc<dyn crate::server::Serve>>,
}

impl Deliveries {
    /// Prepares for what a request of this connection starts.
    pub(crate) fn attend(&mut self, connection: &super::Connection) {
        if let Some(service) = &connection.service {
            self.connection = connection.me.upgrade();
            self.service.get_or_insert_with(|| Arc::clone(service));
        }
    }
}

/// What a method leads to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    number: Option<u64>,
    path: Arc<str>,
}

/// A handler on its way to be dropped.
pub(crate) struct HandlerBox(#[allow(dead_code)] HandlerFuture);

impl std::fmt::Debug for HandlerBox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HandlerBox")
    }
}

/// What is left to do, without the lock, when a connection has ended.
#[derive(Default)]
pub(crate) struct Ended {
    wakers: Vec<Waker>,
    handlers: Vec<HandlerFuture>,
}

impl Ended {
    pub(crate) fn finish(self) {
        drop(self.handlers);
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

/// How a call is opened.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// A small number that stands for the method in this process.
    pub method_number: u32,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// A metadata block.
    pub metadata: ringway_wire::Metadata<'a>,
    /// The time allowed for the call.
    pub timeout: Option<Duration>,
    /// No message follows the one given with the request.
    pub end: bool,
}

/// The part of a connection behind its state lock.
#[derive(Debug)]
pub(crate) struct State {
    core: ringway_wire::Connection,
    sender: Sender,
    slots: Vec<Slot>,
    /// Who waits for room on the link, or for the connection's credit.
    blocked: Vec<Waker>,
    /// Who waits for credit of the connection.
    starved: Vec<Waker>,
    control: Option<ControlFrame>,
    /// Server: what the client's method numbers stand for.
    routes: Vec<Route>,
    closed: Option<Closed>,
    /// The time of the last pass that asked for it.
    now: Instant,
    /// When the driver's timer fires.
    timer_at: Option<Instant>,
}

impl State {
    pub(crate) fn new(core: ringway_wire::Connection, sender: Sender) -> Self {
        Self {
            now: super::Connection::now(),
            timer_at: None,
            core,
            sender,
            slots: Vec::new(),
            blocked: Vec::new(),
            starved: Vec::new(),
            control: None,
            routes: Vec::new(),
            closed: None,
        }
    }

    pub(crate) fn is_going_away(&self) -> bool {
        self.core.is_draining()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.core.calls_in_flight()
    }

    pub(crate) fn drain(&mut self) {
        self.core.drain();
        // What does not fit now goes out with the next pass.
        let _ = self.flush();
        self.sender.ring(self.core.calls_in_flight());
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

    // ---- opening and sending

    /// Opens a call and sends its request in one frame.
    pub(crate) fn open(
        &mut self,
        request: &Request<'_>,
        payload: Option<Payload<'_>>,
        place: Place,
    ) -> Result<CallId, SendError> {
        self.check_open()?;
        let head = RequestHead {
            method: self.core.method(request.method_number, request.path),
            timeout: request.timeout,
            metadata: request.metadata,
        };
        let head_len = head
            .encoded_len()
            .map_err(|error| SendError::Limit(error.to_string()))?;
        // Only these need the time, which costs about as much as all the rest here.
        let now = match request.timeout.is_some() || self.core.keeps_time() {
            true => super::Connection::now(),
            false => self.now,
        };
        let deadline = request.timeout.and_then(|timeout| now.checked_add(timeout));
        let message_len = payload.as_ref().map(|payload| payload.len);
        let flags = Flags::NONE.with(Flags::END, request.end);
        let (core, mut opened) = (&mut self.core, Err(SendError::Blocked));
        let sent = self.sender.send(Outgoing {
            head_len,
            payload,
            place,
            finish: &mut |bytes| {
                head.encode(bytes);
                let (id, header) = open_call(core, now, deadline, head_len, message_len, flags)
                    .map_err(|error| opened = Err(error))
                    .ok()?;
                core.method_sent(head.method);
                opened = Ok(id);
                Some(header)
            },
        });
        settle(sent, opened.as_ref().err())?;
        let id = opened?;
        let sent = self.sender.position();
        self.occupy(id).sent = sent;
        self.sender.ring(self.core.calls_in_flight());
        Ok(id)
    }

    /// Sends a message of a call.
    pub(crate) fn send_message(
        &mut self,
        id: CallId,
        flags: Flags,
        payload: Payload<'_>,
        place: Place,
    ) -> Result<(), SendError> {
        // Asked before the message is encoded, which may be long.
        self.core.can_send(id).map_err(send_error)?;
        let len = payload.len;
        self.send(&[], Some(payload), place, |core| {
            core.send_message(id, len, flags)
        })
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
        self.sender.ring(self.core.calls_in_flight());
        Ok(())
    }

    /// Client: sends no more messages on the call.
    pub(crate) fn half_close(&mut self, id: CallId) -> Result<(), SendError> {
        self.send(&[], None, Place::Inline, |core| core.half_close(id))
    }

    /// Server: sends initial metadata.
    pub(crate) fn send_headers(&mut self, id: CallId, metadata: &[u8]) -> Result<(), SendError> {
        let len = metadata.len();
        self.send(metadata, None, Place::Inline, |core| {
            core.send_headers(id, len)
        })
    }

    /// Server: sends the whole answer of a unary call. The call is over.
    pub(crate) fn send_response(
        &mut self,
        id: CallId,
        head: &[u8],
        payload: Payload<'_>,
        place: Place,
    ) -> Result<(), SendError> {
        let (head_len, len) = (head.len(), payload.len);
        self.send(head, Some(payload), place, |core| {
            core.send_response(id, head_len, len, Flags::NONE)
        })?;
        self.release(id);
        Ok(())
    }

    /// Server: ends the call with a status.
    pub(crate) fn send_trailers(
        &mut self,
        id: CallId,
        code: u16,
        head: &[u8],
    ) -> Result<(), SendError> {
        let len = head.len();
        self.send(head, None, Place::Inline, |core| {
            core.send_trailers(id, code, len)
        })?;
        self.release(id);
        Ok(())
    }

    /// Gives a call up, if it is not over.
    pub(crate) fn cancel(&mut self, id: CallId, code: u16) -> Option<HandlerFuture> {
        if self.closed.is_none() {
            self.core.cancel(id, code);
            // What does not fit now goes out with the next pass.
            let _ = self.flush();
            self.sender.ring(self.core.calls_in_flight());
        }
        self.vacate(id)
    }

    /// Gives a call up on behalf of whoever reads it, who is told.
    pub(crate) fn give_up(&mut self, id: CallId, code: u16) -> Option<Waker> {
        self.core.cancel(id, code);
        // What does not fit now goes out with the next pass.
        let _ = self.flush();
        let slot = self.slot(id)?;
        slot.inbox.push_back(Inbound::Reset {
            code,
            refused: false,
        });
        slot.reader.take()
    }

    /// Whether a call is in flight, or the link has not taken all yet.
    pub(crate) fn awaits_anything(&self) -> bool {
        self.in_flight() > 0 || !self.sender.is_drained()
    }

    /// Whether no call is in flight and nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.closed.is_some() || (self.core.is_idle() && self.sender.is_drained())
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
                    self.control = Some(frame);
                    self.sender.wait_for_room(0);
                    break;
                }
                Err(LinkError::TooLarge | LinkError::TakenBack) => {}
                Err(LinkError::Closed(why)) => return Err(why),
            }
        }
        if sent {
            self.sender.ring(self.core.calls_in_flight());
        }
        Ok(())
    }

    /// Has `waker` called when there is credit for a message of the call; false if there is some.
    ///
    /// Who lacks credit must not wait for room: that is there, and would wake it in each pass.
    pub(crate) fn wait_for_credit(&mut self, id: CallId, waker: &Waker) -> bool {
        match self.core.can_send(id) {
            Err(ringway_wire::SendError::Blocked) => {
                if let Some(slot) = self.slot(id) {
                    slot.writer = Some(waker.clone());
                }
                true
            }
            Err(ringway_wire::SendError::ConnectionBlocked) => {
                note_waker(&mut self.starved, waker);
                true
            }
            _ => false,
        }
    }

    /// Has `waker` called when there is room or credit; true if there is room already.
    pub(crate) fn wait_to_send(&mut self, id: Option<CallId>, len: usize, waker: &Waker) -> bool {
        if let Some(slot) = id.and_then(|id| self.slot(id)) {
            slot.writer = Some(waker.clone());
        }
        note_waker(&mut self.blocked, waker);
        self.sender.wait_for_room(len)
    }

    // ---- taking what has arrived

    /// The next thing that arrived for a call; a call that is over is released with its last one.
    pub(crate) fn take_inbound(&mut self, id: CallId) -> Option<Inbound> {
        let Some(slot) = self.slot(id) else {
            // Its place was given to another call: it was given up.
            return Some(Inbound::Reset {
                code: code::CANCELLED,
                refused: false,
            });
        };
        let inbound = slot.inbox.pop_front()?;
        if inbound.ends_call() {
            // A client's handler is its request stream: nobody will ask for it any more.
            drop(self.vacate(id));
        } else {
            let consumed = inbound.message_bytes();
            if consumed > 0 {
                self.core.consumed(id, wire_len(consumed));
                let _ = self.flush();
            }
        }
        Some(inbound)
    }

    pub(crate) fn wait_to_read(&mut self, id: CallId, waker: &Waker) {
        if let Some(slot) = self.slot(id) {
            match &mut slot.reader {
                Some(reader) if reader.will_wake(waker) => {}
                reader => *reader = Some(waker.clone()),
            }
        }
    }

    // ---- handlers

    /// Keeps the handler of the call that lives in `slot` now.
    pub(crate) fn keep_handler(&mut self, slot: u32, handler: HandlerFuture) {
        if let Some(slot) = self.slots.get_mut(slot as usize)
            && slot.id.is_some()
        {
            slot.handler = Some(handler);
        }
    }

    pub(crate) fn take_handler(&mut self, slot: u32) -> Option<(CallId, HandlerFuture)> {
        let slot = self.slots.get_mut(slot as usize)?;
        Some((slot.id?, slot.handler.take()?))
    }

    /// Puts a handler back; returns it if its call has ended meanwhile.
    pub(crate) fn put_back_handler(
        &mut self,
        id: CallId,
        handler: HandlerFuture,
    ) -> Option<HandlerFuture> {
        match self.slot(id) {
            Some(slot) => {
                slot.handler = Some(handler);
                None
            }
            None => Some(handler),
        }
    }

    // ---- judging what arrives

    /// Tells the time of a pass, if what it brought depends on it.
    pub(crate) fn note_time(&mut self, stirred: bool) {
        if stirred || self.core.role() == ringway_wire::Role::Server || self.core.keeps_time() {
            self.now = super::Connection::now();
        }
    }

    /// Judges one frame.
    pub(crate) fn handle(
        &mut self,
        frame: Frame,
        deliveries: &mut Deliveries,
    ) -> Result<(), Closed> {
        let Frame {
            header,
            head,
            payload,
        } = frame;
        let event = self
            .core
            .handle_frame(self.now, &header, &head)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        match event {
            Event::Request(request) => {
                let message = request.message_len.map(|_| Message {
                    bytes: payload,
                    packed: false,
                    compressed: request.compressed,
                });
                let metadata = head.keep(request.metadata.as_bytes());
                let Some(connection) = deliveries.connection.clone() else {
                    return Ok(());
                };
                let id = request.call;
                let (timeout, end) = (request.timeout, request.end);
                let route = self.route(request.method, deliveries);
                self.occupy(id);
                deliveries.started.push(Started {
                    call: Call::new(connection, id),
                    route: route.number,
                    path: route.path,
                    timeout,
                    metadata,
                    message,
                    end,
                });
            }
            Event::Message(message) => {
                self.deliver_message(message, header.flags, payload, deliveries)
            }
            Event::HalfClosed { call } => self.deliver(call, Inbound::HalfClosed, deliveries),
            Event::Headers { call, metadata } => {
                let metadata = head.keep(metadata.as_bytes());
                self.deliver(call, Inbound::Headers(metadata), deliveries);
            }
            Event::Response(response) => {
                let message = Message {
                    bytes: payload,
                    packed: false,
                    compressed: response.compressed,
                };
                self.deliver(
                    response.call,
                    Inbound::Response {
                        head: head.into_bytes(),
                        message,
                    },
                    deliveries,
                );
            }
            Event::Trailers { call, code, .. } => {
                self.deliver(
                    call,
                    Inbound::Trailers {
                        code,
                        head: head.into_bytes(),
                    },
                    deliveries,
                );
            }
            Event::Reset {
                call,
                code,
                refused,
            } => {
                self.end(call, Inbound::Reset { code, refused }, deliveries);
            }
            Event::Expired { call } => self.end(call, Inbound::Expired, deliveries),
            Event::Writable { call } => {
                let writer = self.slot(call).and_then(|slot| slot.writer.take());
                deliveries.wakers.extend(writer);
            }
            Event::WritableAll => {
                deliveries.wakers.append(&mut self.starved);
                deliveries.wakers.append(&mut self.blocked);
            }
            Event::PeerSilent => return Err(Closed::PeerGone),
            _ => {}
        }
        Ok(())
    }

    /// Lets the core act on the passing of time.
    pub(crate) fn handle_time(&mut self, deliveries: &mut Deliveries) -> Result<(), Closed> {
        let now = self.now;
        if self.core.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        self.core.handle_timeout(now);
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Expired { call } => self.end(call, Inbound::Expired, deliveries),
                Event::PeerSilent => return Err(Closed::PeerGone),
                _ => {}
            }
        }
        Ok(())
    }

    /// Wakes those who wait for room, if there is some.
    pub(crate) fn retry_blocked(&mut self, deliveries: &mut Deliveries) {
        if !self.blocked.is_empty() && self.sender.wait_for_room(0) {
            deliveries.wakers.append(&mut self.blocked);
        }
    }

    /// Ends all calls.
    pub(crate) fn close(&mut self, why: Closed) -> Ended {
        let mut ended = Ended::default();
        for index in 0..self.slots.len() {
            let Some(id) = self.slots[index].id else {
                continue;
            };
            let unseen = self.sender.was_not_seen(self.slots[index].sent);
            let slot = &mut self.slots[index];
            ended.handlers.extend(slot.handler.take());
            ended.wakers.extend(slot.reader.take());
            ended.wakers.extend(slot.writer.take());
            let over = slot.inbox.back().is_some_and(Inbound::ends_call);
            if !over {
                let why = why.clone();
                slot.inbox.push_back(Inbound::Lost { why, unseen });
            }
            self.core.release(id);
        }
        ended.wakers.append(&mut self.starved);
        ended.wakers.append(&mut self.blocked);
        self.closed = Some(why);
        ended
    }

    fn route(&mut self, method: Method<'_>, deliveries: &Deliveries) -> Route {
        let resolve = |path: &str| Route {
            number: deliveries
                .service
                .as_ref()
                .and_then(|service| service.resolve(path)),
            path: path.into(),
        };
        match method {
            Method::Known(number) => self
                .routes
                .get(number as usize)
                .cloned()
                .unwrap_or_default(),
            Method::Inline(path) => resolve(path),
            Method::Define(number, path) => {
                let index = number as usize;
                if self.routes.len() <= index {
                    self.routes.resize(index + 1, Route::default());
                }
                self.routes[index] = resolve(path);
                self.routes[index].clone()
            }
        }
    }

    fn deliver_message(
        &mut self,
        message: ringway_wire::Message,
        flags: Flags,
        payload: Bytes,
        deliveries: &mut Deliveries,
    ) {
        let id = message.call;
        let Some(slot) = self.slot(id) else { return };
        let bytes = if message.first && !message.more {
            payload
        } else {
            slot.pieces.extend_from_slice(&payload);
            if message.more {
                return;
            }
            std::mem::take(&mut slot.pieces).freeze()
        };
        let inbound = Inbound::Message(Message {
            bytes,
            packed: flags.has(Flags::PACKED),
            compressed: message.compressed,
        });
        slot.inbox.push_back(inbound);
        if message.end {
            slot.inbox.push_back(Inbound::HalfClosed);
        }
        deliveries.wakers.extend(slot.reader.take());
    }

    fn deliver(&mut self, id: CallId, inbound: Inbound, deliveries: &mut Deliveries) {
        if let Some(slot) = self.slot(id) {
            slot.inbox.push_back(inbound);
            deliveries.wakers.extend(slot.reader.take());
        }
    }

    /// The end of a call that this side did not ask for: a server's handler is dropped before its
    /// request stream could seem to end.
    fn end(&mut self, id: CallId, inbound: Inbound, deliveries: &mut Deliveries) {
        let Some(slot) = self.slot(id) else { return };
        slot.inbox.clear();
        slot.inbox.push_back(inbound);
        deliveries
            .dropped
            .extend(slot.handler.take().map(HandlerBox));
        deliveries.wakers.extend(slot.reader.take());
        deliveries.wakers.extend(slot.writer.take());
    }

    // ---- slots

    fn occupy(&mut self, id: CallId) -> &mut Slot {
        let index = id.slot() as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[index];
        slot.id = Some(id);
        slot
    }

    fn slot(&mut self, id: CallId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot() as usize)
            .filter(|slot| slot.id == Some(id))
    }

    fn vacate(&mut self, id: CallId) -> Option<HandlerFuture> {
        let handler = self.slot(id)?.vacate();
        self.core.release(id);
        handler
    }

    fn release(&mut self, id: CallId) {
        // A handler that answers is being polled, so it is not in its slot.
        drop(self.vacate(id));
    }

    fn check_open(&self) -> Result<(), SendError> {
        match &self.closed {
            Some(why) => Err(SendError::Closed(why.clone())),
            None => Ok(()),
        }
    }
}

/// The status of a call whose handler went without an answer.
pub(crate) fn abandoned_status() -> (u16, Vec<u8>) {
    let head = StatusHead {
        message: "the handler ended without an answer",
        details: &[],
        metadata: ringway_wire::Metadata::EMPTY,
    };
    let mut bytes = vec![0; head.encoded_len().unwrap_or(0)];
    head.encode(&mut bytes);
    (code::INTERNAL, bytes)
}

/// Keeps `waker` once, however often it asks.
fn note_waker(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

fn wire_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
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
        ringway_wire::SendError::Blocked | ringway_wire::SendError::ConnectionBlocked => {
            SendError::Blocked
        }
        ringway_wire::SendError::Gone => SendError::CallEnded,
        other => SendError::Limit(other.to_string()),
    }
}

fn link_error(error: LinkError) -> SendError {
    match error {
        LinkError::Full | LinkError::TakenBack => SendError::Blocked,
        LinkError::TooLarge => SendError::Limit("larger than this connection carries".into()),
        LinkError::Closed(why) => SendError::Closed(why),
    }
}
