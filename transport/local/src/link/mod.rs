//! What carries frames between two ends of a connection, as a sending and a receiving half that
//! are locked apart.
//!
//! | link | frames travel |
//! | --- | --- |
//! | [`shm`] | as records of a memory ring, large payloads beside it in blocks of an arena |
//! | [`stream`] | as bytes through a Unix stream socket, or through two pipes |
//! | [`queue`] | as values through a pair of queues inside one process |

pub(crate) mod queue;
pub(crate) mod shm;
pub(crate) mod stream;

use bytes::Bytes;
use ringway_ring::{BlockRef, BlockWriter};
use ringway_wire::FrameHeader;

use crate::call::Encode;
use crate::connection::Fill;
use crate::error::Closed;
use crate::pace::beside_the_poll;
use crate::pressing::{BRIEF_BYTES, BRIEF_FRAMES, BRIEF_NOTES};
use crate::spin::PeerPosture;

/// Frames after which the core judges what came, and other connections have their turn: a peer that sends small
/// ones without end gets a fraction of a millisecond.
pub(crate) const MAX_FRAMES: usize = 256;

/// Bounds what one receive takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) frames: usize,
    /// When so much was copied out of records and blocks, the core judges what came before more is: nothing keeps a
    /// peer from naming one block in each record of a ring.
    pub(crate) unjudged_bytes: usize,
    /// Of the longest block, which is copied whole.
    pub(crate) block_bytes: usize,
    /// Notes of segments.
    pub(crate) notes: usize,
}

impl Limits {
    pub(crate) const USUAL: Self = Self {
        frames: MAX_FRAMES,
        unjudged_bytes: 1024 * 1024,
        block_bytes: usize::MAX,
        notes: shm::MAX_NOTES,
    };
    const BRIEF: Self = Self {
        frames: BRIEF_FRAMES,
        unjudged_bytes: BRIEF_BYTES,
        block_bytes: BRIEF_BYTES,
        notes: BRIEF_NOTES,
    };

    fn of(brief: bool) -> Self {
        if brief { Self::BRIEF } else { Self::USUAL }
    }
}

/// Says of a frame, by its header and its head, whether its payload is wanted. Asked before memory is taken for
/// a long one.
pub(crate) type Judge<'a> = dyn FnMut(&FrameHeader, &[u8]) -> Result<bool, Closed> + 'a;

/// Which link a connection runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Memory regions shared by two processes.
    Shm,
    /// A Unix stream socket.
    Socket,
    /// Two pipes, one for each direction.
    Pipe,
    /// Queues inside one process.
    Inproc,
}

/// A frame as it was received, in private memory.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) head: Head,
    pub(crate) payload: Bytes,
    /// This process could not take the memory that the payload came in.
    pub(crate) is_lost: bool,
}

/// Long enough for a request's method, deadline and trace.
const SHORT_HEAD_BYTES: usize = 40;

/// A frame's head. Most are a few bytes, not worth an allocation.
#[derive(Debug)]
pub(crate) enum Head {
    Short {
        bytes: [u8; SHORT_HEAD_BYTES],
        len: u8,
    },
    Long(Bytes),
}

impl Head {
    pub(crate) fn copy(head: &[u8]) -> Self {
        let mut bytes = [0; SHORT_HEAD_BYTES];
        match (bytes.get_mut(..head.len()), u8::try_from(head.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(head);
                Self::Short { bytes, len }
            }
            _ => Self::Long(Bytes::copy_from_slice(head)),
        }
    }

    /// A part of the head to keep.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        match self {
            _ if part.is_empty() => Bytes::new(),
            Self::Short { .. } => Bytes::copy_from_slice(part),
            Self::Long(bytes) => bytes.slice_ref(part),
        }
    }

    /// The whole head to keep; a long one is gone from here.
    pub(crate) fn take(&mut self) -> Bytes {
        match self {
            Self::Short { bytes, len } => Self::short(bytes, *len),
            Self::Long(bytes) => std::mem::take(bytes),
        }
    }

    fn short(bytes: &[u8], len: u8) -> Bytes {
        match len {
            0 => Bytes::new(),
            len => Bytes::copy_from_slice(&bytes[..usize::from(len)]),
        }
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { bytes, len } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// A payload to send: its length, and how to write it.
pub(crate) struct Payload<'a> {
    pub(crate) len: usize,
    pub(crate) encode: Encode<'a>,
}

/// Where a payload will be written.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the frame's own record.
    Inline,
    /// Already, in a block of the arena, of which the peer was told meanwhile if it was its turn.
    Block(BlockWriter, Option<shm::Turn>),
    /// The same, with room for the head behind it.
    BlockWithHead(BlockWriter, Option<shm::Turn>),
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

/// A place in what a link was given to send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Position {
    Record(ringway_ring::Position),
    Byte(u64),
}

/// The sending half.
#[derive(Debug)]
pub(crate) enum Sender {
    Shm(shm::Sender),
    Stream(stream::Sender),
    Queue(queue::Sender),
}

impl Sender {
    /// Writes and publishes one frame.
    pub(crate) fn send(&mut self, frame: Outgoing<'_, '_>) -> Result<(), LinkError> {
        match self {
            Self::Shm(sender) => sender.send(frame),
            Self::Stream(sender) => sender.send(frame),
            Self::Queue(sender) => sender.send(frame),
        }
    }

    /// Tells how much of a block is filled, for a peer that looks just now.
    pub(crate) fn tell_filled(&mut self, block: BlockRef, filled: usize) {
        if let Self::Shm(sender) = self {
            sender.tell_filled(block, filled);
        }
    }

    /// Announces that somebody waits for room; true if there is room after all.
    pub(crate) fn wait_for_room(&mut self, len: usize) -> bool {
        match self {
            Self::Shm(sender) => sender.wait_for_room(len),
            Self::Stream(sender) => sender.wait_for_room(),
            Self::Queue(sender) => sender.has_room(),
        }
    }

    /// Nobody waits for room any more.
    pub(crate) fn forget_room(&self) {
        if let Self::Shm(sender) = self {
            sender.forget_room();
        }
    }

    /// Sees to it that the peer takes what was sent: true if its doorbell is to be rung for that, by
    /// [`Watch::ring`]. A socket's frames go out now or, with others in flight, soon.
    #[must_use]
    pub(crate) fn must_ring(&mut self, calls_in_flight: usize) -> bool {
        match self {
            Self::Shm(sender) => return sender.producer.peer_must_be_woken(),
            Self::Stream(sender) => sender.ring(calls_in_flight),
            Self::Queue(sender) => sender.ring(),
        }
        false
    }

    /// Where the stream of records ends now; `None` where the link can't tell what was seen.
    pub(crate) fn position(&self) -> Option<Position> {
        match self {
            Self::Shm(sender) => Some(Position::Record(sender.producer.position())),
            Self::Stream(sender) => Some(sender.position()),
            Self::Queue(_) => None,
        }
    }

    /// Whether the peer has certainly not seen what ends at `position`.
    pub(crate) fn was_not_seen(&mut self, position: Option<Position>) -> bool {
        match (self, position) {
            (Self::Shm(sender), Some(Position::Record(position))) => sender
                .producer
                .peer_cursor()
                .is_ok_and(|cursor| !position.reached_by(cursor)),
            (Self::Stream(sender), Some(Position::Byte(position))) => sender.was_not_sent(position),
            _ => false,
        }
    }

    /// A count that grows as the peer takes what was sent, as long as some of it is not taken; `None` where all is, or
    /// where the peer is this very process.
    pub(crate) fn untaken(&mut self) -> Option<u64> {
        match self {
            Self::Shm(sender) => {
                let cursor = sender.producer.peer_cursor().ok()?;
                let taken = sender.producer.position().reached_by(cursor);
                (!taken).then(|| cursor.get())
            }
            Self::Stream(sender) => sender.untaken(),
            Self::Queue(_) => None,
        }
    }

    /// How full the link is; empty where it has no bounds of its own.
    pub(crate) fn fill(&mut self) -> Fill {
        let Self::Shm(sender) = self else {
            return Fill::default();
        };
        let fill = sender.producer.fill();
        fill.map_or(Fill::default(), |(used, capacity)| Fill::of(used, capacity))
    }

    /// Whether the peer can have everything, if it reads on.
    pub(crate) fn is_drained(&self) -> bool {
        match self {
            Self::Stream(sender) => sender.is_drained(),
            Self::Shm(_) | Self::Queue(_) => true,
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) enum Receiver {
    Shm(Box<shm::Receiver>),
    Stream(stream::Receiver),
    Queue(queue::Receiver),
}

impl Receiver {
    /// Moves what has arrived into `frames`, or a part of it: see [`Self::has_more`]. A long payload that
    /// `judge` does not want is left out.
    pub(crate) fn receive(
        &mut self,
        frames: &mut Vec<Frame>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Closed> {
        match self {
            Self::Shm(receiver) => receiver.receive(frames, judge),
            Self::Stream(receiver) => receiver.receive(frames, judge),
            Self::Queue(receiver) => receiver.receive(frames),
        }
    }
}

impl Receiver {
    /// Whether a payload came in a block since this was last asked.
    pub(crate) fn take_fetched(&mut self) -> bool {
        match self {
            Self::Shm(receiver) => std::mem::take(&mut receiver.fetched),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }

    /// Returns true if what came is to be handled, and more received then: it depends on what came, or would
    /// be too much memory at once.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Shm(receiver) => receiver.has_more(),
            Self::Stream(receiver) => receiver.has_more(),
            Self::Queue(_) => false,
        }
    }

    /// Has the receives that follow take little, or as much as any. A queue's sender is of this very process.
    pub(crate) fn be_brief(&mut self, brief: bool) {
        match self {
            Self::Shm(receiver) => receiver.limits = Limits::of(brief),
            Self::Stream(receiver) => receiver.be_brief(brief),
            Self::Queue(_) => {}
        }
    }

    /// Segments that were refused at either end since this was last asked.
    pub(crate) fn take_refusals(&mut self) -> Vec<shm::Refusal> {
        match self {
            Self::Shm(receiver) => std::mem::take(&mut receiver.refusals),
            Self::Stream(_) | Self::Queue(_) => Vec::new(),
        }
    }

    /// Gives back what was copied of messages that do not come.
    pub(crate) fn forget_given_up(&mut self) {
        if let Self::Shm(receiver) = self {
            receiver.forget_given_up();
        }
    }

    /// Whether some of a payload came ahead of its frame since this was last asked.
    pub(crate) fn take_read_ahead(&mut self) -> bool {
        match self {
            Self::Shm(receiver) => std::mem::take(&mut receiver.read_ahead),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }
}

/// Looks and sleep words for any thread, without a lock.
#[derive(Debug, Clone)]
pub(crate) enum Watch {
    Shm {
        peek: ringway_ring::Peek,
        sleep: ringway_ring::SleepWord,
        peer: ringway_ring::PeerSleep,
        peer_bell: std::sync::Arc<shm::peer_bell::PeerBell>,
        room: std::sync::Arc<shm::Room>,
    },
    Stream(stream::Watch),
    Queue(queue::Watch),
}

impl Watch {
    /// Whether records are there to take, or room is there that somebody waits for.
    pub(crate) fn has_work(&self) -> bool {
        match self {
            Self::Shm { peek, room, .. } => peek.has_records() || room.has_come(),
            Self::Stream(watch) => watch.has_records(),
            Self::Queue(watch) => watch.has_frames(),
        }
    }

    /// Bytes that wait to be taken, as the peer says; `None` where the link does not tell.
    pub(crate) fn pending_bytes(&self) -> Option<u64> {
        match self {
            Self::Shm { peek, .. } => Some(peek.pending_bytes()),
            Self::Stream(_) | Self::Queue(_) => None,
        }
    }

    /// Whether the peer was rung for, and can hardly come up before this thread makes way.
    pub(crate) fn peer_waits_for_this_cpu(&self) -> bool {
        match self {
            Self::Shm { peer, .. } => peer.waits_for_this_cpu(),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }

    /// What the peer does, as far as its region tells.
    pub(crate) fn peer_posture(&self) -> PeerPosture {
        match self {
            Self::Shm { peer, .. } => match peer.posture() {
                ringway_ring::SleepPosture::Awake => PeerPosture::Runs,
                ringway_ring::SleepPosture::Rung => PeerPosture::ComingUp,
                ringway_ring::SleepPosture::Asleep => PeerPosture::Asleep,
            },
            Self::Stream(_) | Self::Queue(_) => PeerPosture::Unknown,
        }
    }

    /// Announces sleep; look again afterwards.
    pub(crate) fn arm(&self) {
        match self {
            Self::Shm { sleep, .. } => sleep.arm(),
            Self::Stream(watch) => watch.arm(),
            Self::Queue(watch) => watch.arm(),
        }
    }

    /// Whether sleep is announced; of some links that can't be said.
    pub(crate) fn is_armed(&self) -> bool {
        match self {
            Self::Shm { sleep, .. } => sleep.is_armed(),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }

    /// Announces that this side looks by itself.
    pub(crate) fn disarm(&self) {
        match self {
            // It is rung for if it does not come back.
            Self::Shm { sleep, .. } if sleep.is_away() => {}
            Self::Shm { sleep, .. } => sleep.disarm(),
            Self::Stream(watch) => watch.disarm(),
            Self::Queue(watch) => watch.disarm(),
        }
    }

    /// Announces that this side looks again by itself, when tasks have run; look again afterwards.
    pub(crate) fn step_out(&self) {
        match self {
            // Said once is enough: the peer looks at the word behind each message, and would miss it.
            Self::Shm { sleep, .. } if sleep.is_away() => {}
            Self::Shm { sleep, .. } => sleep.step_out(),
            // Their peers ring at once.
            Self::Stream(_) | Self::Queue(_) => self.arm(),
        }
    }

    /// The peer has rung. If that was because this side is away, it will ring for what comes later, too.
    pub(crate) fn note_rung(&self) {
        if let Self::Shm { sleep, .. } = self {
            sleep.renew_absence();
        }
    }

    /// Before sleep, after [`arm`](Self::arm): has the peer ring for room as well, if somebody waits for
    /// it or for memory; look again afterwards.
    pub(crate) fn arm_for_room(&self, memory_awaited: bool) {
        if let Self::Shm { room, .. } = self {
            room.arm_if_awaited(memory_awaited);
        }
    }

    /// Before sleep: rings for a peer that was to look by itself, and has not yet.
    /// True if it was rung.
    pub(crate) fn ring_before_sleep(&self) -> bool {
        let due = match self {
            Self::Shm { peer, .. } => peer.must_be_rung_before_sleep(),
            Self::Stream(_) | Self::Queue(_) => false,
        };
        if due {
            self.ring();
        }
        due
    }

    /// Rings the peer's doorbell: a system call, after which the kernel may well run the peer in
    /// place of this thread. So never call it with a lock held.
    pub(crate) fn ring(&self) {
        if let Self::Shm { peer_bell, .. } = self
            // Fails only on a descriptor that is no eventfd any more: impossible, it was checked.
            && let Err(error) = beside_the_poll(|| peer_bell.ring())
        {
            tracing::warn!(%error, "a doorbell can't be rung");
        }
    }

    /// Frees the thread that `held` says to be held up by this peer's doorbell; false if it is not this one's.
    pub(crate) fn frees(&self, held: shm::peer_bell::Held) -> bool {
        match self {
            Self::Shm { peer_bell, .. } => peer_bell.frees(held),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }

    /// Whether the peer has made its doorbell hold up the thread that rang it.
    pub(crate) fn bell_has_blocked(&self) -> bool {
        match self {
            Self::Shm { peer_bell, .. } => peer_bell.has_blocked(),
            Self::Stream(_) | Self::Queue(_) => false,
        }
    }

    /// What moves the bytes, where that can differ.
    pub(crate) fn engine(&self) -> Option<stream::Engine> {
        match self {
            Self::Stream(watch) => watch.engine(),
            Self::Shm { .. } | Self::Queue(_) => None,
        }
    }

    /// Tells the peer at once that nothing follows.
    pub(crate) fn hang_up(&self) {
        if let Self::Stream(watch) = self {
            watch.hang_up();
        }
    }
}
