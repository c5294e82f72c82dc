//! Slices of time without and with something, in turn, and what the difference comes to.
//!
//! The machine drifts, so a difference is taken between neighbours, and the order of a pair
//! changes from one to the next: without, with, with, without.

use std::time::Duration;

use serde::Serialize;

use super::measure::{Tally, ratio, to_f64};

/// How long a slice should take: long beside what a switch disturbs, short beside what drifts.
const SLICE_S: f64 = 0.125;

/// Fewer pairs would say nothing of their spread.
const TURNS_MIN: u32 = 2;

/// Whether a slice of a turn is one with.
pub(super) const TURN: [bool; 4] = [false, true, true, false];

/// How often a row of so many seconds takes its turn, and the length of each slice: as long as the
/// row without in all, and as long again.
pub(super) fn turns(seconds: f64) -> (u32, Duration) {
    let mut turns = TURNS_MIN;
    while f64::from(turns) * 2.0 * SLICE_S < seconds {
        turns += 1;
    }
    (
        turns,
        Duration::from_secs_f64(seconds / f64::from(turns) / 2.0),
    )
}

/// What tracing costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Price {
    /// The share of the traces that is recorded.
    pub(crate) trace: f64,
    /// How many slices each are behind the means.
    pub(crate) pairs: u32,
    /// Mean time per call: of calls as fast as possible a slice's time over their number, of paced
    /// calls the latency.
    pub(crate) mean_ns_without: f64,
    pub(crate) mean_ns_with: f64,
    /// The mean of the pairs' differences.
    pub(crate) extra_ns: f64,
    /// Its standard error.
    pub(crate) extra_ns_error: f64,
    pub(crate) calls_per_s_without: f64,
    /// With, over without.
    pub(crate) calls_per_s_ratio: f64,
    /// Spans that the collector has of both ends.
    pub(crate) spans_sent: u64,
    /// Spans that it has not.
    pub(crate) spans_lost: u64,
}

/// Slices that were timed, in their order.
#[derive(Debug)]
pub(super) struct Pairs {
    paced: bool,
    without: Side,
    with: Side,
}

#[derive(Debug)]
struct Side {
    means_ns: Vec<f64>,
    total: Tally,
}

impl Pairs {
    pub(super) fn new(paced: bool) -> Self {
        let side = || Side {
            means_ns: Vec::new(),
            total: Tally::new(),
        };
        Pairs {
            paced,
            without: side(),
            with: side(),
        }
    }

    /// Adds a slice.
    pub(super) fn add(&mut self, with: bool, slice: &Tally) {
        let side = match with {
            true => &mut self.with,
            false => &mut self.without,
        };
        side.means_ns.push(mean_ns(slice, self.paced));
        side.total.add(slice);
    }

    /// What the pairs come to, where so many of the traces are recorded and these are the spans
    /// sent and lost; and all slices with.
    pub(super) fn price(self, trace: f64, (sent, lost): (u64, u64)) -> (Price, Tally) {
        let pairs = self.without.means_ns.iter().zip(&self.with.means_ns);
        let differences: Vec<f64> = pairs.map(|(without, with)| with - without).collect();
        let calls_per_s_without = self.without.calls_per_s();
        let price = Price {
            trace,
            pairs: u32::try_from(differences.len()).unwrap_or(u32::MAX),
            mean_ns_without: mean(&self.without.means_ns),
            mean_ns_with: mean(&self.with.means_ns),
            extra_ns: mean(&differences),
            extra_ns_error: standard_error(&differences),
            calls_per_s_without,
            calls_per_s_ratio: ratio(self.with.calls_per_s(), calls_per_s_without),
            spans_sent: sent,
            spans_lost: lost,
        };
        (price, self.with.total)
    }
}

impl Side {
    fn calls_per_s(&self) -> f64 {
        let calls = to_f64(self.total.latencies.count());
        ratio(calls, self.total.elapsed.as_secs_f64())
    }
}

fn mean_ns(slice: &Tally, paced: bool) -> f64 {
    match paced {
        true => slice.latencies.histogram().mean(),
        false => ratio(
            slice.elapsed.as_secs_f64() * 1e9,
            to_f64(slice.latencies.count()),
        ),
    }
}

fn mean(of: &[f64]) -> f64 {
    ratio(of.iter().sum(), to_f64(of.len() as u64))
}

/// Of the mean of `of`; zero where there is no spread to know it from.
fn standard_error(of: &[f64]) -> f64 {
    let (count, mean) = (to_f64(of.len() as u64), mean(of));
    let squares: f64 = of.iter().map(|one| (one - mean).powi(2)).sum();
    ratio(squares, count * (count - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice of 1 ms with so many calls, each of which took 70 ns.
    fn slice(calls: u64) -> Tally {
        let mut slice = Tally::new();
        slice
            .latencies
            .record_each(Duration::from_nanos(70 * calls), calls);
        slice.elapsed = Duration::from_millis(1);
        slice
    }

    fn about(found: f64, expected: f64) -> bool {
        (found - expected).abs() < expected.abs() * 1e-3
    }

    #[test]
    fn a_drift_is_no_price() {
        let mut pairs = Pairs::new(false);
        // Slower and slower, by 100 ns a slice, beside which 50 ns are to be seen.
        let mut calls = (0..).map(|slice| 1000.0 + 100.0 * f64::from(slice));
        for with in TURN.into_iter().chain(TURN) {
            let mean_ns = calls.next().unwrap() + if with { 50.0 } else { 0.0 };
            let mut slice = slice(1000);
            slice.elapsed = Duration::from_secs_f64(mean_ns * 1000.0 / 1e9);
            pairs.add(with, &slice);
        }
        let (price, with) = pairs.price(0.25, (7, 3));
        assert_eq!((price.pairs, with.latencies.count()), (4, 4000));
        assert!(about(price.extra_ns, 50.0), "{price:?}");
        // 150, -50, 150, -50
        assert!(about(price.extra_ns_error, (40_000.0_f64 / 12.0).sqrt()));
        assert!(about(price.mean_ns_without, 1350.0), "{price:?}");
        assert!(about(price.mean_ns_with, 1400.0), "{price:?}");
        assert!(about(price.calls_per_s_without, 1e9 / 1350.0));
        assert!(about(price.calls_per_s_ratio, 1350.0 / 1400.0));
        let said = (price.trace, price.spans_sent, price.spans_lost);
        assert_eq!(said, (0.25, 7, 3));
    }

    #[test]
    fn paced_calls_are_told_by_their_latency() {
        let mean_of = |paced| {
            let mut pairs = Pairs::new(paced);
            pairs.add(false, &slice(10));
            pairs.add(true, &slice(10));
            pairs.price(0.0, (0, 0)).0.mean_ns_with
        };
        assert!(about(mean_of(true), 70.0));
        assert!(about(mean_of(false), 100_000.0));
    }

    #[test]
    fn nothing_timed_makes_zeros() {
        let (price, _) = Pairs::new(false).price(0.0, (0, 0));
        assert!(price.extra_ns == 0.0 && price.extra_ns_error == 0.0);
    }

    #[test]
    fn a_row_s_seconds_are_dealt_out_in_slices() {
        assert_eq!(turns(1.0), (4, Duration::from_millis(125)));
        assert_eq!(turns(0.1), (2, Duration::from_millis(25)));
        let (turns, slice) = turns(3600.0);
        assert_eq!(f64::from(turns) * 2.0 * slice.as_secs_f64(), 3600.0);
        assert!(slice <= Duration::from_millis(125));
    }
}
