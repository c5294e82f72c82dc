//! Where fuzzers come in: bytes of a peer's choosing against what reads a link. Public under `cfg(fuzzing)`, for
//! `tests/fuzz`; `cargo test` runs them over the seeds that are kept there.

#![allow(missing_docs, clippy::unwrap_used)]

use ringway_ring::{BufferPool, Endpoint, EndpointConfig};

use crate::link::Frame;
use crate::link::shm::SegmentNote;
use crate::link::stream::Parser;

/// Bytes of a stream, cut in two ways: its frames do not depend on that. The first byte says where to cut, and
/// which large payloads are wanted.
pub fn stream(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else {
        return;
    };
    let step = usize::from(*choice) + 1;
    let (whole, failed) = frames_of(stream, stream.len().max(1), *choice);
    let (pieces, failed_in_pieces) = frames_of(stream, step, *choice);
    assert_eq!(failed, failed_in_pieces);
    assert_eq!(described(&whole), described(&pieces));
}

/// The frames of a stream that comes in pieces of `step` bytes, and whether it ended in an error.
fn frames_of(stream: &[u8], step: usize, choice: u8) -> (Vec<Frame>, bool) {
    let (mut parser, mut frames) = (Parser::new(BufferPool::default()), Vec::new());
    for piece in stream.chunks(step) {
        parser.push(piece);
        loop {
            let begin = frames.len();
            let wanted = &mut |header: &ringway_wire::FrameHeader, _: &[u8]| {
                Ok(header.code % 2 == u16::from(choice % 2))
            };
            if parser.frames(&mut frames, begin, wanted).is_err() {
                return (frames, true);
            }
            if !parser.is_held_up() {
                break;
            }
        }
    }
    (frames, false)
}

/// What a frame says, but for a payload that is known to be unwanted only when it comes in pieces.
fn described(frames: &[Frame]) -> Vec<([u8; ringway_wire::FrameHeader::LEN], Vec<u8>)> {
    let one = |frame: &Frame| (frame.header.encode(), frame.head.to_vec());
    frames.iter().map(one).collect()
}

/// Notes of segments, each with a segment or without: the arena holds what they add, and no more.
pub fn notes(data: &[u8]) {
    const MAX_NOTES: usize = 64;
    let (mut here, mut there) = Endpoint::pair(&EndpointConfig::default()).unwrap();
    let mut held = std::collections::HashSet::new();
    for note in data.chunks(1 + 16).take(MAX_NOTES) {
        let Some((with, bytes)) = note.split_first() else {
            return;
        };
        let Some(bytes) = bytes.first_chunk() else {
            return;
        };
        let note = SegmentNote::decode(bytes);
        if with % 2 == 0 {
            assert_eq!(
                there.peer_arena.remove_segment(note.id),
                held.remove(&note.id)
            );
            continue;
        }
        let _block = here.arena.allocate(20_000);
        for segment in here.arena.new_segments() {
            // Nearly right: the length that it has.
            let len = if with % 4 == 1 { segment.len } else { note.len };
            if there
                .peer_arena
                .add_segment(note.id, len, segment.descriptor)
                .is_ok()
            {
                assert!(held.insert(note.id));
                assert_eq!(len, segment.len);
            }
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_streams() {
        replay("stream", super::stream);
    }

    #[test]
    fn the_seeds_of_notes() {
        replay("notes", super::notes);
    }
}
