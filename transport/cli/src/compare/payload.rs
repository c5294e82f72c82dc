//! Payloads that differ from call to call, cost next to nothing to make, and can be checked.
//!
//! A payload of N bytes carries a word derived from its sequence number in each page of 4 KiB,
//! at a place that moves with the sequence number. A reply that is stale, torn, shifted or
//! somebody else's therefore fails the check in the first page it touches.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio_stream::Stream;

use super::stubs::Payload;

const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;

/// Up to here a fresh copy is cheaper than taking a buffer back.
const FRESH_BYTES_MAX: usize = 1024;

/// Buffers kept for reuse: a path may still hold the latest ones.
const KEPT_MAX: usize = 4;

/// What payloads hold beside their words: a page that does not compress to nothing.
const NOISE: [u8; PAGE_BYTES] = noise();

const fn noise() -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut at = 0;
    while at < PAGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page[at] = state.to_le_bytes()[0];
        at += 1;
    }
    page
}

/// Makes the payloads of one lane of the load.
#[derive(Debug)]
pub(crate) struct Maker {
    size_bytes: usize,
    small: Vec<u8>,
    kept: VecDeque<Bytes>,
}

impl Maker {
    /// A maker of payloads of `size_bytes`.
    pub(crate) fn new(size_bytes: usize) -> Self {
        Maker {
            size_bytes,
            small: NOISE[..size_bytes.min(FRESH_BYTES_MAX)].to_vec(),
            kept: VecDeque::new(),
        }
    }

    /// The payload of call number `sequence`.
    pub(crate) fn make<P: Payload>(&mut self, sequence: u64) -> P {
        let data = if self.size_bytes <= FRESH_BYTES_MAX {
            stamp(&mut self.small, sequence);
            Bytes::copy_from_slice(&self.small)
        } else {
            self.make_large(sequence)
        };
        P::new(sequence, data)
    }

    /// Takes back the oldest buffer unless the path still holds it: fresh memory for each large
    /// payload would cost more than the call.
    fn make_large(&mut self, sequence: u64) -> Bytes {
        let mut buffer = match self.kept.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(buffer)) => buffer,
            Some(Err(held)) => {
                if self.kept.len() + 1 < KEPT_MAX {
                    self.kept.push_back(held);
                }
                self.fresh()
            }
            None => self.fresh(),
        };
        stamp(&mut buffer, sequence);
        let data = buffer.freeze();
        self.kept.push_back(data.clone());
        data
    }

    fn fresh(&self) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(self.size_bytes);
        while buffer.len() < self.size_bytes {
            let left = self.size_bytes - buffer.len();
            buffer.extend_from_slice(&NOISE[..left.min(PAGE_BYTES)]);
        }
        buffer
    }
}

/// A stream of payloads that never waits: `count` of them, numbered from `first`.
#[derive(Debug)]
pub(crate) struct Source<P> {
    maker: Maker,
    next: u64,
    end: u64,
    makes: PhantomData<fn() -> P>,
}

impl<P> Source<P> {
    /// `count` payloads of `size_bytes`, the first numbered `first`.
    pub(crate) fn new(size_bytes: usize, first: u64, count: u64) -> Self {
        Source {
            maker: Maker::new(size_bytes),
            next: first,
            end: first.saturating_add(count),
            makes: PhantomData,
        }
    }
}

impl<P: Payload> Stream for Source<P> {
    type Item = P;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<P>> {
        if self.next == self.end {
            return Poll::Ready(None);
        }
        let sequence = self.next;
        self.next += 1;
        Poll::Ready(Some(self.maker.make(sequence)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

/// How a payload differs from the one that should have come.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    /// Another call's payload.
    #[error("sequence number {found} in place of {expected}")]
    Sequence { found: u64, expected: u64 },
    /// Cut short, or too long.
    #[error("{found} bytes in place of {expected}")]
    Length { found: usize, expected: usize },
    /// The right envelope around the wrong bytes.
    #[error("wrong bytes at offset {offset} of payload {sequence}")]
    Bytes { offset: usize, sequence: u64 },
}

/// Checks length, sequence number and 8 bytes of each page.
pub(crate) fn check(
    payload: &impl Payload,
    sequence: u64,
    size_bytes: usize,
) -> Result<(), Mismatch> {
    let data = payload.data();
    if payload.sequence() != sequence {
        return Err(Mismatch::Sequence {
            found: payload.sequence(),
            expected: sequence,
        });
    }
    if data.len() != size_bytes {
        return Err(Mismatch::Length {
            found: data.len(),
            expected: size_bytes,
        });
    }
    for (number, page) in data.chunks(PAGE_BYTES).enumerate() {
        let offset = word_offset(page.len(), sequence);
        let found = page.get(offset..offset + WORD_BYTES);
        if found.is_some_and(|found| found != word(sequence, number)) {
            let offset = number * PAGE_BYTES + offset;
            return Err(Mismatch::Bytes { offset, sequence });
        }
    }
    Ok(())
}

fn stamp(data: &mut [u8], sequence: u64) {
    for (number, page) in data.chunks_mut(PAGE_BYTES).enumerate() {
        let offset = word_offset(page.len(), sequence);
        if let Some(place) = page.get_mut(offset..offset + WORD_BYTES) {
            place.copy_from_slice(&word(sequence, number));
        }
    }
}

/// Where in a page of `len` bytes the word of payload `sequence` stands. A page too short for a
/// word gets an offset outside of it.
fn word_offset(len: usize, sequence: u64) -> usize {
    let words = len / WORD_BYTES;
    let place = sequence.checked_rem(words as u64).unwrap_or(0);
    usize::try_from(place).unwrap_or(0) * WORD_BYTES
}

fn word(sequence: u64, page: usize) -> [u8; WORD_BYTES] {
    let mixed = (sequence ^ ((page as u64) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::compare::stubs::ours;

    fn make(maker: &mut Maker, sequence: u64) -> ours::Payload {
        maker.make(sequence)
    }

    #[test]
    fn payloads_pass_their_own_check_and_no_other() {
        for size in [0, 1, 7, 8, 64, 4096, 4099, 65_536, 1_048_576] {
            let mut maker = Maker::new(size);
            for sequence in [0, 1, 2, 511, 512, u64::MAX] {
                let payload: ours::Payload = maker.make(sequence);
                check(&payload, sequence, size).unwrap();
                assert!(check(&payload, sequence ^ 1, size).is_err());
                assert!(check(&payload, sequence, size + 1).is_err());
            }
        }
    }

    #[test]
    fn a_stale_payload_under_a_new_number_is_caught() {
        let mut maker = Maker::new(65_536);
        let stale: ours::Payload = maker.make(3);
        let forged = ours::Payload {
            sequence: 4,
            data: stale.data,
        };
        assert!(matches!(
            check(&forged, 4, 65_536),
            Err(Mismatch::Bytes { sequence: 4, .. })
        ));
    }

    proptest! {
        #[test]
        fn a_wrong_byte_in_any_checked_word_is_caught(
            sequence: u64, page in 0_usize..16, byte in 0_usize..8, flip in 1_u8..,
        ) {
            let size = 16 * PAGE_BYTES;
            let payload: ours::Payload = Maker::new(size).make(sequence);
            let offset = page * PAGE_BYTES + word_offset(PAGE_BYTES, sequence);
            let mut data = payload.data.to_vec();
            data[offset + byte] ^= flip;
            let wrong = ours::Payload { sequence, data: data.into() };
            prop_assert_eq!(check(&wrong, sequence, size), Err(Mismatch::Bytes { offset, sequence }));
        }
    }

    #[test]
    fn large_buffers_are_reused_once_the_path_let_go() {
        let mut maker = Maker::new(65_536);
        let first = make(&mut maker, 0).data.as_ptr();
        assert_eq!(make(&mut maker, 1).data.as_ptr(), first);
        let held = make(&mut maker, 2);
        let second = make(&mut maker, 3);
        assert_ne!(second.data.as_ptr(), held.data.as_ptr());
        check(&held, 2, 65_536).unwrap();
    }

    #[test]
    fn what_the_path_holds_for_long_does_not_pile_up() {
        let mut maker = Maker::new(65_536);
        let held: Vec<_> = (0..20).map(|sequence| make(&mut maker, sequence)).collect();
        assert!(maker.kept.len() <= KEPT_MAX);
        for (sequence, payload) in (0..).zip(&held) {
            check(payload, sequence, 65_536).unwrap();
        }
    }

    #[tokio::test]
    async fn a_source_gives_its_count_and_ends() {
        let all: Vec<ours::Payload> = Source::new(64, 5, 3).collect().await;
        let numbers: Vec<_> = all.iter().map(|payload| payload.sequence).collect();
        assert_eq!(numbers, [5, 6, 7]);
    }
}
