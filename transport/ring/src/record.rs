//! Records: what a ring holds, and the parser that believes none of it.
//!
//! ```text
//! record   len u32, flags u32 [, block reference] , `len` bytes, zero to seven bytes to align
//! block    segment u32, offset u32, len u32, index u32, generation u32, reserved u32 (zero)
//! ```
//!
//! All words are little-endian. A record is contiguous; what is left before the ring's end when one
//! does not fit is a PAD record, whose `len` reaches exactly to the end.

use crate::{
    Corrupt,
    layout::{RECORD_ALIGN, ring_offset},
};

pub(crate) const HEADER_BYTES: usize = 8;
/// Bytes of a [`BlockRef`].
pub const BLOCK_REF_BYTES: usize = 24;

/// Padding up to the ring's end.
pub(crate) const PAD: u32 = 1;
/// A block reference stands between the header and the inline bytes.
pub(crate) const BLOCK: u32 = 2;

/// A segment of an arena; the owner counts them up and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u32);

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {}", self.0)
    }
}

/// A block of the sender's arena, as a record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Its first byte, from the segment's start.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Its place in the owner's table.
    pub index: u32,
    /// How often that place was used before.
    pub generation: u32,
}

impl BlockRef {
    /// The bytes that stand for it, for notes about a block that no record lends yet.
    pub fn encode(&self) -> [u8; BLOCK_REF_BYTES] {
        let words = [
            self.segment.0,
            self.offset,
            self.len,
            self.index,
            self.generation,
            0,
        ];
        let mut bytes = [0; BLOCK_REF_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reverse: the peer's claim, checked when the block is looked up.
    ///
    /// # Errors
    /// If the reserved word is not zero: that word.
    pub fn decode(bytes: &[u8; BLOCK_REF_BYTES]) -> Result<Self, u32> {
        let word = |at: usize| read_u32(bytes, at * 4);
        match word(5) {
            0 => Ok(Self {
                segment: SegmentId(word(0)),
                offset: word(1),
                len: word(2),
                index: word(3),
                generation: word(4),
            }),
            reserved => Err(reserved),
        }
    }

    /// Whether both are the same lending of a block, however much of it they name.
    pub(crate) fn is_same_lending(&self, other: &Self) -> bool {
        let whole = |block: &Self| Self { len: 0, ..*block };
        whole(self) == whole(other)
    }

    /// The id under which the block is given back.
    pub(crate) fn release_entry(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

/// Index and generation of a release entry.
pub(crate) fn split_release_entry(entry: u64) -> (u32, u32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is the index"
    )]
    let index = entry as u32;
    let generation = (entry >> 32) as u32;
    (index, generation)
}

/// Bytes that a record of `len` inline bytes takes in the ring.
pub(crate) fn record_bytes(len: usize, has_block: bool) -> usize {
    // No overflow: callers have bounded `len` by the ring's size.
    (inline_at(has_block) + len).next_multiple_of(RECORD_ALIGN)
}

/// Where the inline bytes start within a record.
pub(crate) fn inline_at(has_block: bool) -> usize {
    HEADER_BYTES + if has_block { BLOCK_REF_BYTES } else { 0 }
}

/// Writes a record's header, and the reference behind it, to the start of `record`.
pub(crate) fn write_header(record: &mut [u8], len: u32, block: Option<&BlockRef>) {
    let flags = if block.is_some() { BLOCK } else { 0 };
    write_words(record, len, flags);
    if let Some(block) = block {
        record[HEADER_BYTES..HEADER_BYTES + BLOCK_REF_BYTES].copy_from_slice(&block.encode());
    }
}

/// Turns `pad`, which reaches to the ring's end, into padding.
pub(crate) fn write_pad(pad: &mut [u8], pad_bytes: u32) {
    write_words(pad, pad_bytes, PAD);
}

fn write_words(record: &mut [u8], len: u32, flags: u32) {
    record[..4].copy_from_slice(&len.to_le_bytes());
    record[4..8].copy_from_slice(&flags.to_le_bytes());
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// One record, checked, in private memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The inline bytes.
    pub bytes: &'a [u8],
    /// The block that belongs to it: claimed by the peer, checked when it is looked up.
    pub block: Option<BlockRef>,
}

/// The records in a private copy of ring bytes; see [`records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    position: u64,
    ring_bytes: usize,
}

/// Parses a private copy of what a peer published at `position` of its ring of `ring_bytes` (a power
/// of two). After an error the iterator ends.
pub fn records(bytes: &[u8], position: u64, ring_bytes: usize) -> Records<'_> {
    Records {
        rest: bytes,
        position,
        ring_bytes,
    }
}

impl<'a> Records<'a> {
    /// One record, or `None` for padding, and how many bytes it took.
    fn parse(&self) -> Result<(Option<Record<'a>>, usize), Corrupt> {
        let position = self.position;
        // A record ends with what was published and with the ring, whichever comes first.
        let to_end = self.ring_bytes - ring_offset(position, self.ring_bytes);
        let room = self.rest.len().min(to_end);
        if room < HEADER_BYTES {
            let available = 0;
            return Err(Corrupt::RecordLength {
                position,
                len: 0,
                available,
            });
        }
        let (len, flags) = (read_u32(self.rest, 0), read_u32(self.rest, 4));
        match flags {
            PAD => self.parse_pad(len, to_end),
            0 | BLOCK => self.parse_payload(len, flags == BLOCK, room),
            _ => Err(Corrupt::RecordFlags { position, flags }),
        }
    }

    fn parse_pad(&self, len: u32, to_end: usize) -> Result<(Option<Record<'a>>, usize), Corrupt> {
        let total = u64::from(len) + HEADER_BYTES as u64;
        if total != to_end as u64 || self.rest.len() < to_end {
            return Err(Corrupt::PadMisplaced {
                position: self.position,
                len,
            });
        }
        Ok((None, to_end))
    }

    fn parse_payload(
        &self,
        len: u32,
        has_block: bool,
        room: usize,
    ) -> Result<(Option<Record<'a>>, usize), Corrupt> {
        let position = self.position;
        let start = inline_at(has_block);
        let available = room.saturating_sub(start);
        // `len` fits a usize: 32 bits on every platform that has memfds.
        let inline = len as usize;
        if room < start || inline > available {
            return Err(Corrupt::RecordLength {
                position,
                len,
                available,
            });
        }
        let total = record_bytes(inline, has_block);
        if total > room {
            return Err(Corrupt::RecordLength {
                position,
                len,
                available,
            });
        }
        let reference = self.rest[HEADER_BYTES..start].first_chunk();
        let block = reference
            .map(BlockRef::decode)
            .transpose()
            .map_err(|reserved| Corrupt::BlockReserved { position, reserved })?;
        let bytes = &self.rest[start..start + inline];
        Ok((Some(Record { bytes, block }), total))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        // At most two turns: after a PAD the position is the ring's start, where no PAD is possible
        // (it would have to span the whole ring, and so more than is left).
        while !self.rest.is_empty() {
            match self.parse() {
                Err(corrupt) => {
                    self.rest = &[];
                    return Some(Err(corrupt));
                }
                Ok((record, total)) => {
                    self.rest = &self.rest[total..];
                    self.position = self.position.wrapping_add(total as u64);
                    if let Some(record) = record {
                        return Some(Ok(record));
                    }
                }
            }
        }
        None
    }
}
