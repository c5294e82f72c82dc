//! Frames as records of a memory ring.
//!
//! | file | holds |
//! | --- | --- |
//! | `blocks.rs` | the blocks of this side's arena |
//! | `notes.rs` | the notes about its segments |
//! | `peer_bell.rs` | the peer's doorbell, and what becomes of one that blocks |
//! | `sender.rs` | the sending half |
//! | `receiver.rs` | the receiving half |

mod blocks;
mod notes;
pub(crate) mod peer_bell;
mod receiver;
mod sender;

use ringway_ring::SegmentId;
use ringway_wire::Kind;

pub(crate) use self::blocks::{Blocks, MAX_INLINE_BYTES, PeerCan, Turn, WithHead, part_bytes};
pub(crate) use self::receiver::{MAX_NOTES, OUT_OF_DESCRIPTORS, Receiver};
pub(crate) use self::sender::{Room, Sender};
use crate::error::Closed;

/// Says how much of a block is written, before the frame that lends it. Head: the block; `message_len`:
/// the bytes.
const FILLED: Kind = Kind::Link(0x80);
/// A payload longer than this is told of whenever a part of it is written, for the peer to copy it
/// meanwhile.
const MAX_UNTOLD_BYTES: usize = 32 * 1024;
/// What is said over the rendezvous socket about a segment: its id and its length, with the segment.
/// A length of zero, without a segment, retires it; of [`REFUSED_LEN`], it is the peer's, and was refused.
const SEGMENT_NOTE_BYTES: usize = 16;

/// Says that this side could not take a segment of its peer's.
pub(crate) const REFUSED_LEN: u64 = u64::MAX;

/// A segment that its reader could not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This side refuses one of the peer's.
    Here(SegmentId),
    /// The peer refuses one of this side's.
    There(SegmentId),
}

/// What is said of a segment: see [`SEGMENT_NOTE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentNote {
    pub(crate) id: SegmentId,
    /// In bytes; 0 retires it, the highest refuses it.
    pub(crate) len: usize,
}

impl SegmentNote {
    pub(crate) fn decode(note: &[u8; SEGMENT_NOTE_BYTES]) -> Self {
        let [a, b, c, d, _, _, _, _, len @ ..] = *note;
        Self {
            id: SegmentId(u32::from_le_bytes([a, b, c, d])),
            len: usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX),
        }
    }
}

fn misbehaved(corrupt: ringway_ring::Corrupt) -> Closed {
    Closed::PeerMisbehaved(corrupt.to_string())
}
