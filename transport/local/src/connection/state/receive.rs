//! What frames mean to the calls of a connection: the core's events become deliveries.

use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use bytes::Bytes;
use ringway_wire::{CallId, Event, Flags, FrameHeader, Method, Verdict, code};

use super::State;
use crate::call::Call;
use crate::clock;
use crate::connection::counters::packed_messages;
use crate::connection::handlers::Work;
use crate::connection::inbound::{Inbound, Message, ServedMethod, Started};
use crate::connection::{Connection, Looker};
use crate::error::{Closed, SendError};
use crate::link::Frame;
use crate::link::shm::OUT_OF_DESCRIPTORS;
use crate::server::Serve;

/// Calls of which a task may find the answers while it looks for another one's; for more it is woken.
const MAX_OWED: usize = 32;

/// Memory that a message in pieces gets with its first one, if it is as long; from there it doubles. Pages that no
/// piece has filled take no memory, but the longest messages may not fit at all.
const FIRST_CLAIM_BYTES: usize = 64 * 1024 * 1024;

/// Appends a piece of a message of `whole` bytes; false if there is no memory for it.
fn add_piece(pieces: &mut Vec<u8>, whole: usize, piece: &[u8]) -> bool {
    let filled = pieces.len();
    if pieces.capacity() - filled < piece.len() {
        let more = filled.max(FIRST_CLAIM_BYTES).min(whole - filled);
        if pieces.try_reserve_exact(more.max(piece.len())).is_err() {
            return false;
        }
    }
    pieces.extend_from_slice(piece);
    true
}

/// Says of a message why there is no memory for it.
const OVER_BUDGET: &str = "the receiving process holds as much for the processes of this user as its max_memory_per_uid \
    allows: raise it, or send less at a time, once what was sent has been read";

/// Why a message is lost for which this process has no memory.
fn lost(len_bytes: u32, reason: &str) -> SendError {
    SendError::Memory {
        len_bytes: len_bytes as usize,
        reason: reason.into(),
    }
}

/// What two wakers have in common that [wake](Waker::will_wake) the same task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WakerId {
    data: usize,
    vtable: usize,
}

impl WakerId {
    fn of(waker: &Waker) -> Self {
        Self {
            data: waker.data().addr(),
            vtable: ptr::from_ref(waker.vtable()).addr(),
        }
    }
}

/// What has to be done once the state's lock is released.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) wakers: Vec<Waker>,
    /// Calls that have begun. The first one is started where it lies if no other waits: copying what makes up
    /// a call costs some 10 ns.
    pub(crate) started: VecDeque<Started>,
    pub(crate) dropped: Vec<Work>,
    /// Who looks by itself just now: the call, and its waker's parts.
    looker: Option<(CallId, WakerId)>,
    /// Calls for which something came while their task looked for another one: it was not woken.
    owed: Vec<CallId>,
}

impl Deliveries {
    /// Whom not to wake from here on.
    pub(crate) fn spare(&mut self, looker: Option<&Looker<'_>>) {
        self.looker = looker.map(|looker| (looker.call, WakerId::of(looker.waker)));
    }

    /// Whether a task was not woken for something that came.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Has the task woken that waits for what has come for `id`; but one that looks just now for another
    /// of its calls keeps its waker here until it has found it, or another pass reminds it.
    fn wake_reader(&mut self, id: CallId, reader: &mut Option<Waker>) {
        match (self.looker, &reader) {
            // It takes what it looks for before it waits again.
            (Some(looker), Some(waker)) if looker == (id, WakerId::of(waker)) => *reader = None,
            (Some((_, looker)), Some(waker))
                if looker == WakerId::of(waker) && self.owed.len() < MAX_OWED =>
            {
                if !self.owed.contains(&id) {
                    self.owed.push(id);
                }
            }
            _ => self.wakers.extend(reader.take()),
        }
    }
}

impl State {
    /// Tells the time of a pass. Most passes bring nothing that depends on it, and it costs a
    /// hundredth of a call.
    pub(crate) fn note_time(&mut self, stirred: bool, frames: &[Frame]) {
        let matters = |frame: &Frame| self.core.needs_time(&frame.header, &frame.head);
        if stirred || frames.iter().any(matters) {
            self.now = clock::now();
        }
    }

    /// Returns true if the payload of a frame is worth memory. All frames before it were handled.
    pub(crate) fn wants_payload(
        &mut self,
        header: &FrameHeader,
        head: &[u8],
        connection: &Connection,
    ) -> Result<bool, Closed> {
        let verdict = self
            .core
            .judge(header, head)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        Ok(match (verdict, &connection.service) {
            (Verdict::Take, _) => true,
            (Verdict::Drop, _) | (_, None) => false,
            (Verdict::ByMethod(Method::Known(number)), _) => {
                let known = self.routes.get(number as usize).and_then(Option::as_ref);
                known.is_some_and(|method| header.message_len <= method.max_request_bytes)
            }
            (Verdict::ByMethod(Method::Inline(path) | Method::Define(_, path)), Some(service)) => {
                header.message_len <= service.resolve(path).max_request_bytes
            }
        })
    }

    /// Judges one frame, and takes what is in it from where it lies: it is large to move.
    pub(crate) fn handle(
        &mut self,
        frame: &mut Frame,
        connection: &Arc<Connection>,
        deliveries: &mut Deliveries,
        first: &mut Option<Started>,
    ) -> Result<(), Closed> {
        let Frame {
            header,
            head,
            payload,
            is_lost,
        } = frame;
        self.counts.bytes_received += payload.len() as u64;
        let event = self
            .core
            .handle_frame(self.now, header, head)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        let loss = match *is_lost {
            true => Some(OUT_OF_DESCRIPTORS),
            false => self.held.is_short().then_some(OVER_BUDGET),
        };
        match event {
            Event::Request(request) if let Some(why) = loss => {
                if let Some(service) = &connection.service {
                    // The number that it may give its method counts all the same.
                    self.route(request.method, &**service);
                }
                let code = code::RESOURCE_EXHAUSTED;
                self.core.refuse_message(request.call, code, why);
            }
            Event::Message(message) if let Some(why) = loss => {
                self.lose(message.call, (message.message_len, why), deliveries);
            }
            Event::Response(response) if let Some(why) = loss => {
                let failed = Inbound::Failed(lost(response.message_len, why));
                self.deliver(response.call, failed, deliveries);
            }
            Event::Request(request) => {
                self.counts.calls += 1;
                self.counts
                    .note_received(u32::from(request.message_len.is_some()));
                let metadata = head.keep(request.metadata.as_bytes());
                let Some(service) = &connection.service else {
                    return Ok(());
                };
                let id = request.call;
                let (timeout, mut end, trace) = (request.timeout, request.end, request.trace);
                let recorded = trace.is_some_and(|trace| trace.is_sampled());
                let seen = recorded.then(SystemTime::now);
                let method = self.route(request.method, &**service);
                let limit = method.max_request_bytes;
                self.core.limit_messages(id, limit);
                let slot = self
                    .slots
                    .occupy(id, self.counts.calls, &mut deliveries.wakers);
                let mut message = None;
                match request.message_len {
                    Some(len) if len > limit => {
                        self.core.refuse_messages(id);
                        slot.inbox.push_back(Inbound::TooLong { len, limit });
                        // The handler finds it where it looks for its message.
                        end = false;
                    }
                    Some(_) => {
                        message = Some(Message {
                            bytes: std::mem::take(payload),
                            packed: false,
                            compressed: request.compressed,
                        });
                    }
                    None => {}
                }
                let started = || Started {
                    call: Call::new(Arc::clone(connection), id),
                    method,
                    timeout,
                    trace,
                    seen,
                    metadata,
                    message,
                    end,
                };
                if first.is_none() && deliveries.started.is_empty() {
                    *first = Some(started());
                } else {
                    deliveries.started.push_back(started());
                }
            }
            Event::Message(message) => {
                let payload = std::mem::take(payload);
                self.deliver_message(message, header.flags, payload, deliveries);
            }
            Event::TooLong {
                call,
                message_len: len,
                limit,
            } => self.deliver(call, Inbound::TooLong { len, limit }, deliveries),
            Event::HalfClosed { call } => self.deliver(call, Inbound::HalfClosed, deliveries),
            Event::Headers { call, metadata } => {
                let metadata = head.keep(metadata.as_bytes());
                self.deliver(call, Inbound::Headers(metadata), deliveries);
            }
            Event::Response(response) => {
                self.counts.note_received(1);
                let message = Message {
                    bytes: std::mem::take(payload),
                    packed: false,
                    compressed: response.compressed,
                };
                self.deliver(
                    response.call,
                    Inbound::Response {
                        head: head.take(),
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
                        head: head.take(),
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
                let writer = self.slots.get(call).and_then(|slot| slot.writer.take());
                deliveries.wakers.extend(writer);
            }
            Event::WritableAll => {
                self.wake_those_with_credit(deliveries);
            }
            Event::PeerSilent => return Err(Closed::PeerSilent),
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
                Event::PeerSilent => return Err(Closed::PeerSilent),
                _ => {}
            }
        }
        Ok(())
    }

    fn route(&mut self, method: Method<'_>, service: &dyn Serve) -> Arc<ServedMethod> {
        match method {
            Method::Known(number) => match self.routes.get(number as usize) {
                Some(Some(known)) => Arc::clone(known),
                _ => self.route_defined(number, service),
            },
            Method::Inline(path) => service.resolve(path),
            Method::Define(number, path) => self.remember_route(number, path, service),
        }
    }

    /// The call that defined the number was refused: the definition came no further than the protocol.
    #[cold]
    fn route_defined(&mut self, number: u32, service: &dyn Serve) -> Arc<ServedMethod> {
        match self.core.method_path(number).map(str::to_owned) {
            Some(path) => self.remember_route(number, &path, service),
            None => Arc::default(),
        }
    }

    fn remember_route(
        &mut self,
        number: u32,
        path: &str,
        service: &dyn Serve,
    ) -> Arc<ServedMethod> {
        let index = number as usize;
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        let method = service.resolve(path);
        self.routes[index] = Some(Arc::clone(&method));
        method
    }

    fn deliver_message(
        &mut self,
        message: ringway_wire::Message,
        flags: Flags,
        payload: Bytes,
        deliveries: &mut Deliveries,
    ) {
        let id = message.call;
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        slot.touched = self.counts.calls;
        let bytes = if message.first && !message.more {
            payload
        } else {
            let whole = message.message_len as usize;
            if !add_piece(&mut slot.pieces, whole, &payload) {
                return self.fail(id, whole, deliveries);
            }
            if message.more {
                return;
            }
            std::mem::take(&mut slot.pieces).into()
        };
        self.counts.messages_received += match flags.has(Flags::PACKED) {
            true => u64::from(packed_messages(&bytes)),
            false => 1,
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
        deliveries.wake_reader(id, &mut slot.reader);
    }

    fn deliver(&mut self, id: CallId, inbound: Inbound, deliveries: &mut Deliveries) {
        if let Some(slot) = self.slots.get(id) {
            slot.touched = self.counts.calls;
            slot.inbox.push_back(inbound);
            deliveries.wake_reader(id, &mut slot.reader);
        }
    }

    /// Has those woken who were not when something came for them, and who have not found it since.
    pub(crate) fn settle_owed(&mut self, deliveries: &mut Deliveries) {
        if deliveries.owes() {
            self.settle_what_is_owed(deliveries);
        }
    }

    #[cold]
    fn settle_what_is_owed(&mut self, deliveries: &mut Deliveries) {
        for id in std::mem::take(&mut deliveries.owed) {
            if let Some(slot) = self.slots.get(id).filter(|slot| !slot.inbox.is_empty()) {
                deliveries.wake_reader(id, &mut slot.reader);
            }
        }
    }

    /// Gives up a call of which this side cannot take a message.
    #[cold]
    fn fail(&mut self, id: CallId, len_bytes: usize, deliveries: &mut Deliveries) {
        let error = SendError::Memory {
            len_bytes,
            reason: "the allocator has none".into(),
        };
        self.core.reset(id, code::RESOURCE_EXHAUSTED);
        self.end(id, Inbound::Failed(error), deliveries);
    }

    /// Gives up a call of which a message can't be taken: of so many bytes, and for this reason.
    #[cold]
    fn lose(
        &mut self,
        id: CallId,
        (len_bytes, why): (u32, &'static str),
        deliveries: &mut Deliveries,
    ) {
        let code = code::RESOURCE_EXHAUSTED;
        self.core.refuse_message(id, code, why);
        self.end(id, Inbound::Failed(lost(len_bytes, why)), deliveries);
    }

    /// The end of a call that this side did not ask for: a server's handler is dropped before its
    /// request stream could seem to end.
    fn end(&mut self, id: CallId, inbound: Inbound, deliveries: &mut Deliveries) {
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        slot.inbox.clear();
        slot.inbox.push_back(inbound);
        deliveries.dropped.extend(slot.handler.take());
        deliveries.wake_reader(id, &mut slot.reader);
        deliveries.wakers.extend(slot.writer.take());
    }
}
