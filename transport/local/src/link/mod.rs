//! What carries frames between two ends of a connection, as a sending and a receiving half that
//! are locked apart.
//!
//! | link | frames travel |
//! | --- | --- |
//! | [`shm`] | as records of a memory ring, large payloads beside it in blocks of an arena |
//! | [`queue`] | as values through a pair of queues inside one process |

pub(crate) mod queue;
pub(crate) mod shm;

use bytes::Bytes;
use ringway_ring::BlockWriter;
use ringway_wire::FrameHeader;

use crate::error::Closed;

/// Which link a connection runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Memory regions shared by two processes.
    Shm,
    /// A Unix stream socket.
    Socket,
    /// Queues inside one process.
    Inproc,
}

/// A frame as it was received, in private memory.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

/// A payload to send: its length, and how to write it.
pub(crate) struct Payload<'a> {
    pub(crate) len: usize,
    pub(crate) encode: &'a mut dyn FnMut(&mut [u8]),
}

/// Where a payload will be written.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the frame's own record.
    Inline,
    /// Already, in a block of the arena.
    Block(BlockWriter),
}

/// Why a frame could not be handed to the link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// No room now; [`Sender::wait_for_room`] and try again.
    Full,
    /// Never: longer than the link carries.
    TooLarge,
    /// The frame was taken back before it was published.
    TakenBack,
    /// The link is dead.
    Closed(Closed),
}

/// Writes one frame: fills in the header once the frame's place is sure.
pub(crate) struct Outgoing<'a, 'p> {
    pub(crate) head_len: usize,
    pub(crate) payload: Option<Payload<'p>>,
    pub(crate) place: Place,
    /// Called last, when there is room for sure: fills in the head, and makes the header. `None`
    /// takes the frame back.
    pub(crate) finish: &'a mut dyn FnMut(&mut [u8]) -> Option<FrameHeader>,
}

/// The sending half.
#[derive(Debug)]
pub(crate) enum Sender {
    Shm(shm::Sender),
    Queue(queue::Sender),
}

impl Sender {
    /// Writes and publishes one frame.
    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        match self {
            Self::Shm(sender) => sender.send(frame),
            Self::Queue(sender) => sender.send(frame),
        }
    }

    /// Announces that somebody waits for room; true if there is room after all.
    pub(crate) fn wait_for_room(&mut self, len: usize) -> bool {
        match self {
            Self::Shm(sender) => sender.wait_for_room(len),
            Self::Queue(sender) => sender.has_room(),
        }
    }

    /// Rings if the peer sleeps.
    pub(crate) fn ring(&mut self) {
        match self {
            Self::Shm(sender) => sender.ring(),
            Self::Queue(sender) => sender.ring(),
        }
    }

    /// Where the stream of records ends now; `None` where the link can't tell what was seen.
    pub(crate) fn position(&self) -> Option<ringway_ring::Position> {
        match self {
            Self::Shm(sender) => Some(sender.producer.position()),
            Self::Queue(_) => None,
        }
    }

    /// Whether the peer has certainly not seen what ends at `position`.
    pub(crate) fn was_not_seen(&mut self, position: Option<ringway_ring::Position>) -> bool {
        match (self, position) {
            (Self::Shm(sender), Some(position)) => sender
                .producer
                .peer_cursor()
                .is_ok_and(|cursor| !position.reached_by(cursor)),
            _ => false,
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) enum Receiver {
    Shm(Box<shm::Receiver>),
    Queue(queue::Receiver),
}

impl Receiver {
    /// Moves what has arrived into `frames`.
    pub(crate) fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Closed> {
        match self {
            Self::Shm(receiver) => receiver.receive(frames),
            Self::Queue(receiver) => receiver.receive(frames),
        }
    }
}

/// Looks and sleep words for any thread, without a lock.
#[derive(Debug, Clone)]
pub(crate) enum Watch {
    Shm {
        peek: ringway_ring::Peek,
        sleep: ringway_ring::SleepWord,
    },
    Queue(queue::Watch),
}

impl Watch {
    pub(crate) fn has_records(&self) -> bool {
        match self {
            Self::Shm { peek, .. } => peek.has_records(),
            Self::Queue(watch) => watch.has_frames(),
        }
    }

    /// Announces sleep; look again afterwards.
    pub(crate) fn arm(&self) {
        match self {
            Self::Shm { sleep, .. } => sleep.arm(),
            Self::Queue(watch) => watch.arm(),
        }
    }

    pub(crate) fn disarm(&self) {
        match self {
            Self::Shm { sleep, .. } => sleep.disarm(),
            Self::Queue(watch) => watch.disarm(),
        }
    }
}
