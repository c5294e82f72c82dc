//! Giving way to the peer that has rung.
//!
//! Where more threads want a CPU than there are CPUs, the kernel often runs a woken thread in place of the one that
//! woke it. A driver then comes up, takes the one record that is there, and parks; its peer goes on and rings for
//! the next one. Each record costs a ring and two switches. A driver that yields its CPU once, before it takes anything
//! (sched_yield(2)), lets the peer go on, and finds more. On an idle CPU that costs 0.3 us.
//!
//! A peer with one call in flight has nothing to add. And a thread that computes keeps the CPU for a slice of the
//! scheduler, some milliseconds. So each connection learns if it pays:
//!
//! 0. Where more than a record or two has come already there is nothing to wait for.
//! 1. It *pays* if the peer has published more, within 500 us. Where nobody else wanted the CPU it says nothing.
//! 2. A hot connection gives way whenever it is rung, while a quarter of its last sixteen times have paid.
//! 3. A cold one tries it after 16 rings, then 32, and so on up to 1,024, and not before 128 times as much time has
//!    passed as the last try took. A try that pays makes it hot.
//! 4. A driver gives way once in a pass, for all of its connections.

use std::time::{Duration, Instant};

/// A yield that is over so soon had nobody to yield to.
const ALONE: Duration = Duration::from_micros(2);
/// The longest yield that can pay: peers that go on have parked by then, as a rule, and a thread that computes has not.
const LONGEST: Duration = Duration::from_micros(500);
/// Bytes that are worth taking at once: several small records, or one that is not small.
pub(crate) const ENOUGH_BYTES: u64 = 1024;
/// Of the last sixteen times so many have to have paid.
const HOT: u32 = 4;
/// The history of a connection whose try has paid: half of sixteen times.
const ON_TRIAL: u16 = 0x00ff;
/// Rings until the first try, and until the next one where tries do not pay.
const FIRST_DISTANCE: u16 = 16;
const MAX_DISTANCE: u16 = 1024;
/// Rings until the next try after one that said nothing.
const AFTER_ALONE: u16 = 4;
/// Tries that do not pay take so small a part of the time.
const TRIED_PART: u32 = 128;

/// Remembers for one connection if giving way has paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivingWay {
    /// The last sixteen times, of a hot connection: a bit is set if it paid.
    history: u16,
    hot: bool,
    /// Cold: rings until the next try.
    until_try: u16,
    distance: u16,
    /// Cold: no try before.
    not_before: Option<Instant>,
}

impl Default for GivingWay {
    fn default() -> Self {
        Self {
            history: 0,
            hot: false,
            until_try: FIRST_DISTANCE,
            distance: FIRST_DISTANCE,
            not_before: None,
        }
    }
}

impl GivingWay {
    /// Returns true if a driver that was rung gives way. The time is asked for where it matters.
    pub(crate) fn is_due(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.hot {
            return true;
        }
        self.until_try = self.until_try.saturating_sub(1);
        self.until_try == 0 && self.not_before.is_none_or(|at| now() >= at)
    }

    /// Learns from a yield that was over at `now`, took so long, and had the peer publish more, or not.
    pub(crate) fn learn(&mut self, now: Instant, took: Duration, more: bool) {
        if took < ALONE {
            self.until_try = AFTER_ALONE;
            return;
        }
        let paid = more && took <= LONGEST;
        if !self.hot {
            match paid {
                true => (self.hot, self.history) = (true, ON_TRIAL),
                false => self.cool(now, took),
            }
            return;
        }
        self.history = self.history << 1 | u16::from(paid);
        if self.history.count_ones() < HOT {
            self.cool(now, took);
        } else if self.history == u16::MAX {
            self.distance = FIRST_DISTANCE;
        }
    }

    fn cool(&mut self, now: Instant, took: Duration) {
        self.hot = false;
        self.until_try = self.distance;
        self.distance = self.distance.saturating_mul(2).min(MAX_DISTANCE);
        self.not_before = now.checked_add(took * TRIED_PART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_micros(30);
    const SLICE: Duration = Duration::from_millis(3);

    /// Rings until it gives way, the clock standing still.
    fn rings(giving_way: &mut GivingWay, now: Instant) -> Option<u32> {
        (1..10_000).find(|_| giving_way.is_due(|| now))
    }

    #[test]
    fn a_connection_that_gains_gives_way_each_time() {
        let (mut giving_way, now) = (GivingWay::default(), Instant::now());
        assert_eq!(rings(&mut giving_way, now), Some(16));
        giving_way.learn(now, BRIEF, true);
        for round in 0..100 {
            assert_eq!(rings(&mut giving_way, now), Some(1));
            giving_way.learn(now, BRIEF, round % 3 == 0);
        }
    }

    #[test]
    fn one_that_gains_nothing_tries_ever_more_seldom() {
        let (mut giving_way, mut now) = (GivingWay::default(), Instant::now());
        let mut seen = Vec::new();
        for _ in 0..9 {
            seen.extend(rings(&mut giving_way, now));
            giving_way.learn(now, BRIEF, false);
            now += Duration::from_secs(1);
        }
        assert_eq!(seen, [16, 16, 32, 64, 128, 256, 512, 1024, 1024]);
    }

    #[test]
    fn a_slice_that_was_lost_is_not_lost_again_for_long() {
        let (mut giving_way, began) = (GivingWay::default(), Instant::now());
        rings(&mut giving_way, began);
        giving_way.learn(began, SLICE, true);
        let almost = began + SLICE * TRIED_PART - BRIEF;
        assert_eq!(rings(&mut giving_way, almost), None);
        assert_eq!(rings(&mut giving_way, almost + BRIEF), Some(1));
        giving_way.learn(almost, BRIEF, true);
        assert!(giving_way.is_due(|| almost));
    }

    #[test]
    fn a_hot_one_that_pays_no_more_cools_down() {
        let (mut giving_way, now) = (GivingWay::default(), Instant::now());
        rings(&mut giving_way, now);
        giving_way.learn(now, BRIEF, true);
        let times = (1..100).find(|_| {
            giving_way.learn(now, SLICE, true);
            !giving_way.is_due(|| now)
        });
        assert_eq!(times, Some(13));
    }

    #[test]
    fn a_yield_to_nobody_says_nothing() {
        let (mut giving_way, now) = (GivingWay::default(), Instant::now());
        rings(&mut giving_way, now);
        giving_way.learn(now, Duration::from_nanos(300), false);
        assert_eq!(rings(&mut giving_way, now), Some(AFTER_ALONE.into()));
        giving_way.learn(now, BRIEF, true);
        giving_way.learn(now, Duration::from_nanos(300), false);
        assert_eq!(rings(&mut giving_way, now), Some(1));
    }
}
