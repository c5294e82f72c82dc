//! Frames that wait to be sent, one behind the other in one buffer that is used again.

use ringway_ring::failpoint::{self, Step};
use ringway_wire::FrameHeader;

use crate::call::Out;
use crate::error::Closed;
use crate::link::{LinkError, Outgoing};

/// No frame is added to more than this.
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// So much is sent without waiting for more.
const WORTH_SENDING_BYTES: usize = 64 * 1024;

/// Bytes on their way to the kernel.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Initialised memory; what waits is `start..end` of it.
    memory: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` is in the whole stream.
    sent: u64,
    /// A frame was refused, and nobody has asked for room since.
    refused: bool,
    /// Somebody waits for room.
    wanted: bool,
    /// Much was sent since the last trim.
    grown: bool,
    ended: Option<Closed>,
}

impl Outbox {
    /// Appends a frame.
    pub(crate) fn put(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        if let Some(why) = &self.ended {
            return Err(LinkError::Closed(why.clone()));
        }
        if !self.has_room() {
            self.refused = true;
            return Err(LinkError::Full);
        }
        let payload_len = frame.payload.as_ref().map_or(0, |payload| payload.len);
        let head_end = FrameHeader::LEN + frame.head_len;
        let len = head_end + payload_len;
        let place = self.make_room(len);
        if let Some(payload) = frame.payload {
            (payload.encode)(Out::Slice(&mut place[head_end..]));
        }
        let header = (frame.finish)(&mut place[FrameHeader::LEN..head_end]);
        let header = header.ok_or(LinkError::TakenBack)?;
        place[..FrameHeader::LEN].copy_from_slice(&header.encode());
        self.end += len;
        failpoint::reached(Step::Written);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// What waits.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The kernel took `len` bytes of it.
    pub(crate) fn advance(&mut self, len: usize) {
        self.start += len;
        self.sent += len as u64;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else {
            failpoint::reached(Step::PartlySent);
        }
    }

    /// Everything that waits, without a copy.
    #[cfg_attr(not(all(feature = "io-uring", target_os = "linux")), allow(dead_code))]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.memory);
        bytes.truncate(self.end);
        bytes.drain(..self.start);
        self.advance(bytes.len());
        bytes
    }

    /// Nothing can be sent any more.
    pub(crate) fn end(&mut self, why: Closed) {
        self.ended.get_or_insert(why);
        // What waits was not sent and never will be, so `sent` stays.
        (self.start, self.end) = (0, 0);
    }

    pub(crate) fn is_worth_sending(&self) -> bool {
        self.len() >= WORTH_SENDING_BYTES
    }

    /// Notes that somebody waits; true if there is room after all.
    pub(crate) fn wait_for_room(&mut self) -> bool {
        let room = self.has_room() || self.ended.is_some();
        self.wanted = !room;
        room
    }

    /// Whether the last refused frame would fit by now; true once.
    pub(crate) fn was_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Whether there is room now that somebody waits for; true once.
    pub(crate) fn room_came(&mut self) -> bool {
        // Half of it: waking a writer for each frame would send each by itself.
        let came = self.wanted && (self.len() <= MAX_WAITING_BYTES / 2 || self.ended.is_some());
        self.wanted &= !came;
        came
    }

    /// Where the stream ends with what waits.
    pub(crate) fn end_position(&self) -> u64 {
        self.sent + self.len() as u64
    }

    pub(crate) fn has_sent(&self, position: u64) -> bool {
        self.sent >= position
    }

    /// Gives back memory that large frames needed, unless there were such lately.
    pub(crate) fn trim(&mut self) {
        let grown = std::mem::take(&mut self.grown);
        if !grown && self.len() == 0 && self.memory.len() > MAX_WAITING_BYTES {
            self.memory = Vec::new();
        }
    }

    fn has_room(&self) -> bool {
        self.len() < MAX_WAITING_BYTES
    }

    fn make_room(&mut self, len: usize) -> &mut [u8] {
        if self.end + len > self.memory.len() {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end + len > self.memory.len() {
            self.memory
                .resize((self.end + len).next_multiple_of(4096), 0);
        }
        self.grown |= len > WORTH_SENDING_BYTES;
        &mut self.memory[self.end..self.end + len]
    }
}
