//! The sending half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_ring::{BLOCK_REF_BYTES, BlockRef, Producer, ReserveError};
use ringway_wire::FrameHeader;

use super::FILLED;
use crate::call::Out;
use crate::error::Closed;
use crate::link::{LinkError, Outgoing, Place};

/// The longest head and payload together that a record can take.
const PAYLOAD_RESERVE_BYTES: usize = 512;

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) producer: Producer,
    room: Arc<Room>,
}

/// Room in the ring, for those who wait for it: seen by whoever looks, rung for where nobody does.
#[derive(Debug)]
pub(crate) struct Room {
    peek: ringway_ring::RoomPeek,
    word: ringway_ring::SleepWord,
    awaited: AtomicBool,
}

impl Room {
    /// Whether somebody waits who should try again.
    pub(crate) fn has_come(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) && self.peek.has_changed()
    }

    /// Has the peer ring when it consumes, if somebody waits for that. `has_come` has to be asked again
    /// afterwards.
    pub(crate) fn arm_if_awaited(&self, memory_awaited: bool) {
        if memory_awaited || self.awaited.load(Ordering::SeqCst) {
            self.word.arm();
        }
    }
}

impl Sender {
    pub(crate) fn new(producer: Producer) -> Self {
        let room = Arc::new(Room {
            peek: producer.room_peek(),
            word: producer.room_word(),
            awaited: AtomicBool::new(false),
        });
        Self { producer, room }
    }

    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        let Outgoing {
            head_len,
            payload,
            place,
            finish,
        } = frame;
        let head_end = FrameHeader::LEN + head_len;
        match place {
            Place::Block(block, _turn) => {
                let mut record = self
                    .producer
                    .reserve_with_block(head_end, block)
                    .map_err(|(error, _)| refused(error))?;
                let header = finish(&mut record[FrameHeader::LEN..]).ok_or(LinkError::TakenBack)?;
                record[..FrameHeader::LEN].copy_from_slice(&header.encode());
                record.commit();
            }
            Place::BlockWithHead(block, _turn) => {
                let payload_len = payload.as_ref().map_or(0, |payload| payload.len);
                let mut record = self
                    .producer
                    .reserve_with_block(FrameHeader::LEN, block)
                    .map_err(|(error, _)| refused(error))?;
                let block = record.block_mut().ok_or(LinkError::TakenBack)?;
                block.truncate(payload_len + head_len);
                let head = block.as_mut_slice().get_mut(payload_len..);
                let head = head.filter(|head| head.len() == head_len);
                let header = finish(head.ok_or(LinkError::TooLarge)?);
                let header = header.ok_or(LinkError::TakenBack)?;
                record.copy_from_slice(&header.encode());
                record.commit();
            }
            Place::Inline => {
                let len = payload.as_ref().map_or(0, |payload| payload.len);
                let mut record = self.producer.reserve(head_end + len).map_err(refused)?;
                if let Some(payload) = payload {
                    (payload.encode)(Out::Slice(&mut record[head_end..]));
                }
                let header =
                    finish(&mut record[FrameHeader::LEN..head_end]).ok_or(LinkError::TakenBack)?;
                record[..FrameHeader::LEN].copy_from_slice(&header.encode());
                record.commit();
            }
        }
        Ok(())
    }

    /// A note for a peer that looks: without room for it, and for a peer that sleeps, the frame says it
    /// all.
    pub(crate) fn tell_filled(&mut self, block: BlockRef, filled: usize) {
        let block = block.encode();
        let (Ok(head_len), Ok(message_len)) = (block.len().try_into(), filled.try_into()) else {
            return;
        };
        let header = FrameHeader {
            head_len,
            message_len,
            ..FrameHeader::new(FILLED)
        };
        if let Ok(mut record) = self.producer.reserve(FrameHeader::LEN + BLOCK_REF_BYTES) {
            record[..FrameHeader::LEN].copy_from_slice(&header.encode());
            record[FrameHeader::LEN..].copy_from_slice(&block);
            record.commit();
        }
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The doorbell is armed by whoever goes to sleep.
    pub(crate) fn wait_for_room(&mut self, len: usize) -> bool {
        let wanted = (len + PAYLOAD_RESERVE_BYTES).min(self.producer.max_inline());
        let has_room = self.producer.has_room(wanted);
        if !has_room {
            self.room.awaited.store(true, Ordering::SeqCst);
        }
        has_room
    }

    /// Nobody waits for room any more.
    pub(crate) fn forget_room(&self) {
        if self.room.awaited.load(Ordering::Relaxed) {
            self.room.awaited.store(false, Ordering::SeqCst);
        }
    }
}

fn refused(error: ReserveError) -> LinkError {
    match error {
        ReserveError::Full => LinkError::Full,
        ReserveError::TooLarge { .. } => LinkError::TooLarge,
        ReserveError::Poisoned(corrupt) => {
            LinkError::Closed(Closed::PeerMisbehaved(corrupt.to_string()))
        }
    }
}
