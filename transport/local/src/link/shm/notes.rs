//! Notes about this side's segments, on their way to the peer. One that cannot be sent now is kept: the peer would
//! take a record that refers to a segment which it was never given for a broken promise.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use ringway_ring::failpoint::{self, Step};
use ringway_ring::{Arena, NewSegment, SegmentId};
use ringway_sys::{Blocking, send_with_descriptors};
use rustix::io::Errno;

use super::{REFUSED_LEN, SEGMENT_NOTE_BYTES};
use crate::error::Closed;

/// Notes that may wait when a segment is refused: more than an honest peer's segments come to.
const MAX_WAITING_NOTES: usize = 4096;

/// The notes that the peer does not have yet, in order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: VecDeque<Note>,
}

#[derive(Debug)]
enum Note {
    New(NewSegment),
    Retired(SegmentId),
    /// One of the peer's, which has numbers of its own.
    Refused(SegmentId),
}

impl Note {
    fn is_of(&self, own: SegmentId) -> bool {
        match self {
            Self::New(segment) => segment.id == own,
            Self::Retired(id) => *id == own,
            Self::Refused(_) => false,
        }
    }

    /// The segment, and what is said of its length.
    fn words(&self) -> (SegmentId, u64) {
        match self {
            Self::New(segment) => (segment.id, segment.len as u64),
            Self::Retired(id) => (*id, 0),
            Self::Refused(id) => (*id, REFUSED_LEN),
        }
    }
}

/// Why notes still wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The socket's buffer is full: the peer has not looked at it for long.
    Full,
    /// The kernel passes on no descriptor now, or has no memory for it.
    Refused(String),
    /// They never can be sent.
    Closed(Closed),
}

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if the peer does not have a segment yet.
    pub(super) fn concern(&self, segment: SegmentId) -> bool {
        self.waiting.iter().any(|note| note.is_of(segment))
    }

    /// Takes over what there is to say of the arena's segments.
    pub(super) fn collect(&mut self, arena: &mut Arena) {
        for id in arena.retired_segments() {
            self.retire(id);
        }
        self.waiting
            .extend(arena.new_segments().into_iter().map(Note::New));
    }

    /// Has the peer drop a segment too, to which no record refers any more.
    pub(super) fn retire(&mut self, id: SegmentId) {
        let before = self.waiting.len();
        self.waiting.retain(|note| !note.is_of(id));
        // The peer need not hear of one that it never heard of.
        if self.waiting.len() == before {
            self.waiting.push_back(Note::Retired(id));
        }
    }

    /// Tells the peer that one of its segments could not be taken.
    ///
    /// # Errors
    /// A peer that goes on offering segments and reads of none that was refused.
    pub(super) fn refuse(&mut self, id: SegmentId) -> Result<(), Closed> {
        if self.waiting.len() >= MAX_WAITING_NOTES {
            return Err(Closed::PeerMisbehaved(format!(
                "it offers segments without reading that {MAX_WAITING_NOTES} were refused"
            )));
        }
        self.waiting.push_back(Note::Refused(id));
        Ok(())
    }

    /// Sends as many as the socket takes.
    pub(super) fn send(&mut self, socket: &OwnedFd) -> Result<(), Unsent> {
        while let Some(note) = self.waiting.front() {
            send_note(socket, note)?;
            self.waiting.pop_front();
        }
        Ok(())
    }
}

fn send_note(socket: &OwnedFd, note: &Note) -> Result<(), Unsent> {
    let mut bytes = [0; SEGMENT_NOTE_BYTES];
    let (id, len) = note.words();
    bytes[..4].copy_from_slice(&id.0.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    let sent = match note {
        Note::New(segment) => {
            failpoint::reached(Step::Growing);
            let descriptor = segment.descriptor.as_fd();
            send_with_descriptors(socket.as_fd(), &bytes, &[descriptor], Blocking::Never)
        }
        Note::Retired(_) | Note::Refused(_) => {
            send_with_descriptors(socket.as_fd(), &bytes, &[], Blocking::Never)
        }
    };
    match sent {
        Ok(SEGMENT_NOTE_BYTES) => Ok(()),
        Ok(_) => Err(Unsent::Closed(Closed::Io(
            "the kernel cut a note about a segment".into(),
        ))),
        Err(error) => Err(why_unsent(error)),
    }
}

fn why_unsent(error: ringway_sys::Error) -> Unsent {
    let passes = match &error {
        ringway_sys::Error::OutOfDescriptors | ringway_sys::Error::TooManyInFlight => true,
        ringway_sys::Error::Io(io) if io.kind() == ErrorKind::WouldBlock => return Unsent::Full,
        ringway_sys::Error::Io(io) => [Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
            .iter()
            .any(|errno| io.raw_os_error() == Some(errno.raw_os_error())),
        _ => false,
    };
    match passes {
        true => Unsent::Refused(error.to_string()),
        false => Unsent::Closed(Closed::Io(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ringway_sys::Error;

    use super::*;

    #[test]
    fn what_passes_keeps_the_connection() {
        for error in [Error::OutOfDescriptors, Error::TooManyInFlight] {
            assert!(matches!(why_unsent(error), Unsent::Refused(_)));
        }
        let io = |errno: Errno| why_unsent(Error::Io(errno.into()));
        assert!(matches!(io(Errno::NOBUFS), Unsent::Refused(_)));
        assert_eq!(io(Errno::AGAIN), Unsent::Full);
        assert!(matches!(io(Errno::PIPE), Unsent::Closed(_)));
    }

    /// Each refusal waits here once the socket is full.
    #[test]
    fn a_peer_that_reads_of_no_refusal_is_cut_off() {
        let mut notes = Notes::default();
        for id in (0..).take(MAX_WAITING_NOTES) {
            notes.refuse(SegmentId(id)).unwrap();
        }
        let error = notes.refuse(SegmentId(u32::MAX)).unwrap_err();
        assert!(matches!(error, Closed::PeerMisbehaved(_)), "{error:?}");
    }
}
