//! Peers that press: what one uid may take of a round of a driver, over however many connections.
//!
//! A pass is bounded for each connection, and a peer may hold many: each of them could keep a driver for as long as a
//! pass may last, one after the other, before the call of another peer has its turn. So a round drives connections
//! that have lately used up a pass behind all others, and those of one uid only until they have taken
//! [`ALLOWANCE`] together. The rest have their turn first in the next round. From then on the round also drives those of
//! that uid *briefly* that did not press until now: what a few calls need, and one that floods shows itself. Many that
//! stay just below that are too much as well: the clock is read at each eighth of them, and those of a uid that has
//! taken two allowances wait for the next round.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::connection::LONGEST_PASS;

/// What the pressing connections of one uid may take of a round before the rest of them wait for the next: as much as
/// one of them may in any case.
pub(crate) const ALLOWANCE: Duration = LONGEST_PASS;
/// Bytes of one pass after which a connection presses though it has left nothing: to copy them takes some tenth of a
/// millisecond.
const HEAVY_BYTES: usize = 256 * 1024;
/// The same of frames.
const HEAVY_FRAMES: usize = 32;
/// Frames of a pass that is brief, and handlers that it polls.
pub(crate) const BRIEF_FRAMES: usize = 16;
/// Notes of segments that it takes.
pub(crate) const BRIEF_NOTES: usize = 2;
/// Bytes after which it copies no more, and of the longest block.
pub(crate) const BRIEF_BYTES: usize = 64 * 1024;
/// Passes that use up nothing until a connection presses no more: one that presses at each second pass does so all
/// the while.
const LIGHT_PASSES: u8 = 8;

/// Says if a connection has lately used up a pass. A race of two threads that write it costs a pass.
#[derive(Debug, Default)]
pub(crate) struct Pressing {
    /// Light passes until it does not press any more.
    left: AtomicU8,
    /// The pass under way is to be brief.
    brief: AtomicBool,
}

impl Pressing {
    /// Returns true if the connection has its turn behind those that do not press.
    #[inline]
    pub(crate) fn presses(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Has the passes be brief that `drive` makes.
    pub(crate) fn briefly<T>(&self, drive: impl FnOnce() -> T) -> T {
        self.brief.store(true, Ordering::Relaxed);
        let driven = drive();
        self.brief.store(false, Ordering::Relaxed);
        driven
    }

    #[inline]
    pub(crate) fn is_brief(&self) -> bool {
        self.brief.load(Ordering::Relaxed)
    }

    /// Notes a pass that has used up what a pass may take.
    pub(crate) fn note_used_up(&self) {
        self.left.store(LIGHT_PASSES, Ordering::Relaxed);
    }

    /// Notes a pass that has left nothing, and what it has taken.
    #[inline]
    pub(crate) fn note_pass(&self, frames: usize, bytes: usize) {
        if frames >= HEAVY_FRAMES || bytes >= HEAVY_BYTES {
            return self.note_used_up();
        }
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
        }
    }
}

/// Light connections from one reading of the clock to the next.
const READ_EVERY: u32 = 8;

/// Counts the time that each uid's connections have taken of the round under way, if they press or are many.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    taken: Vec<(u32, Duration)>,
    /// The light connections since the clock was read, by uid.
    light: [Option<u32>; READ_EVERY as usize],
    lights: usize,
    /// The last reading of the clock in this round.
    read_at: Option<Instant>,
}

impl Shares {
    /// Begins the next round.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.taken.clear();
        self.lights = 0;
        self.read_at = None;
    }

    /// Notes that the round has driven a light connection of `uid`. What several have taken is split evenly.
    #[inline]
    pub(crate) fn note_light(&mut self, uid: Option<u32>, now: impl FnOnce() -> Instant) {
        self.light[self.lights] = uid;
        self.lights += 1;
        if self.lights < self.light.len() {
            return;
        }
        self.lights = 0;
        let now = now();
        if let Some(read_at) = self.read_at.replace(now) {
            let each = (now - read_at) / READ_EVERY;
            for uid in self.light {
                self.charge(uid, each);
            }
        }
    }

    /// Returns true if all connections of `uid` that have not had their turn are to wait for the next round.
    #[inline]
    pub(crate) fn is_overspent(&self, uid: Option<u32>) -> bool {
        !self.taken.is_empty() && uid.is_some_and(|uid| self.taken(uid) >= 2 * ALLOWANCE)
    }

    /// Returns true if the connections of `uid` are to wait for the next round. Where no uid is known, as of the other
    /// end of a pipe, each connection is a peer of its own.
    #[inline]
    pub(crate) fn is_spent(&self, uid: Option<u32>) -> bool {
        !self.taken.is_empty() && uid.is_some_and(|uid| self.taken(uid) >= ALLOWANCE)
    }

    fn taken(&self, uid: u32) -> Duration {
        let mut known = self.taken.iter();
        known
            .find(|known| known.0 == uid)
            .map_or(Duration::ZERO, |known| known.1)
    }

    /// Notes that a connection of `uid` has taken this long.
    pub(crate) fn charge(&mut self, uid: Option<u32>, took: Duration) {
        let Some(uid) = uid else { return };
        match self.taken.iter_mut().find(|known| known.0 == uid) {
            Some((_, taken)) => *taken += took,
            None => self.taken.push((uid, took)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_presses_until_it_was_light_for_some_passes() {
        let pressing = Pressing::default();
        let note_light = || pressing.note_pass(HEAVY_FRAMES - 1, HEAVY_BYTES - 1);
        note_light();
        assert!(!pressing.presses());
        let heavy: [&dyn Fn(); 3] = [
            &|| pressing.note_used_up(),
            &|| pressing.note_pass(HEAVY_FRAMES, 0),
            &|| pressing.note_pass(1, HEAVY_BYTES),
        ];
        for note_heavy in heavy {
            note_heavy();
            for _ in 1..LIGHT_PASSES {
                note_light();
                assert!(pressing.presses());
            }
            note_light();
            assert!(!pressing.presses());
        }
    }

    #[test]
    fn connections_of_one_uid_share_what_a_round_has_for_it() {
        let mut shares = Shares::default();
        assert!(!shares.is_spent(Some(1)));
        shares.charge(Some(1), ALLOWANCE / 2);
        shares.charge(Some(2), ALLOWANCE / 2);
        assert!(!shares.is_spent(Some(1)));
        shares.charge(Some(1), ALLOWANCE / 2);
        assert!(shares.is_spent(Some(1)) && !shares.is_spent(Some(2)));
        shares.begin();
        assert!(!shares.is_spent(Some(1)));
    }

    #[test]
    fn many_light_connections_of_one_uid_share_it_as_well() {
        let mut shares = Shares::default();
        let mut now = Instant::now();
        let mut drive = |shares: &mut Shares, uid, took| {
            now += took;
            shares.note_light(Some(uid), || now);
        };
        let few = READ_EVERY - 1;
        for _ in 0..3 {
            shares.begin();
            for _ in 0..few {
                drive(&mut shares, 1, 10 * ALLOWANCE);
            }
            assert!(!shares.is_spent(Some(1)), "they are few");
        }
        shares.begin();
        for _ in 0..2 * READ_EVERY {
            drive(&mut shares, 1, ALLOWANCE / 8);
        }
        assert!(shares.is_spent(Some(1)) && !shares.is_overspent(Some(1)));
        for _ in 0..READ_EVERY / 2 {
            drive(&mut shares, 1, ALLOWANCE / 4);
            drive(&mut shares, 2, Duration::ZERO);
        }
        assert!(!shares.is_overspent(Some(1)) && !shares.is_spent(Some(2)));
        for _ in 0..READ_EVERY {
            drive(&mut shares, 1, ALLOWANCE / 8);
        }
        assert!(shares.is_overspent(Some(1)) && !shares.is_overspent(Some(2)));
    }

    #[test]
    fn where_no_uid_is_known_nothing_is_shared() {
        let mut shares = Shares::default();
        shares.charge(None, 2 * ALLOWANCE);
        assert!(!shares.is_spent(None));
        shares.charge(Some(1), 2 * ALLOWANCE);
        assert!(!shares.is_spent(None));
    }
}
