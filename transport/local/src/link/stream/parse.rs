//! Frames out of a stream of bytes, however it was cut.
//!
//! What has arrived lies in one buffer that is used again, and small frames are copied out of it.
//! A large payload is received straight into memory of its own, if the core wants it: that is asked when its
//! header and head are there. What a header claims is believed only as far as bytes arrive: memory grows
//! with them. An unwanted payload is read past, without memory.

use bytes::Bytes;
use ringway_ring::{BufferPool, PooledBuffer};
use ringway_wire::FrameHeader;

use crate::error::Closed;
use crate::link::{Frame, Head, Judge, Limits};

/// Room for what is received at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Payloads above this length are received into memory of their own.
const LARGE_BYTES: usize = 32 * 1024;
/// Memory that a header gets before its payload has arrived; from there it doubles.
const FIRST_CLAIM_BYTES: usize = 4 * 1024 * 1024;

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Parser {
    /// What has arrived, from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    /// A frame whose payload is on its way.
    large: Option<Large>,
    /// Bytes to come of a payload that nobody wants.
    unwanted: usize,
    /// A large frame waits until those before it are handled, on which it depends what it means.
    held_up: bool,
    pool: BufferPool,
    pub(super) limits: Limits,
}

/// A frame of which the payload is on its way.
#[derive(Debug)]
struct Begun {
    header: FrameHeader,
    head: Head,
}

#[derive(Debug)]
struct Large {
    header: FrameHeader,
    head: Head,
    payload: PooledBuffer,
    len: usize,
}

impl Parser {
    pub(crate) fn new(pool: BufferPool) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            large: None,
            unwanted: 0,
            held_up: false,
            pool,
            limits: Limits::USUAL,
        }
    }

    /// Returns true if what follows waits for the frames that were moved out to be handled.
    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Where to append what arrives next: its spare capacity is as much as is wanted at once.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        match &mut self.large {
            Some(large) => {
                large.make_room();
                &mut large.payload
            }
            None => {
                make_space(&mut self.buffer, &mut self.taken);
                &mut self.buffer
            }
        }
    }

    /// Takes bytes that lie elsewhere.
    #[cfg_attr(not(all(feature = "io-uring", target_os = "linux")), allow(dead_code))]
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        if let Some(large) = &mut self.large {
            let missing = large.len.saturating_sub(large.payload.len());
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            large.payload.extend_from_slice(now);
            bytes = rest;
        }
        if self.unwanted > 0 && self.taken == self.buffer.len() {
            let passed = self.unwanted.min(bytes.len());
            self.unwanted -= passed;
            bytes = &bytes[passed..];
        }
        // A connection that never rests takes bytes and hands on frames without end.
        if self.taken == self.buffer.len() || self.taken >= BUFFER_BYTES {
            self.buffer.drain(..std::mem::take(&mut self.taken));
        }
        // What belongs to a frame after the large one waits here for its turn.
        self.buffer.extend_from_slice(bytes);
    }

    /// Moves complete frames into `frames`, of which those before `begin` were handled already. The frame of an
    /// unwanted payload goes without it, as soon as its head is there.
    ///
    /// # Errors
    /// A header that breaks the protocol.
    pub(crate) fn frames(
        &mut self,
        frames: &mut Vec<Frame>,
        begin: usize,
        judge: &mut Judge<'_>,
    ) -> Result<(), Closed> {
        self.held_up = false;
        loop {
            self.pass_over_unwanted();
            if self.unwanted > 0 {
                return Ok(());
            }
            if let Some(large) = &mut self.large {
                // More than the payload may have been received: it follows in the buffer.
                if large.payload.len() > large.len {
                    self.buffer.extend_from_slice(&large.payload[large.len..]);
                    large.payload.truncate(large.len);
                }
                if large.payload.len() < large.len {
                    return Ok(());
                }
            }
            if let Some(large) = self.large.take() {
                frames.push(large.into_frame());
            }
            if let Some(frame) = self.next_small()? {
                frames.push(frame);
                if frames.len() - begin < self.limits.frames {
                    continue;
                }
                self.held_up = true;
                return Ok(());
            }
            let Some(begun) = self.next_large()? else {
                return Ok(());
            };
            if frames.len() > begin {
                self.held_up = true;
                return Ok(());
            }
            let wanted = judge(&begun.header, &begun.head)?;
            if let Some(frame) = self.begin_large(begun, wanted) {
                frames.push(frame);
            }
        }
    }

    fn pass_over_unwanted(&mut self) {
        let passed = self.unwanted.min(self.buffer.len() - self.taken);
        self.unwanted -= passed;
        self.taken += passed;
    }

    /// Gives back memory that the last frames do not justify.
    pub(crate) fn trim(&mut self) {
        if self.taken == self.buffer.len() && self.buffer.capacity() > 2 * BUFFER_BYTES {
            self.buffer = Vec::new();
            self.taken = 0;
        }
    }

    /// The next frame that lies in the buffer whole.
    fn next_small(&mut self) -> Result<Option<Frame>, Closed> {
        let waiting = &self.buffer[self.taken..];
        let Some((header, body)) = waiting.split_first_chunk::<{ FrameHeader::LEN }>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        let (head_len, len) = (header.head_len as usize, header.payload_len as usize);
        let Some((head, rest)) = body.split_at_checked(head_len) else {
            return Ok(None);
        };
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = Frame {
            header,
            head: Head::copy(head),
            payload: self.copy(payload),
            is_lost: false,
        };
        self.taken += FrameHeader::LEN + head_len + len;
        Ok(Some(frame))
    }

    /// The header and the head of a frame whose payload is too long to lie in the buffer whole.
    fn next_large(&self) -> Result<Option<Begun>, Closed> {
        let waiting = &self.buffer[self.taken..];
        let Some((header, body)) = waiting.split_first_chunk::<{ FrameHeader::LEN }>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header)
            .map_err(|error| Closed::PeerMisbehaved(error.to_string()))?;
        let Some(head) = body.get(..header.head_len as usize) else {
            return Ok(None);
        };
        let begun = (header.payload_len as usize > LARGE_BYTES).then(|| Begun {
            header,
            head: Head::copy(head),
        });
        Ok(begun)
    }

    /// Takes memory for a payload that is on its way, or reads past it: then its frame is complete.
    fn begin_large(&mut self, begun: Begun, wanted: bool) -> Option<Frame> {
        let Begun { header, head } = begun;
        let len = header.payload_len as usize;
        self.taken += FrameHeader::LEN + header.head_len as usize;
        if !wanted {
            self.unwanted = len;
            return Some(Frame {
                header,
                head,
                payload: Bytes::new(),
                is_lost: false,
            });
        }
        let mut payload = self.pool.buffer(len.min(FIRST_CLAIM_BYTES));
        payload.extend_from_slice(&self.buffer[self.taken..]);
        self.buffer.clear();
        self.taken = 0;
        self.large = Some(Large {
            header,
            head,
            payload,
            len,
        });
        None
    }

    fn copy(&self, payload: &[u8]) -> Bytes {
        let mut buffer = self.pool.buffer(payload.len());
        buffer.extend_from_slice(payload);
        buffer.freeze()
    }
}

/// Moves what was not taken to the front, and sees that a receive finds room.
fn make_space(buffer: &mut Vec<u8>, taken: &mut usize) {
    buffer.drain(..std::mem::take(taken));
    if buffer.capacity() - buffer.len() < BUFFER_BYTES / 2 {
        buffer.reserve(BUFFER_BYTES);
    }
}

impl Large {
    fn make_room(&mut self) {
        let (filled, room) = (self.payload.len(), self.payload.capacity());
        if filled == room && filled < self.len {
            self.payload.reserve_exact(filled.min(self.len - filled));
        }
    }

    fn into_frame(self) -> Frame {
        Frame {
            header: self.header,
            head: self.head,
            payload: self.payload.freeze(),
            is_lost: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringway_wire::{Flags, Kind};

    use super::*;

    /// Wants every payload.
    fn all(_header: &FrameHeader, _head: &[u8]) -> Result<bool, Closed> {
        Ok(true)
    }

    /// Moves out what is complete, as a pass does.
    fn take(parser: &mut Parser, frames: &mut Vec<Frame>) {
        loop {
            parser.frames(frames, frames.len(), &mut all).unwrap();
            if !parser.is_held_up() {
                return;
            }
        }
    }

    fn parser() -> Parser {
        Parser::new(BufferPool::default())
    }

    fn message(number: u64, len: usize) -> Vec<u8> {
        let len = u32::try_from(len).unwrap();
        let header = FrameHeader {
            flags: Flags::HAS_MESSAGE,
            call: 1 << 32 | number,
            payload_len: len,
            message_len: len,
            ..FrameHeader::new(Kind::Message)
        };
        let mut bytes = header.encode().to_vec();
        bytes
            .extend((0..len).map(|index| u8::try_from((u64::from(index) + number) % 251).unwrap()));
        bytes
    }

    /// What `frames` would be as bytes again.
    fn encoded(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(&frame.header.encode());
            bytes.extend_from_slice(&frame.head);
            bytes.extend_from_slice(&frame.payload);
        }
        bytes
    }

    fn stream_of(lens: &[usize]) -> Vec<u8> {
        let numbered = lens.iter().zip(0..);
        numbered.flat_map(|(len, n)| message(n, *len)).collect()
    }

    fn lens() -> impl Strategy<Value = Vec<usize>> {
        let len =
            prop_oneof![4 => 0_usize..300, 1 => 30_000_usize..70_000, 1 => 190_000_usize..200_000];
        proptest::collection::vec(len, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_do_not_depend_on_where_the_stream_is_cut(
            lens in lens(),
            cuts in proptest::collection::vec(1_usize..90_000, 1..40),
            appended in any::<bool>(),
        ) {
            let stream = stream_of(&lens);
            let (mut parser, mut frames) = (parser(), Vec::new());
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let cut = cuts.next().unwrap_or(1).min(rest.len());
                let cut = if appended {
                    let space = parser.space();
                    let cut = cut.min(space.capacity() - space.len());
                    space.extend_from_slice(&rest[..cut]);
                    cut
                } else {
                    parser.push(&rest[..cut]);
                    cut
                };
                rest = &rest[cut..];
                take(&mut parser, &mut frames);
            }
            prop_assert_eq!(frames.len(), lens.len());
            prop_assert!(encoded(&frames) == stream);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut parser = parser();
            parser.push(&bytes);
            let _ = parser.frames(&mut Vec::new(), 0, &mut all);
        }

        #[test]
        fn unwanted_payloads_are_read_past_wherever_the_stream_is_cut(
            lens in lens(),
            cuts in proptest::collection::vec(1_usize..90_000, 1..40),
        ) {
            let stream = stream_of(&lens);
            let (mut parser, mut frames) = (parser(), Vec::new());
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let cut = cuts.next().unwrap_or(1).min(rest.len());
                parser.push(&rest[..cut]);
                rest = &rest[cut..];
                loop {
                    let begin = frames.len();
                    parser.frames(&mut frames, begin, &mut |_, _| Ok(false)).unwrap();
                    if !parser.is_held_up() {
                        break;
                    }
                }
            }
            let came: Vec<u64> = frames.iter().map(|frame| frame.header.call & 0xffff_ffff).collect();
            prop_assert_eq!(came, (0..lens.len() as u64).collect::<Vec<_>>());
            for frame in &frames {
                let (came, whole) = (frame.payload.len(), frame.header.payload_len as usize);
                prop_assert!(came == whole || came == 0 && whole > LARGE_BYTES);
            }
        }
    }

    #[test]
    fn byte_by_byte_works_as_well() {
        let stream = stream_of(&[0, 5, 40_000, 7]);
        let (mut parser, mut frames) = (parser(), Vec::new());
        for byte in &stream {
            parser.push(std::slice::from_ref(byte));
            take(&mut parser, &mut frames);
        }
        assert!(encoded(&frames) == stream);
    }

    #[test]
    fn a_claim_gets_little_memory_before_bytes_arrive() {
        let header = FrameHeader {
            flags: Flags::HAS_MESSAGE,
            call: 1 << 32,
            payload_len: 2_000_000_000,
            message_len: 2_000_000_000,
            ..FrameHeader::new(Kind::Message)
        };
        let mut parser = parser();
        parser.push(&header.encode());
        parser.frames(&mut Vec::new(), 0, &mut all).unwrap();
        assert!(parser.space().capacity() <= FIRST_CLAIM_BYTES);
    }

    /// A connection that never rests has no one trim its buffer.
    #[test]
    fn what_was_taken_makes_room_for_what_comes() {
        let (mut parser, mut frames) = (parser(), Vec::new());
        let mut most = 0;
        let mut push = |parser: &mut Parser, bytes: &[u8], wanted| {
            parser.push(bytes);
            parser
                .frames(&mut frames, 0, &mut |_, _| Ok(wanted))
                .unwrap();
            frames.clear();
            most = parser.buffer.capacity().max(most);
        };
        // Each push leaves a part of a frame.
        let stream = stream_of(&[1000; 64]).repeat(32);
        for part in stream.chunks(1500) {
            push(&mut parser, part, true);
        }
        let unwanted = message(1, 4_000_000);
        for part in unwanted.chunks(30_000) {
            push(&mut parser, part, false);
        }
        push(&mut parser, &message(2, 5), true);
        assert_eq!(parser.taken, parser.buffer.len());
        assert!(most <= 4 * BUFFER_BYTES, "{most} bytes");
    }

    #[test]
    fn a_large_frame_waits_for_what_came_before_it() {
        let mut parser = parser();
        parser.push(&stream_of(&[5, 200_000])[..1000]);
        let (mut frames, mut asked) = (Vec::new(), 0);
        let mut judge = |_: &FrameHeader, _: &[u8]| {
            asked += 1;
            Ok(true)
        };
        parser.frames(&mut frames, 0, &mut judge).unwrap();
        assert!(parser.is_held_up() && frames.len() == 1);
        parser.frames(&mut frames, 1, &mut judge).unwrap();
        assert!(!parser.is_held_up());
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_bad_header_is_the_peers_fault() {
        let mut parser = parser();
        parser.push(&[0; FrameHeader::LEN]);
        assert!(matches!(
            parser.frames(&mut Vec::new(), 0, &mut all),
            Err(Closed::PeerMisbehaved(_))
        ));
    }
}
