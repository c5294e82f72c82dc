//! Peers that take nothing any more: stopped, stuck, or hostile.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Connection;
use crate::link::LinkKind;
use crate::watchdog::LOOK_AT_PEERS_EVERY;

/// A connection's peer, as the looks of the watchdog have seen it. Looks are counted, not time: a process that was
/// stopped itself must not give its peer up when it goes on.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// What the peer had taken at the last look.
    taken: AtomicU64,
    /// Looks since it last took anything.
    looks: AtomicU32,
    /// It is to be given up.
    is_long: AtomicBool,
}

impl Stall {
    /// Notes a look, at which the peer had not taken all that was sent, but so much; returns for how long it has
    /// taken nothing.
    fn note(&self, untaken: Option<u64>) -> Duration {
        let Some(taken) = untaken else {
            self.looks.store(0, Ordering::Relaxed);
            return Duration::ZERO;
        };
        let before = self.taken.swap(taken, Ordering::Relaxed);
        let looks = match self.looks.load(Ordering::Relaxed) {
            looks if looks > 0 && before == taken => looks.saturating_add(1),
            _ => 1,
        };
        self.looks.store(looks, Ordering::Relaxed);
        LOOK_AT_PEERS_EVERY * (looks - 1)
    }

    /// Returns true if the peer is to be given up.
    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Has the driver take records for which the peer has not rung, and give the peer up, if it has taken nothing for
    /// too long while calls wait.
    pub(crate) fn look_at_peer(&self) {
        // A peer of another make, or one that means no good, may publish and not ring.
        if self.kind == LinkKind::Shm && self.is_open() && self.watch.has_work() {
            self.mark_ready();
        }
        let Some(limit) = self.stall_timeout.get().copied().flatten() else {
            return;
        };
        // Held, it makes progress.
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        let untaken = state.untaken_by_peer();
        drop(state);
        if self.stall.note(untaken) >= limit && !self.stall.is_long.swap(true, Ordering::SeqCst) {
            self.stir();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_takes_nothing_is_stalled_and_one_that_takes_little_is_not() {
        let stall = Stall::default();
        for seconds in 0..30 {
            assert_eq!(stall.note(Some(7)).as_secs(), seconds);
        }
        assert_eq!(stall.note(Some(8)).as_secs(), 0);
        assert_eq!(stall.note(Some(8)).as_secs(), 1);
        assert_eq!(stall.note(None).as_secs(), 0);
        assert_eq!(stall.note(Some(8)).as_secs(), 0);
    }
}
