//! How long a side polls a ring before it parks: the spin budget.
//!
//! Waking a parked thread costs a hundred calls, so polling a while longer saves most of it where the answer is
//! near. Where it is not, a spinning thread takes the CPU from the one that makes the answer. The rules:
//!
//! 1. Each place that waits keeps a [`SpinRecord`] of its own. It is *hot* while half of its last sixteen spins
//!    paid, and *cold* otherwise.
//! 2. A hot place spins for 20 us where its peer runs on a CPU, and for 60 us where the peer was rung for and is
//!    still coming up: nothing can come sooner then. It parks at once where the peer sleeps. It spins for 60 us as
//!    well where all of its last sixteen spins paid, since its peer is then interrupted by the machine and will go on;
//!    and once a spin of 20 us has missed, until one of 60 us does.
//! 3. A spin pays if it finds something. One behind a ring that does says nothing, because the ring's time is all
//!    that it measures.
//! 4. A cold place parks at once, but for a probe of 60 us after 16 waits, then 32, and so on up to 1,024. A probe
//!    that finds anything makes the place hot on trial: its peer may be cold only because this side is. A trial
//!    that fails doubles the distance to the next probe.
//! 5. A link that does not tell what its peer does (a socket, a pipe) is spun on for 60 us.
//!
//! A fixed [`WaitPolicy`] is the same code with a constant budget.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use crate::wait_policy::WaitPolicy;

/// What a peer does, as far as its region tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerPosture {
    /// It polls its ring, or runs what it was woken for.
    Runs,
    /// It was rung for and has not come up yet.
    ComingUp,
    /// It sleeps, and has nothing to come up for.
    Asleep,
    /// The link does not tell.
    Unknown,
}

impl PeerPosture {
    /// The one of two from which something comes first.
    pub(crate) fn nearer(self, other: Self) -> Self {
        let distance = |posture| match posture {
            Self::Runs => 0,
            Self::Unknown => 1,
            Self::ComingUp => 2,
            Self::Asleep => 3,
        };
        if distance(other) < distance(self) {
            other
        } else {
            self
        }
    }
}

/// The rules of the adaptive policy as numbers. The shipped ones are [`SpinRules::SHIPPED`]; the simulation switches
/// them off in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpinRules {
    /// The budget where the peer runs: what comes at all comes within the time of a few calls.
    pub(crate) near: Duration,
    /// Where all of the last sixteen spins paid, the budget is the far one.
    pub(crate) far_if_all_paid: bool,
    /// Where a spin of the near budget has missed, the next one has the far one, until one of those misses.
    pub(crate) far_after_miss: bool,
    /// The budget where a wake lies before the answer.
    pub(crate) far: Duration,
    /// Waits from a place's turning cold to its first probe; zero for no probe at all.
    pub(crate) first_distance: u16,
    /// The most waits between two probes.
    pub(crate) max_distance: u16,
    /// So many of the last sixteen spins have to have paid.
    pub(crate) hot: u32,
    /// A history of sixteen spins: that of a place on trial.
    pub(crate) on_trial: u16,
}

impl SpinRules {
    pub(crate) const SHIPPED: Self = Self {
        near: Duration::from_micros(20),
        far_if_all_paid: true,
        far_after_miss: true,
        far: Duration::from_micros(60),
        first_distance: 16,
        max_distance: 1024,
        hot: 8,
        on_trial: 0x5555,
    };
}

/// A spin that is about to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spin {
    /// How long to poll.
    pub(crate) budget: Duration,
    peer: PeerPosture,
}

/// The outcome of a spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something came after so long.
    Found(Duration),
    /// Nothing came.
    Missed,
}

/// What one place has learnt, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Learned {
    /// One bit for each of the last sixteen spins: it paid.
    history: u16,
    /// Cold: waits until the next probe. Zero while the place is hot.
    until_probe: u16,
    /// Waits from one probe to the next.
    distance: u16,
    /// Where the peer runs it spins for long as well: a short spin has missed, and no long one has since.
    long: bool,
}

impl Learned {
    /// What a new place knows.
    pub(crate) const fn new(rules: &SpinRules) -> Self {
        Self {
            history: rules.on_trial,
            until_probe: 0,
            distance: rules.first_distance,
            long: false,
        }
    }

    /// Decides on the spin of a wait that begins now; returns what is known after it, too.
    pub(crate) fn begin(
        self,
        rules: &SpinRules,
        policy: WaitPolicy,
        peer: PeerPosture,
    ) -> (Option<Spin>, Self) {
        match policy {
            WaitPolicy::Park => (None, self),
            WaitPolicy::Spin(budget) => {
                ((!budget.is_zero()).then_some(Spin { budget, peer }), self)
            }
            WaitPolicy::Adaptive => self.begin_adaptive(rules, peer),
        }
    }

    fn begin_adaptive(self, rules: &SpinRules, peer: PeerPosture) -> (Option<Spin>, Self) {
        let spin = |budget| Some(Spin { budget, peer });
        match self.until_probe {
            0 => {
                let budget = match peer {
                    PeerPosture::Runs if !self.spins_long(rules) => spin(rules.near),
                    PeerPosture::Runs | PeerPosture::ComingUp | PeerPosture::Unknown => {
                        spin(rules.far)
                    }
                    PeerPosture::Asleep => None,
                };
                (budget, self)
            }
            1 if peer == PeerPosture::Asleep => (None, self),
            1 => (spin(rules.far), self),
            u16::MAX => (None, self),
            waits => {
                let until_probe = waits - 1;
                (
                    None,
                    Self {
                        until_probe,
                        ..self
                    },
                )
            }
        }
    }

    fn spins_long(self, rules: &SpinRules) -> bool {
        self.long || rules.far_if_all_paid && self.history == u16::MAX
    }

    /// Returns what is known after a spin.
    pub(crate) fn learn(self, rules: &SpinRules, spin: Spin, outcome: Outcome) -> Self {
        if self.until_probe > 0 {
            return match outcome {
                Outcome::Found(_) => self.on_trial(rules),
                Outcome::Missed => self.cold(rules),
            };
        }
        let paid = match (outcome, spin.peer) {
            (Outcome::Missed, _) => false,
            (Outcome::Found(_), PeerPosture::ComingUp) => return self,
            (Outcome::Found(_), _) => true,
        };
        let history = self.history << 1 | u16::from(paid);
        let long = match outcome {
            Outcome::Missed => rules.far_after_miss && spin.budget < rules.far,
            Outcome::Found(_) => self.long,
        };
        let learned = Self {
            history,
            long,
            ..self
        };
        if history.count_ones() < rules.hot {
            return learned.cold(rules);
        }
        if history == u16::MAX {
            // The trial is over long since.
            let distance = rules.first_distance;
            return Self {
                distance,
                ..learned
            };
        }
        learned
    }

    fn on_trial(self, rules: &SpinRules) -> Self {
        Self {
            history: rules.on_trial << 1 | 1,
            until_probe: 0,
            ..self
        }
    }

    /// A trial or a probe that has failed makes the next one later.
    fn cold(self, rules: &SpinRules) -> Self {
        Self {
            history: 0,
            long: false,
            // A place without probes parks for ever.
            until_probe: if rules.first_distance == 0 {
                u16::MAX
            } else {
                self.distance
            },
            distance: self.distance.saturating_mul(2).min(rules.max_distance),
        }
    }

    /// Returns true if the place waits by spinning.
    pub(crate) fn is_hot(self, policy: WaitPolicy) -> bool {
        match policy {
            WaitPolicy::Park => false,
            WaitPolicy::Spin(budget) => !budget.is_zero(),
            WaitPolicy::Adaptive => self.until_probe <= 1,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.history)
            | u64::from(self.until_probe) << 16
            | u64::from(self.distance) << 32
            | u64::from(self.long) << 48
    }

    fn unpack(bits: u64) -> Self {
        let field = |at: u32| u16::try_from(bits >> at & 0xffff).unwrap_or(0);
        Self {
            history: field(0),
            until_probe: field(16),
            distance: field(32),
            long: field(48) != 0,
        }
    }
}

const RULES: &SpinRules = &SpinRules::SHIPPED;

/// What one place that waits has learnt. Threads that share it may lose each other's updates: it is a hint.
#[derive(Debug)]
pub(crate) struct SpinRecord(AtomicU64);

impl Default for SpinRecord {
    fn default() -> Self {
        Self(AtomicU64::new(Learned::new(RULES).pack()))
    }
}

impl SpinRecord {
    /// The spin of a wait that begins now; `None` to park at once.
    pub(crate) fn begin(&self, policy: WaitPolicy, peer: PeerPosture) -> Option<Spin> {
        let before = self.learned();
        let (spin, after) = before.begin(RULES, policy, peer);
        self.set(before, after);
        spin
    }

    /// Learns from a spin.
    pub(crate) fn learn(&self, spin: Spin, outcome: Outcome) {
        let before = self.learned();
        self.set(before, before.learn(RULES, spin, outcome));
    }

    /// Returns true if a place waits by spinning, by what it has learnt.
    pub(crate) fn is_hot(&self, policy: WaitPolicy) -> bool {
        self.learned().is_hot(policy)
    }

    fn learned(&self) -> Learned {
        Learned::unpack(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, before: Learned, after: Learned) {
        // Mostly nothing changes: then the line stays shared.
        if before != after {
            self.0.store(after.pack(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Outcome = Outcome::Found(Duration::from_micros(2));
    const LATE: Outcome = Outcome::Found(Duration::from_micros(50));

    /// Spins made in so many waits.
    fn spins(record: &SpinRecord, waits: u32, peer: PeerPosture, outcome: Outcome) -> usize {
        (0..waits)
            .filter_map(|_| {
                let spin = record.begin(WaitPolicy::Adaptive, peer)?;
                record.learn(spin, outcome);
                Some(spin)
            })
            .count()
    }

    #[test]
    fn a_place_whose_spins_pay_goes_on_spinning() {
        let record = SpinRecord::default();
        assert_eq!(spins(&record, 1_000, PeerPosture::Runs, SOON), 1_000);
    }

    #[test]
    fn a_place_whose_spins_find_nothing_parks_and_probes_ever_more_seldom() {
        let record = SpinRecord::default();
        let first = spins(&record, 100, PeerPosture::Runs, Outcome::Missed);
        assert!(first < 8, "{first}");
        let later = spins(&record, 10_000, PeerPosture::Runs, Outcome::Missed);
        assert!((8..20).contains(&later), "{later}");
    }

    #[test]
    fn a_probe_that_pays_makes_a_place_hot_again() {
        let record = SpinRecord::default();
        spins(&record, 100, PeerPosture::Runs, Outcome::Missed);
        spins(
            &record,
            u32::from(RULES.max_distance),
            PeerPosture::Runs,
            SOON,
        );
        assert_eq!(spins(&record, 100, PeerPosture::Runs, SOON), 100);
    }

    #[test]
    fn a_ring_that_is_answered_says_nothing_and_a_sleeping_peer_is_not_waited_for() {
        let record = SpinRecord::default();
        assert_eq!(spins(&record, 100, PeerPosture::ComingUp, LATE), 100);
        assert_eq!(record.learned(), Learned::new(RULES));
        assert_eq!(spins(&record, 100, PeerPosture::Asleep, SOON), 0);
    }

    #[test]
    fn a_link_that_does_not_tell_is_spun_on_as_long_as_anything_comes() {
        let record = SpinRecord::default();
        assert_eq!(spins(&record, 100, PeerPosture::Unknown, LATE), 100);
        assert!(spins(&record, 100, PeerPosture::Unknown, Outcome::Missed) < 16);
    }

    #[test]
    fn a_fixed_policy_has_a_constant_budget() {
        let record = SpinRecord::default();
        let fixed = WaitPolicy::Spin(Duration::from_micros(5));
        for _ in 0..100 {
            let spin = record.begin(fixed, PeerPosture::Asleep).unwrap();
            assert_eq!(spin.budget, Duration::from_micros(5));
            record.learn(spin, Outcome::Missed);
        }
        assert_eq!(record.begin(WaitPolicy::Park, PeerPosture::Runs), None);
    }
}
