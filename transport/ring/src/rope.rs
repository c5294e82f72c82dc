//! An encoded message that does not lie in one place: what was written in between, and large fields where they are.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::UninitSlice};

/// A field of this length or more is a part of its own: shared, where it is `Bytes`, in place of being copied.
const SHARED_BYTES: usize = 16 * 1024;
/// Room that is made at once for what is written in between.
const PART_BYTES: usize = 64 * 1024;

/// Takes what an encoder writes, and gives it out from the front, as far as it is asked for.
///
/// ```
/// # use bytes::{BufMut, Bytes};
/// # use ringway_ring::Rope;
/// let picture = Bytes::from(vec![7; 100_000]);
/// let mut rope = Rope::default();
/// rope.put_u8(1);
/// rope.put(picture.clone()); // not copied
/// let mut front = [0; 3];
/// rope.copy_front(&mut front);
/// assert_eq!(front, [1, 7, 7]);
/// rope.advance(3);
/// assert_eq!(rope.len(), 99_998);
/// ```
#[derive(Debug, Default)]
pub struct Rope {
    parts: VecDeque<Bytes>,
    /// What was written behind the last part.
    tail: BytesMut,
    /// Bytes of all parts.
    parts_bytes: usize,
}

impl Rope {
    /// Bytes that were written and not given out.
    pub fn len(&self) -> usize {
        self.parts_bytes + self.tail.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes without a copy.
    pub fn push(&mut self, bytes: Bytes) {
        self.end_part();
        self.parts_bytes += bytes.len();
        self.parts.push_back(bytes);
    }

    /// Fills `out` with what is at the front, which stays. As much as there is.
    pub fn copy_front(&self, mut out: &mut [u8]) {
        let tail = std::iter::once(&self.tail[..]);
        for part in self.parts.iter().map(|part| &part[..]).chain(tail) {
            let (now, rest) = out.split_at_mut(part.len().min(out.len()));
            now.copy_from_slice(&part[..now.len()]);
            out = rest;
        }
    }

    /// Lets go of so much at the front, and of its memory where all of a part is gone.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            let gone = count.min(part.len());
            count -= gone;
            self.parts_bytes -= gone;
            part.advance(gone);
            if !part.is_empty() {
                return;
            }
            self.parts.pop_front();
        }
        self.tail.advance(count.min(self.tail.len()));
    }

    fn end_part(&mut self) {
        if !self.tail.is_empty() {
            let part = self.tail.split().freeze();
            self.parts_bytes += part.len();
            self.parts.push_back(part);
        }
    }
}

// SAFETY: the spare room is that of `BytesMut`, which keeps the promises in this place.
unsafe impl BufMut for Rope {
    fn remaining_mut(&self) -> usize {
        usize::MAX - self.len()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has written to so much of `chunk_mut`, which is the spare room of `tail`.
        unsafe { self.tail.advance_mut(count) };
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.tail.len() == self.tail.capacity() {
            self.end_part();
            self.tail.reserve(PART_BYTES);
        }
        self.tail.spare_capacity_mut().into()
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        if source.remaining() >= SHARED_BYTES {
            let len = source.remaining();
            return self.push(source.copy_to_bytes(len));
        }
        while source.has_remaining() {
            let now = source.chunk();
            let len = now.len();
            self.put_slice(now);
            source.advance(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_out_however_it_is_cut() {
        let large = Bytes::from(
            (0..50_000_u32)
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<_>>(),
        );
        for step in [1_000, 65_536, 70_001, 1 << 20] {
            let (mut rope, mut expected) = (Rope::default(), Vec::new());
            for round in 0..3_u8 {
                rope.put_slice(&[round; 100]);
                rope.put(large.clone());
                rope.put(&large[..SHARED_BYTES - 1]);
                rope.put_bytes(round, 90_000);
                expected.extend([round; 100]);
                expected.extend(&large);
                expected.extend(&large[..SHARED_BYTES - 1]);
                expected.extend(vec![round; 90_000]);
            }
            assert_eq!(rope.len(), expected.len());
            let mut came = Vec::new();
            while !rope.is_empty() {
                let mut piece = vec![0; step.min(rope.len())];
                rope.copy_front(&mut piece);
                rope.advance(piece.len());
                came.extend(piece);
            }
            assert!(came == expected, "{step}");
        }
    }

    #[test]
    fn a_large_field_is_shared_and_let_go_of() {
        let large = Bytes::from(vec![1; SHARED_BYTES]);
        let mut rope = Rope::default();
        rope.put_u8(0);
        rope.put(large.clone());
        assert!(!large.is_unique());
        rope.advance(1 + SHARED_BYTES);
        assert!(large.is_unique() && rope.is_empty());
    }
}
