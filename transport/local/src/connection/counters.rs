//! What a connection has done so far, counted where it costs nothing: under a lock that is held anyway,
//! or in a word that one thread at a time writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::link::LinkKind;
use crate::link::stream::Engine;
use ringway_sys::PeerCredentials;

/// Which end of a connection this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionRole {
    /// It makes the calls.
    Client,
    /// It answers them.
    Server,
}

/// A number that threads add to without a lock. Two that add at once may lose one of the two: what is
/// counted so is told by its trend.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// A load and a store: an atomic addition costs several times as much.
    pub(crate) fn add_one(&self) {
        let count = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted without a lock.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    pub(crate) sleeps: Tally,
    pub(crate) looks_paid: Tally,
    pub(crate) looks_unpaid: Tally,
    /// Threads that wanted to drive found another one doing so.
    pub(crate) contended: Tally,
    /// Rung for without the state's lock: before sleep.
    pub(crate) rings: Tally,
}

impl Tallies {
    /// What a look at the ring came to.
    pub(crate) fn note_look(&self, paid: bool) {
        match paid {
            true => self.looks_paid.add_one(),
            false => self.looks_unpaid.add_one(),
        }
    }
}

/// What is counted under the state's lock.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) doorbells: u64,
    pub(crate) waits_for_room: u64,
    pub(crate) waits_for_credit: u64,
    pub(crate) waits_for_memory: u64,
}

impl Counts {
    pub(crate) fn note_sent(&mut self, messages: u32, bytes: usize) {
        self.messages_sent += u64::from(messages);
        self.bytes_sent += bytes as u64;
    }

    pub(crate) fn note_received(&mut self, messages: u32) {
        self.messages_received += u64::from(messages);
    }
}

/// How full something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes there are; 0 where there is no such thing.
    pub capacity_bytes: u64,
}

impl Fill {
    pub(crate) fn of(used: usize, capacity: usize) -> Self {
        Self {
            used_bytes: used as u64,
            capacity_bytes: capacity as u64,
        }
    }
}

/// One end of a connection at a moment. Counts are of its whole life; messages and bytes are those of
/// messages alone, without heads and headers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Tells it from the other connections of this process, and from former ones.
    pub id: u64,
    /// Which link it runs over.
    pub kind: LinkKind,
    /// What moves a socket's bytes.
    pub engine: Option<Engine>,
    /// Which end this is.
    pub role: ConnectionRole,
    /// The server's name; empty where there is none.
    pub name: String,
    /// Who is at the other end; `None` inside one process.
    pub peer: Option<PeerCredentials>,
    /// When it began.
    pub since: Instant,
    /// Which of its runtime's drivers drives it, from 0.
    pub driver: usize,
    /// Calls so far.
    pub calls: u64,
    /// Calls that are not over.
    pub calls_in_flight: usize,
    /// Messages sent.
    pub messages_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// How often the peer's doorbell was rung for what was sent: a system call each. Shared memory only.
    pub doorbells: u64,
    /// How often this side went to sleep and asked to be rung for; two threads at once may count as one.
    pub sleeps: u64,
    /// Looks at the ring by which something was found before sleep; counted as `sleeps` are.
    pub looks_paid: u64,
    /// Looks that ended with sleep all the same.
    pub looks_unpaid: u64,
    /// How often a message waited for room in the ring, or in a socket's buffer.
    pub waits_for_room: u64,
    /// For credit: the peer's handler does not keep up.
    pub waits_for_credit: u64,
    /// For a block of the arena.
    pub waits_for_memory: u64,
    /// What the peer has not taken yet, of this side's ring.
    pub ring: Fill,
    /// Blocks of this side's arena that are in use, and all of its segments.
    pub arena: Fill,
}

impl ConnectionStats {
    /// Whether the other one is of the same end of the same link, to the same server.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (self.kind, self.role, &self.name) == (other.kind, other.role, &other.name)
    }

    /// Adds what the other one has done.
    pub(crate) fn add_counts(&mut self, other: &Self) {
        self.calls += other.calls;
        self.messages_sent += other.messages_sent;
        self.bytes_sent += other.bytes_sent;
        self.messages_received += other.messages_received;
        self.bytes_received += other.bytes_received;
        self.doorbells += other.doorbells;
        self.sleeps += other.sleeps;
        self.looks_paid += other.looks_paid;
        self.looks_unpaid += other.looks_unpaid;
        self.waits_for_room += other.waits_for_room;
        self.waits_for_credit += other.waits_for_credit;
        self.waits_for_memory += other.waits_for_memory;
    }

    /// What it has done, without what there is at the moment.
    pub(crate) fn counts_alone(self) -> Self {
        Self {
            driver: 0,
            calls_in_flight: 0,
            ring: Fill::default(),
            arena: Fill::default(),
            ..self
        }
    }
}

/// The messages in a packed frame; of a hostile one, as many as can be told.
pub(crate) fn packed_messages(mut frame: &[u8]) -> u32 {
    let mut messages = 0;
    while let Some((len, rest)) = frame.split_first_chunk::<4>() {
        let Some(rest) = rest.get(u32::from_le_bytes(*len) as usize..) else {
            break;
        };
        messages += 1;
        frame = rest;
    }
    messages
}

impl Tallies {
    /// Fills in what is counted here.
    pub(crate) fn fill_in(&self, stats: &mut ConnectionStats) {
        stats.doorbells += self.rings.get();
        stats.sleeps = self.sleeps.get();
        stats.looks_paid = self.looks_paid.get();
        stats.looks_unpaid = self.looks_unpaid.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_messages_are_counted_as_far_as_they_go() {
        assert_eq!(packed_messages(&[]), 0);
        let two = [1, 0, 0, 0, 9, 0, 0, 0, 0];
        assert_eq!(packed_messages(&two), 2);
        assert_eq!(packed_messages(&two[..7]), 1);
        assert_eq!(packed_messages(&[255; 12]), 0);
    }
}
