//! How long a side polls a ring before it parks: the spin budget.
//!
//! Waking a parked thread costs a hundred calls, so polling a while longer saves most of it where the answer is
//! near. Where it is not, a spinning thread takes the CPU from the one that makes the answer. The rules:
//!
//! 1. Each place that waits keeps a [`SpinRecord`] of its own. It is *hot* while half of its last sixteen spins
//!    paid, and *cold* otherwise.
//! 2. A hot place spins for 20 us where its peer runs on a CPU, and for 60 us where the peer was rung for and is
//!    still coming up: nothing can come sooner then. It parks at once where the peer sleeps.
//! 3. A spin pays if it finds something within 8 us: about a tenth of what parking and waking cost. One behind a
//!    ring that finds something says nothing, because the ring's time is all that it measures.
//! 4. A cold place parks at once, but for a probe of 60 us after 16 waits, then 32, and so on up to 1,024. A probe
//!    that finds anything makes the place hot on trial: its peer may be cold only because this side is. A trial
//!    that fails doubles the distance to the next probe.
//! 5. A link that does not tell what its peer does (a socket, a pipe) is spun on for 60 us, and any find pays.
//!
//! A fixed [`WaitPolicy`] is the same code with a constant budget.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a program waits for its peers on local paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Learns from the last waits whether polling pays.
    #[default]
    Adaptive,
    /// Never polls: the least CPU, and a wake for each message.
    Park,
    /// Polls for so long before it parks, whatever comes of it.
    Spin(Duration),
}

/// The environment variable that sets the policy of a program.
pub(crate) const VARIABLE: &str = "RINGWAY_WAIT";
/// The longest fixed budget.
const LONGEST_SPIN: Duration = Duration::from_secs(1);

impl WaitPolicy {
    /// The policy that `RINGWAY_WAIT` names: `adaptive`, `park` or `spin:20us`. Adaptive where it is not set; one
    /// that can't be understood is said once, as a warning.
    pub fn from_environment() -> Self {
        static POLICY: OnceLock<WaitPolicy> = OnceLock::new();
        *POLICY.get_or_init(|| {
            let Some(value) = std::env::var_os(VARIABLE) else {
                return Self::default();
            };
            value.to_string_lossy().parse().unwrap_or_else(|error| {
                tracing::warn!(%error, "{VARIABLE} is ignored");
                Self::default()
            })
        })
    }
}

impl WaitPolicy {
    /// The one of two that polls longer; adaptive counts between parking and a fixed time.
    pub(crate) fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Park, other) => other,
            (Self::Spin(one), Self::Spin(two)) => Self::Spin(one.max(two)),
            (Self::Adaptive, Self::Spin(_)) => other,
            _ => self,
        }
    }
}

/// A text that names no wait policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no wait policy: adaptive, park, or spin:TIME with a time of up to 1s, as spin:20us"
)]
pub struct UnknownWaitPolicy(String);

impl FromStr for WaitPolicy {
    type Err = UnknownWaitPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownWaitPolicy> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            "park" => Ok(Self::Park),
            _ => text
                .strip_prefix("spin:")
                .and_then(parse_time)
                .filter(|time| *time <= LONGEST_SPIN)
                .map(Self::Spin)
                .ok_or_else(|| UnknownWaitPolicy(text.to_owned())),
        }
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|symbol: char| !symbol.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit_at);
    let count = count.parse().ok()?;
    match unit {
        "ns" => Some(Duration::from_nanos(count)),
        "us" => Some(Duration::from_micros(count)),
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        _ => None,
    }
}

impl fmt::Display for WaitPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive => formatter.write_str("adaptive"),
            Self::Park => formatter.write_str("park"),
            Self::Spin(time) => write!(formatter, "spin:{}us", time.as_micros()),
        }
    }
}

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

/// Where the peer runs: what comes at all comes within the time of a few calls.
const NEAR: Duration = Duration::from_micros(20);
/// Where a wake lies before the answer.
const FAR: Duration = Duration::from_micros(60);
/// A find within this time pays.
const PAYS_WITHIN: Duration = Duration::from_micros(8);
/// Waits from a place's turning cold to its first probe, and the most between two.
const FIRST_DISTANCE: u16 = 16;
const MAX_DISTANCE: u16 = 1024;
/// A history of sixteen spins of which half paid: on trial.
const ON_TRIAL: u16 = 0x5555;
/// So many of them have to have paid.
const HOT: u32 = 8;

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
struct Learned {
    /// One bit for each of the last sixteen spins: it paid.
    history: u16,
    /// Cold: waits until the next probe. Zero while the place is hot.
    until_probe: u16,
    /// Waits from one probe to the next.
    distance: u16,
}

impl Learned {
    const NEW: Self = Self {
        history: ON_TRIAL,
        until_probe: 0,
        distance: FIRST_DISTANCE,
    };

    /// The spin of a wait that begins now, and what is known after it was asked for.
    fn begin(self, peer: PeerPosture) -> (Option<Spin>, Self) {
        let spin = |budget| Some(Spin { budget, peer });
        match self.until_probe {
            0 => {
                let budget = match peer {
                    PeerPosture::Runs => spin(NEAR),
                    PeerPosture::ComingUp | PeerPosture::Unknown => spin(FAR),
                    PeerPosture::Asleep => None,
                };
                (budget, self)
            }
            1 if peer == PeerPosture::Asleep => (None, self),
            1 => (spin(FAR), self),
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

    fn learn(self, spin: Spin, outcome: Outcome) -> Self {
        if self.until_probe > 0 {
            return match outcome {
                Outcome::Found(_) => self.on_trial(),
                Outcome::Missed => self.cold(),
            };
        }
        let paid = match (outcome, spin.peer) {
            (Outcome::Missed, _) => false,
            (Outcome::Found(_), PeerPosture::Unknown) => true,
            (Outcome::Found(_), PeerPosture::ComingUp) => return self,
            (Outcome::Found(after), _) => after <= PAYS_WITHIN,
        };
        let history = self.history << 1 | u16::from(paid);
        let learned = Self { history, ..self };
        if history.count_ones() < HOT {
            return learned.cold();
        }
        if history == u16::MAX {
            // The trial is over long since.
            let distance = FIRST_DISTANCE;
            return Self {
                distance,
                ..learned
            };
        }
        learned
    }

    fn on_trial(self) -> Self {
        Self {
            history: ON_TRIAL << 1 | 1,
            until_probe: 0,
            ..self
        }
    }

    /// A trial or a probe that has failed makes the next one later.
    fn cold(self) -> Self {
        Self {
            history: 0,
            until_probe: self.distance,
            distance: self.distance.saturating_mul(2).min(MAX_DISTANCE),
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.history) | u64::from(self.until_probe) << 16 | u64::from(self.distance) << 32
    }

    fn unpack(bits: u64) -> Self {
        let field = |at: u32| u16::try_from(bits >> at & 0xffff).unwrap_or(0);
        Self {
            history: field(0),
            until_probe: field(16),
            distance: field(32),
        }
    }
}

/// What one place that waits has learnt. Threads that share it may lose each other's updates: it is a hint.
#[derive(Debug)]
pub(crate) struct SpinRecord(AtomicU64);

impl Default for SpinRecord {
    fn default() -> Self {
        Self(AtomicU64::new(Learned::NEW.pack()))
    }
}

impl SpinRecord {
    /// The spin of a wait that begins now; `None` to park at once.
    pub(crate) fn begin(&self, policy: WaitPolicy, peer: PeerPosture) -> Option<Spin> {
        match policy {
            WaitPolicy::Park => None,
            WaitPolicy::Spin(budget) => (!budget.is_zero()).then_some(Spin { budget, peer }),
            WaitPolicy::Adaptive => {
                let before = self.learned();
                let (spin, after) = before.begin(peer);
                self.set(before, after);
                spin
            }
        }
    }

    /// Learns from a spin.
    pub(crate) fn learn(&self, spin: Spin, outcome: Outcome) {
        let before = self.learned();
        self.set(before, before.learn(spin, outcome));
    }

    /// Returns true if a place waits by spinning, by what it has learnt.
    pub(crate) fn is_hot(&self, policy: WaitPolicy) -> bool {
        match policy {
            WaitPolicy::Park => false,
            WaitPolicy::Spin(budget) => !budget.is_zero(),
            WaitPolicy::Adaptive => self.learned().until_probe <= 1,
        }
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
        // Finds that come as late as after a wake are no better, but for the trials that probes lead to.
        let late = spins(&record, 10_000, PeerPosture::Runs, LATE);
        assert!(late < 80, "{late}");
    }

    #[test]
    fn a_probe_that_pays_makes_a_place_hot_again() {
        let record = SpinRecord::default();
        spins(&record, 100, PeerPosture::Runs, Outcome::Missed);
        spins(&record, u32::from(MAX_DISTANCE), PeerPosture::Runs, SOON);
        assert_eq!(spins(&record, 100, PeerPosture::Runs, SOON), 100);
    }

    #[test]
    fn a_ring_that_is_answered_says_nothing_and_a_sleeping_peer_is_not_waited_for() {
        let record = SpinRecord::default();
        assert_eq!(spins(&record, 100, PeerPosture::ComingUp, LATE), 100);
        assert_eq!(record.learned(), Learned::NEW);
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

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["adaptive", "park", "spin:20us"] {
            let policy: WaitPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        assert_eq!(
            "spin:1ms".parse(),
            Ok(WaitPolicy::Spin(Duration::from_millis(1)))
        );
        for text in ["", "spin", "spin:", "spin:20", "spin:2m", "spin:2s", "Park"] {
            let error = text.parse::<WaitPolicy>().unwrap_err();
            assert!(error.to_string().contains("spin:20us"), "{error}");
        }
    }
}
