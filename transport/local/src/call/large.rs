//! Messages too long for one frame.
//!
//! Such a message is encoded once, into a rope, and sent in pieces as the link takes them. The first piece tells
//! the length of all, by which the receiver judges it before it takes memory for it. Each piece fits any link, so
//! both sides hold the message and some pieces beside it, whatever its length, and other calls' frames go between
//! them. Such a message is charged whole when it begins, to its call's window and to the connection's window of large
//! messages: one at a time passes a connection, and small ones do not wait for it.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use ringway_ring::{BlockRef, Rope};
use ringway_wire::Flags;
use ringway_wire::limits::LARGE_MESSAGE_BYTES;

use super::{CallSender, Encode, Form, Out};
use crate::connection::Connection;
use crate::error::SendError;
use crate::link::shm::WithHead;
use crate::link::{Payload, Place};

/// Longest message that goes in one frame, in bytes: what tonic takes unless more is allowed.
pub const MAX_WHOLE_BYTES: usize = LARGE_MESSAGE_BYTES as usize;

/// Bytes of a piece: few enough to be little memory at either side, enough to make the frame around it cheap.
const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces that are sent before other tasks have their turn.
const PIECES_AT_ONCE: usize = 4;

/// A message on its way out in pieces.
struct LargeMessage {
    rest: Rope,
    /// Blocks of pieces that were sent, as far as the peer has not given them back.
    under_way: Vec<BlockRef>,
    len_bytes: usize,
    flags: Flags,
}

impl LargeMessage {
    fn encode(form: Form, end: bool, encode: impl FnOnce(Out<'_>)) -> Self {
        let mut rest = Rope::default();
        encode(Out::Rope(&mut rest));
        Self {
            len_bytes: rest.len(),
            flags: Flags::NONE
                .with(Flags::COMPRESSED, form == Form::Compressed)
                .with(Flags::END, end),
            rest,
            under_way: Vec::new(),
        }
    }

    fn has_begun(&self) -> bool {
        self.rest.len() < self.len_bytes
    }
}

impl fmt::Debug for LargeMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LargeMessage")
            .field("len_bytes", &self.len_bytes)
            .field("left_bytes", &self.rest.len())
            .finish_non_exhaustive()
    }
}

impl Out<'_> {
    /// Writes a message that is encoded already; in pieces it goes without a copy of the whole.
    pub fn share(self, message: &Bytes) {
        match self {
            Self::Rope(rope) => rope.push(message.clone()),
            out => out.copy_from_slice(message),
        }
    }
}

impl CallSender {
    /// Sends a message longer than [`MAX_WHOLE_BYTES`], which `encode` writes once there is credit for it; `end`
    /// says that it is a client's last one.
    ///
    /// # Errors
    /// A [`SendError`]. The peer may have a part of the message: the call can only be ended then.
    pub async fn send_large(
        &self,
        form: Form,
        end: bool,
        encode: impl FnOnce(Out<'_>),
    ) -> Result<(), SendError> {
        poll_fn(|context| {
            let allowed = self.connection.lock().check_large_message(self.id);
            self.or_wait(context, 0, allowed)
        })
        .await?;
        let mut message = LargeMessage::encode(form, end, encode);
        poll_fn(|context| self.poll_send_pieces(context, &mut message)).await
    }

    /// Encodes such a message now, and returns the future that sends it.
    pub fn begin_large(
        &self,
        form: Form,
        end: bool,
        encode: Encode<'_>,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<> {
        let mut message = LargeMessage::encode(form, end, encode);
        let sender = self.clone();
        poll_fn(move |context| sender.poll_send_pieces(context, &mut message))
    }

    fn poll_send_pieces(
        &self,
        context: &mut Context<'_>,
        message: &mut LargeMessage,
    ) -> Poll<Result<(), SendError>> {
        for _ in 0..PIECES_AT_ONCE {
            if message.rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let sent = self.send_piece(message);
            if sent.is_err() {
                return self.or_wait(context, 0, sent);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn send_piece(&self, message: &mut LargeMessage) -> Result<(), SendError> {
        if !message.has_begun() {
            self.connection.lock().check_large_message(self.id)?;
        }
        let len = message.rest.len().min(PIECE_BYTES);
        let place = place_piece(&self.connection, message, len)?;
        let block = match &place {
            Place::Block(block, _) => Some(block.reference()),
            _ => None,
        };
        let encode = &mut |out: Out<'_>| {
            if let Out::Slice(out) = out {
                message.rest.copy_front(out);
            }
        };
        self.connection.lock().send_piece(
            self.id,
            message.len_bytes,
            message.flags,
            Payload { len, encode },
            place,
        )?;
        message.under_way.extend(block);
        message.rest.advance(len);
        Ok(())
    }
}

/// Chooses the place of a piece, and writes it there if it is a block: outside of the connection's lock.
fn place_piece(
    connection: &Connection,
    message: &mut LargeMessage,
    len: usize,
) -> Result<Place, SendError> {
    let Some(blocks) = connection.blocks() else {
        return Ok(Place::Inline);
    };
    let Some(WithHead(_)) = blocks.takes(0, len) else {
        return Ok(Place::Inline);
    };
    let mut block = blocks.allocate_piece(len, &mut message.under_way)?;
    connection.note_large();
    message.rest.copy_front(&mut block.as_mut_slice()[..len]);
    Ok(Place::Block(block, None))
}
