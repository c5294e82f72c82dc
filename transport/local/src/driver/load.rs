//! How busy a driver is, and when it shares its connections with another one: pure functions over readings.
//!
//! 1. A driver is *full* in a window of 50 ms in which its passes took three quarters of the time. A pass counts
//!    where its begin is known without reading the clock for it: behind another one, or first in a turn.
//! 2. A full driver weighs its connections in the next window. If it is full again, has several that bring
//!    something, and the CPUs at hand have idled for a third of one, it gives about half of the weight away: to
//!    the one of its runtime's drivers that has least to do, or to a new one. There are as many as the runtime has
//!    workers, at most, and as there are CPUs.
//! 3. If that does not come about, it tries again after 2 windows, then 4, up to 64.
//! 4. A driver that was *slack*, below a quarter, for 200 ms gives all back to the first one, if both together
//!    take less than half of the time.

use std::time::Duration;

use super::count::DriverCount;

/// Parts of a whole: of a window, or of one CPU.
pub(crate) type PerMille = u32;

/// What the rules compare readings with. The shipped ones are [`LoadRules::SHIPPED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadRules {
    /// The time over which a driver's passes are added up.
    pub(crate) window: Duration,
    pub(crate) full: PerMille,
    pub(crate) slack: PerMille,
    /// A driver returns its connections once it was slack for so long.
    pub(crate) slack_for: Duration,
    /// The most that it and the first driver may have to do together then.
    pub(crate) together: PerMille,
    /// The most that a driver has to do which takes connections of another one.
    pub(crate) has_room: PerMille,
    /// What a further driver needs of a CPU that idles.
    pub(crate) idle_cpu: PerMille,
    /// Windows between two attempts, at most.
    pub(crate) longest_pause: u32,
}

impl LoadRules {
    pub(crate) const SHIPPED: Self = Self {
        window: Duration::from_millis(50),
        full: 750,
        slack: 250,
        slack_for: Duration::from_millis(200),
        together: 500,
        has_room: 400,
        idle_cpu: 330,
        longest_pause: 64,
    };

    /// Those of this process.
    pub(crate) fn in_force() -> Self {
        match DriverCount::from_environment() {
            DriverCount::Restless => Self {
                window: Duration::from_millis(1),
                ..Self::SHIPPED
            },
            DriverCount::Adaptive | DriverCount::Fixed(_) => Self::SHIPPED,
        }
    }
}

/// One window of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) length: Duration,
    pub(crate) busy: PerMille,
    /// It is the first of its runtime's drivers, which returns nothing.
    pub(crate) is_first: bool,
    /// How busy the first driver is.
    pub(crate) first_busy: PerMille,
    /// Where the window was weighed.
    pub(crate) weighed: Option<Weighed>,
}

/// What is read in a window that is weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// Connections that brought something.
    pub(crate) connections: usize,
    /// How much of one CPU has idled, in sum over those at hand.
    pub(crate) idle_cpu: PerMille,
    /// How busy the driver is that would take some of them; `None` where there is none.
    pub(crate) taker_busy: Option<PerMille>,
}

/// What a driver does at the end of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stay,
    /// It weighs its connections in the next window.
    Weigh,
    /// It gives some of them away.
    Share,
    /// It gives all of them back to the first driver.
    Return,
}

/// What a driver keeps of its former windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadRecord {
    slack: Duration,
    /// Windows until it may weigh again.
    pause: u32,
    last_pause: u32,
}

impl LoadRecord {
    /// Judges a window; returns what is known after it, too.
    pub(crate) fn judge(self, rules: &LoadRules, reading: Reading) -> (Verdict, Self) {
        let slack = if reading.busy <= rules.slack {
            self.slack.saturating_add(reading.length)
        } else {
            Duration::ZERO
        };
        let pause = self.pause.saturating_sub(1);
        let after = Self {
            slack,
            pause,
            ..self
        };
        if reading.busy >= rules.full {
            return match reading.weighed {
                Some(weighed) if weighed.is_worth_sharing(rules) => {
                    (Verdict::Share, Self::default())
                }
                Some(_) => (Verdict::Stay, after.paused(rules)),
                None if pause == 0 => (Verdict::Weigh, after),
                None => (Verdict::Stay, after),
            };
        }
        let both = reading.busy.saturating_add(reading.first_busy);
        if !reading.is_first && slack >= rules.slack_for && both <= rules.together {
            return (Verdict::Return, Self::default());
        }
        (Verdict::Stay, after)
    }

    /// An attempt that came to nothing makes the next one rarer.
    pub(crate) fn paused(self, rules: &LoadRules) -> Self {
        let last_pause = (2 * self.last_pause).clamp(2, rules.longest_pause);
        Self {
            pause: last_pause,
            last_pause,
            ..self
        }
    }
}

impl Weighed {
    fn is_worth_sharing(self, rules: &LoadRules) -> bool {
        let taken = self.taker_busy.is_some_and(|busy| busy <= rules.has_room);
        taken && self.connections > 1 && self.idle_cpu >= rules.idle_cpu
    }
}

/// The part of a whole.
pub(crate) fn per_mille(part: Duration, whole: Duration) -> PerMille {
    let parts = part.as_nanos() * 1000 / whole.as_nanos().max(1);
    PerMille::try_from(parts).unwrap_or(PerMille::MAX)
}

/// Chooses which connections to give away, by their `weights`, so that the giver keeps about as much as the taker then
/// has, which is busy already by `taken` of what all of them make. Heavy ones first; never all.
pub(crate) fn share_out(weights: &[Duration], taken: Duration) -> Vec<usize> {
    let whole: Duration = weights.iter().sum();
    let goal = whole.saturating_sub(taken) / 2;
    let mut heavy_first: Vec<usize> = (0..weights.len()).collect();
    heavy_first.sort_by_key(|index| std::cmp::Reverse(weights[*index]));
    let mut given = Vec::new();
    let mut sum = Duration::ZERO;
    for index in heavy_first {
        if !weights[index].is_zero() && sum + weights[index] <= goal + goal / 10 {
            sum += weights[index];
            given.push(index);
        }
    }
    // A trifle is not worth its move.
    if sum < whole / 20 {
        given.clear();
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: LoadRules = LoadRules::SHIPPED;

    fn reading(busy: PerMille) -> Reading {
        Reading {
            length: RULES.window,
            busy,
            is_first: false,
            first_busy: 0,
            weighed: None,
        }
    }

    fn weighed(busy: PerMille, weighed: Weighed) -> Reading {
        Reading {
            weighed: Some(weighed),
            ..reading(busy)
        }
    }

    const WORTH_IT: Weighed = Weighed {
        connections: 2,
        idle_cpu: 900,
        taker_busy: Some(0),
    };

    #[test]
    fn a_driver_shares_once_it_was_full_twice_and_there_is_room() {
        let (verdict, record) = LoadRecord::default().judge(&RULES, reading(749));
        assert_eq!(verdict, Verdict::Stay);
        let (verdict, record) = record.judge(&RULES, reading(750));
        assert_eq!(verdict, Verdict::Weigh);
        assert_eq!(
            record.judge(&RULES, weighed(750, WORTH_IT)).0,
            Verdict::Share
        );
        // Slackened meanwhile.
        assert_eq!(
            record.judge(&RULES, weighed(700, WORTH_IT)).0,
            Verdict::Stay
        );
    }

    #[test]
    fn it_does_not_share_with_one_connection_without_a_taker_or_without_an_idle_cpu() {
        let in_vain = [
            Weighed {
                connections: 1,
                ..WORTH_IT
            },
            Weighed {
                idle_cpu: 300,
                ..WORTH_IT
            },
            Weighed {
                taker_busy: None,
                ..WORTH_IT
            },
            Weighed {
                taker_busy: Some(500),
                ..WORTH_IT
            },
        ];
        for why in in_vain {
            let judged = LoadRecord::default().judge(&RULES, weighed(1000, why));
            assert_eq!(judged.0, Verdict::Stay, "{why:?}");
        }
    }

    #[test]
    fn attempts_in_vain_become_rare() {
        let crowded = Weighed {
            idle_cpu: 0,
            ..WORTH_IT
        };
        let (mut record, mut attempts, mut last) = (LoadRecord::default(), Vec::new(), 0);
        for window in 0..400 {
            let (verdict, after) = record.judge(&RULES, reading(1000));
            record = after;
            if verdict == Verdict::Weigh {
                attempts.push(window - last);
                last = window;
                record = record.judge(&RULES, weighed(1000, crowded)).1;
            }
        }
        assert_eq!(attempts[..4], [0, 2, 4, 8]);
        assert!(attempts.len() < 13 && attempts.iter().max() == Some(&64));
    }

    #[test]
    fn a_further_driver_returns_what_it_has_once_it_was_slack_for_long() {
        let mut record = LoadRecord::default();
        for _ in 0..3 {
            let (verdict, after) = record.judge(&RULES, reading(250));
            assert_eq!(verdict, Verdict::Stay);
            record = after;
        }
        assert_eq!(record.judge(&RULES, reading(250)).0, Verdict::Return);
        let first = Reading {
            is_first: true,
            ..reading(250)
        };
        assert_eq!(record.judge(&RULES, first).0, Verdict::Stay);
        let both_too_much = Reading {
            first_busy: 251,
            ..reading(250)
        };
        assert_eq!(record.judge(&RULES, both_too_much).0, Verdict::Stay);
        // One busy window, and it begins anew.
        let (_, record) = record.judge(&RULES, reading(251));
        assert_eq!(record.judge(&RULES, reading(0)).0, Verdict::Stay);
        // A driver that was asleep meanwhile has had one long window.
        let asleep = Reading {
            length: Duration::from_secs(5),
            ..reading(1)
        };
        assert_eq!(record.judge(&RULES, asleep).0, Verdict::Return);
    }

    #[test]
    fn what_two_drivers_share_neither_gives_back_nor_away() {
        // The whole is 1.2 of one driver, then 0.76 of one.
        for each in [600, 380] {
            let mut record = LoadRecord::default();
            for _ in 0..100 {
                let steady = Reading {
                    first_busy: each,
                    ..reading(each)
                };
                let (verdict, after) = record.judge(&RULES, steady);
                assert_eq!(verdict, Verdict::Stay);
                record = after;
            }
        }
    }

    fn given(weights: &[u64], taken: u64) -> Vec<usize> {
        let weights: Vec<_> = weights.iter().copied().map(Duration::from_millis).collect();
        let mut given = share_out(&weights, Duration::from_millis(taken));
        given.sort_unstable();
        given
    }

    #[test]
    fn half_of_the_weight_is_given_away() {
        assert_eq!(given(&[10, 10], 0).len(), 1);
        assert_eq!(given(&[10, 10, 10, 10], 0).len(), 2);
        assert_eq!(given(&[10, 10, 10, 10], 20).len(), 1);
        // The heavy one stays, its light neighbours go.
        assert_eq!(given(&[30, 5, 5], 0), [1, 2]);
        assert_eq!(given(&[100, 1], 0), [0_usize; 0]);
        assert_eq!(given(&[10], 0), [0_usize; 0]);
        assert_eq!(given(&[10, 0], 0), [0_usize; 0]);
        assert_eq!(given(&[], 0), [0_usize; 0]);
        assert_eq!(given(&[10; 64], 0).len(), 35);
    }

    #[test]
    fn parts_are_of_a_thousand() {
        let ms = Duration::from_millis;
        assert_eq!(per_mille(ms(1), ms(4)), 250);
        assert_eq!(per_mille(ms(0), ms(0)), 0);
        assert_eq!(per_mille(ms(8), ms(4)), 2000);
    }
}
