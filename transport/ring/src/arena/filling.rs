//! Encoding into a slice while somebody else already reads its beginning.

use std::fmt;

use bytes::{Buf, BufMut, buf::UninitSlice};

use crate::copy::{Way, copy_in};

/// Fills a slice from its start, and tells now and then how far it is.
///
/// What was told is never written again, so the peer may copy it out meanwhile. Two cores then copy a
/// large message at the same time, in place of one after the other.
///
/// ```
/// # use bytes::BufMut;
/// # use ringway_ring::Filling;
/// let (mut block, mut told) = ([0; 100], Vec::new());
/// let mut tell = |filled| told.push(filled);
/// let mut filling = Filling::new(&mut block, 40, &mut tell);
/// filling.put_bytes(7, 50);
/// filling.put_bytes(8, 50);
/// assert_eq!(told, [40, 80], "the end is for the caller to tell");
/// ```
pub struct Filling<'a> {
    bytes: &'a mut [u8],
    filled: usize,
    way: Way,
    /// The length that is told next: beyond `filled`.
    next: usize,
    step: usize,
    tell: &'a mut dyn FnMut(usize),
}

impl<'a> Filling<'a> {
    /// Tells the length after every `step` bytes (one at least), but not of the end.
    pub fn new(bytes: &'a mut [u8], step: usize, tell: &'a mut dyn FnMut(usize)) -> Self {
        let step = step.max(1);
        Self {
            way: Way::of_block(bytes.len()),
            bytes,
            filled: 0,
            next: step,
            step,
            tell,
        }
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.filled);
        self.filled += count;
        if self.filled >= self.next && self.filled < self.bytes.len() {
            self.next = self.filled.saturating_add(self.step);
            (self.tell)(self.filled);
        }
    }
}

// SAFETY: `chunk_mut` is the slice behind what is filled, exclusively borrowed and initialised, and
// `advance_mut` never leaves it (asserted).
unsafe impl BufMut for Filling<'_> {
    fn remaining_mut(&self) -> usize {
        self.bytes.len() - self.filled
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        self.advance(count);
    }

    /// Ends where something is to be told.
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let end = self.next.min(self.bytes.len());
        UninitSlice::new(&mut self.bytes[self.filled..end])
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        while source.has_remaining() {
            let now = source.chunk();
            let len = now.len();
            self.put_slice(now);
            source.advance(len);
        }
    }

    fn put_slice(&mut self, source: &[u8]) {
        let mut rest = source;
        while !rest.is_empty() {
            let end = self.next.min(self.bytes.len());
            let room = &mut self.bytes[self.filled..end];
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            assert!(!now.is_empty(), "more is encoded than was announced");
            let room = &mut room[..now.len()];
            // SAFETY: both are slices of this length, and `room` is exclusive.
            unsafe { copy_in(self.way, now.as_ptr(), room.as_mut_ptr(), room.len()) };
            self.advance(now.len());
            rest = later;
        }
    }
}

impl fmt::Debug for Filling<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Filling")
            .field("len", &self.bytes.len())
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}
