//! One end's hold on a call: answers it, sends its messages. How it comes to be open is [`opening`]'s business,
//! what arrives for it [`read`]'s, and messages too long for one frame are [`large`]'s.

mod deadline;
mod large;
mod opening;
mod read;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BufMut;
use ringway_ring::failpoint::{self, Step};
use ringway_ring::{Filling, Rope};
use ringway_wire::{CallId, Flags, code};

use self::deadline::Deadline;
pub use self::large::MAX_WHOLE_BYTES;
pub use self::opening::Opening;
use self::read::Course;
use crate::connection::{Connection, HandlerFuture, Inbound, Waiter, abandoned_status};
use crate::error::{Lack, SendError};
use crate::link::shm::{Blocks, WithHead, part_bytes};
use crate::link::{Payload, Place};
use crate::pace::{Pace, note_frame};

/// Writes a message of a known length; called once, unless the link is full.
pub type Encode<'a> = &'a mut dyn FnMut(Out<'_>);

/// Where a message is written: as many bytes as were announced, neither less nor more.
#[derive(Debug)]
pub enum Out<'a> {
    /// In a frame's own record, or what is sent through a socket.
    Slice(&'a mut [u8]),
    /// In a block, whose beginning the peer may read while the rest is written.
    Block(Filling<'a>),
    /// In private memory, from where it goes in pieces.
    Rope(&'a mut Rope),
}

impl Out<'_> {
    /// Writes a message that is encoded already.
    pub fn copy_from_slice(self, message: &[u8]) {
        match self {
            Self::Slice(out) => out.copy_from_slice(message),
            Self::Block(mut out) => out.put_slice(message),
            Self::Rope(out) => out.put_slice(message),
        }
    }
}

/// What a frame's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One message.
    Plain,
    /// So many, each behind its length (u32, little-endian).
    Packed(u32),
    /// One message, compressed with the encoding that the call's metadata names.
    Compressed,
}

/// One end's hold on a call: reads it, answers it, and gives it up when dropped (a client cancels,
/// a server answers `INTERNAL`).
#[derive(Debug)]
pub struct Call {
    sender: CallSender,
    course: Course,
    side: Side,
    polls: u32,
    /// The task that was noted as the reader when the call was opened.
    noted: Option<Noted>,
    /// Client: which pass had been the last to bring anything when the call was made.
    made_at: Option<u32>,
    /// Client: when it has to be over.
    deadline: Deadline,
}

/// What opening a call has already done for its first poll.
#[derive(Debug, Clone, Copy)]
struct Noted {
    /// The task whose waker is kept, by what that holds.
    reader: usize,
    /// How often readers had been woken by then: after that its waker may be spent.
    as_of: u32,
    /// No other call was active.
    is_only: bool,
}

/// Whose hold it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
    /// A server's stream of requests: its drop means nothing.
    ServerReader,
}

/// Sends a call's messages, beside whoever reads it.
#[derive(Debug, Clone)]
pub struct CallSender {
    connection: Arc<Connection>,
    id: CallId,
}

impl Call {
    pub(crate) fn new(connection: Arc<Connection>, id: CallId) -> Self {
        Self::held(CallSender { connection, id }, Side::Server)
    }

    fn held(sender: CallSender, side: Side) -> Self {
        Self {
            sender,
            course: Course::default(),
            side,
            polls: 0,
            noted: None,
            made_at: None,
            deadline: Deadline::default(),
        }
    }

    /// Server: a hold that only reads, for a stream of requests that a handler may drop.
    pub fn reader(&self) -> Self {
        Self::held(self.sender.clone(), Side::ServerReader)
    }

    /// Sends messages of this call.
    pub fn sender(&self) -> &CallSender {
        &self.sender
    }

    /// The connection that carries it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.sender.connection
    }

    pub(crate) fn id(&self) -> CallId {
        self.sender.id
    }

    /// Gives the call a future that runs beside it from now on: a client's request stream. Where it runs is
    /// learnt by `pace`, one for all calls of a method.
    pub fn attach(&self, future: HandlerFuture, pace: Arc<Pace>) {
        self.connection().attach(self.id(), future, pace);
    }

    /// Server: answers a unary call, or [another](Connection::takes_whole_streams), with its only message;
    /// pending while there is no room or credit. The call is over.
    ///
    /// # Errors
    /// A [`SendError`].
    pub fn poll_respond(
        &mut self,
        context: &mut Context<'_>,
        head: &[u8],
        len: usize,
        encode: Encode<'_>,
    ) -> Poll<Result<(), SendError>> {
        let sent = self.respond(head, len, encode);
        self.sender.or_wait(context, head.len() + len, sent)
    }

    /// The same, now.
    ///
    /// # Errors
    /// A [`SendError`]; after [`SendError::Blocked`], [`Self::poll_respond`] waits.
    pub fn respond(
        &mut self,
        head: &[u8],
        len: usize,
        encode: Encode<'_>,
    ) -> Result<(), SendError> {
        failpoint::reached(Step::Handled);
        let mut message = Some((len, encode));
        let sender = &self.sender;
        let sent = place(&sender.connection, None, head.len(), &mut message).and_then(|place| {
            let Some((len, encode)) = message else {
                return Ok(());
            };
            let mut state = sender.connection.lock();
            state.send_response(sender.id, head, Payload { len, encode }, place)?;
            let left_reading = state.take_left_reading();
            drop(state);
            left_reading.into_iter().for_each(Waker::wake);
            Ok(())
        });
        self.course.over |= sent.is_ok();
        if sent.is_err() {
            sender.connection.note_spare_memory();
        }
        sent
    }

    /// Server: ends the call with a status. The call is over.
    ///
    /// # Errors
    /// A [`SendError`].
    pub fn poll_finish(
        &mut self,
        context: &mut Context<'_>,
        code: u16,
        head: &[u8],
    ) -> Poll<Result<(), SendError>> {
        failpoint::reached(Step::Handled);
        let sender = &self.sender;
        let sent = place(&sender.connection, None, head.len(), &mut None).and_then(|place| {
            let mut state = sender.connection.lock();
            let sent = state.send_trailers(sender.id, code, head, place);
            let left_reading = state.take_left_reading();
            drop(state);
            left_reading.into_iter().for_each(Waker::wake);
            sent
        });
        self.course.over |= sent.is_ok();
        self.sender.or_wait(context, head.len(), sent)
    }

    /// Gives the call up with a status code.
    pub fn cancel(&mut self, code: u16) {
        if !std::mem::replace(&mut self.course.over, true) {
            let given_up = self.connection().lock().cancel(self.sender.id, code);
            given_up.finish();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.course.over || self.side == Side::ServerReader {
            return;
        }
        if self.side == Side::Server {
            let (code, head) = abandoned_status();
            let id = self.sender.id;
            let mut state = self.connection().lock();
            let sent = state.send_trailers(id, code, &head, Place::Inline).is_ok();
            let left_reading = state.take_left_reading();
            drop(state);
            self.course.over = sent;
            left_reading.into_iter().for_each(Waker::wake);
        }
        self.cancel(code::CANCELLED);
    }
}

impl CallSender {
    /// Sends a message; pending while there is no room or credit.
    ///
    /// # Errors
    /// A [`SendError`]: the message was not sent.
    pub fn poll_send(
        &self,
        context: &mut Context<'_>,
        form: Form,
        len: usize,
        encode: Encode<'_>,
    ) -> Poll<Result<(), SendError>> {
        let flags = Flags::NONE
            .with(Flags::PACKED, matches!(form, Form::Packed(_)))
            .with(Flags::COMPRESSED, form == Form::Compressed);
        let messages = match form {
            Form::Packed(messages) => messages,
            Form::Plain | Form::Compressed => 1,
        };
        let mut message = Some((len, encode));
        let sent = place(&self.connection, Some(self.id), 0, &mut message).and_then(|place| {
            let Some((len, encode)) = message else {
                return Ok(());
            };
            self.connection.lock().send_message(
                self.id,
                (flags, messages),
                Payload { len, encode },
                place,
            )
        });
        if sent.is_ok() {
            note_frame();
        }
        self.or_wait(context, len, sent)
    }

    /// Whether the connection has credit to spare, so that many messages may share a long frame.
    pub fn has_plenty(&self) -> bool {
        self.connection.lock().has_plenty()
    }

    /// Client: sends no more messages; pending while there is no room to say so.
    ///
    /// # Errors
    /// A [`SendError`] if the call is over.
    pub fn poll_half_close(&self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let sent = self.connection.lock().half_close(self.id);
        self.or_wait(context, 0, sent)
    }

    /// Gives the call up with a status, which its reader finds as if the peer had ended the call with it: `head` is a
    /// [`StatusHead`](ringway_wire::StatusHead). The peer is told the code.
    pub fn give_up(&self, code: u16, head: Vec<u8>) {
        let head = head.into();
        let last = Inbound::Trailers { code, head };
        let reader = self.connection.give_up(self.id, code, last);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Gives the call up because a message of it could not be sent. Its reader is told why; nothing happens to a
    /// call that has ended.
    pub fn give_up_unsent(&self, error: SendError) {
        if matches!(error, SendError::CallEnded | SendError::Closed(_)) {
            return;
        }
        let (code, failed) = (code::RESOURCE_EXHAUSTED, Inbound::Failed(error));
        let reader = self.connection.give_up(self.id, code, failed);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Server: sends initial metadata.
    ///
    /// # Errors
    /// A [`SendError`].
    pub fn poll_send_headers(
        &self,
        context: &mut Context<'_>,
        metadata: &[u8],
    ) -> Poll<Result<(), SendError>> {
        let sent = place(&self.connection, None, metadata.len(), &mut None).and_then(|place| {
            let mut state = self.connection.lock();
            state.send_headers(self.id, metadata, place)
        });
        self.or_wait(context, metadata.len(), sent)
    }

    fn or_wait(
        &self,
        context: &mut Context<'_>,
        len: usize,
        sent: Result<(), SendError>,
    ) -> Poll<Result<(), SendError>> {
        let Err(SendError::Blocked(lack)) = sent else {
            if sent.is_err() {
                self.connection.note_spare_memory();
            }
            return Poll::Ready(sent);
        };
        wait(&self.connection, lack, Waiter::Call(self.id), len, context);
        Poll::Pending
    }
}

/// Has `context`'s task woken when what a sender lacks may be there.
fn wait(
    connection: &Connection,
    lack: Lack,
    sender: Waiter<'_>,
    len: usize,
    context: &mut Context<'_>,
) {
    connection.ensure_driven();
    let waker = context.waker();
    let mut is_there = connection.lock().wait_to_send(lack, sender, len, waker);
    if lack == Lack::Memory {
        is_there |= connection.blocks().is_some_and(Blocks::wait);
        connection.see_to_notes();
    }
    connection.note_spare_memory();
    if is_there {
        waker.wake_by_ref();
    }
    connection.rely_on_doorbell();
}

/// Chooses the place of a payload and of a head of at most `head_len` bytes, and writes a large payload
/// into it: outside of the connection's lock. `stream` is the call of whose messages it is one.
fn place(
    connection: &Connection,
    stream: Option<CallId>,
    head_len: usize,
    message: &mut Option<(usize, Encode<'_>)>,
) -> Result<Place, SendError> {
    let Some(blocks) = connection.blocks() else {
        return Ok(Place::Inline);
    };
    let len = message.as_ref().map_or(0, |(len, _)| *len);
    let Some(WithHead(with_head)) = blocks.takes(head_len, len) else {
        return Ok(Place::Inline);
    };
    match stream {
        Some(id) => connection.lock().check_message(id)?,
        None if message.is_some() => connection.lock().check_credit()?,
        None => {}
    }
    let mut block = blocks.allocate(if with_head { len + head_len } else { len })?;
    connection.note_large();
    let turn = blocks.turn_to_tell(len);
    if let Some((len, encode)) = message {
        let reference = block.reference();
        let bytes = &mut block.as_mut_slice()[..*len];
        let mut tell = |filled| connection.lock().tell_filled(reference, filled);
        let step = match turn {
            Some(_) => part_bytes(*len),
            None => usize::MAX,
        };
        encode(Out::Block(Filling::new(bytes, step, &mut tell)));
    }
    Ok(match with_head {
        true => Place::BlockWithHead(block, turn),
        false => Place::Block(block, turn),
    })
}
