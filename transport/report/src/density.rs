//! Latencies as a curve: how many of them fell into each hundredth of the axis.

use hdrhistogram::Histogram;

use crate::page::float;
use crate::scale::LogScale;

/// Points of a curve from one end of the axis to the other.
pub(crate) const POINTS: usize = 160;

/// How far a sample is spread, in points: less shows the grain of the clock, more hides a second
/// hump.
const SPREAD: f64 = 1.3;
const REACH: usize = 4;

/// The curve of `latency_ns` along `scale`, its highest point at 1; all zero if nothing is on the
/// axis.
pub(crate) fn density(latency_ns: &Histogram<u64>, scale: LogScale) -> [f64; POINTS] {
    let mut counts = [0.0; POINTS];
    for step in latency_ns.iter_recorded() {
        let ns = float(step.value_iterated_to());
        if let Some(point) = point(scale.percent(ns)) {
            counts[point] += float(step.count_since_last_iteration());
        }
    }
    let smooth = smoothed(&counts);
    let highest = smooth.iter().copied().fold(0.0, f64::max);
    smooth.map(|height| if highest > 0.0 { height / highest } else { 0.0 })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked to lie between 0 and POINTS"
)]
fn point(percent: f64) -> Option<usize> {
    (0.0..100.0)
        .contains(&percent)
        .then(|| (percent / 100.0 * POINTS as f64) as usize)
}

fn smoothed(counts: &[f64; POINTS]) -> [f64; POINTS] {
    std::array::from_fn(|at| {
        let near = at.saturating_sub(REACH)..(at + REACH + 1).min(POINTS);
        near.map(|other| counts[other] * weight(other.abs_diff(at)))
            .sum()
    })
}

/// Gauss's bell.
#[expect(clippy::cast_precision_loss, reason = "at most REACH")]
fn weight(distance: usize) -> f64 {
    let distance = distance as f64 / SPREAD;
    (-distance * distance / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(latencies_ns: &[(u64, u64)]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        for &(ns, count) in latencies_ns {
            histogram.record_n(ns, count).unwrap();
        }
        histogram
    }

    fn highest(curve: &[f64]) -> usize {
        (0..curve.len())
            .max_by(|a, b| curve[*a].total_cmp(&curve[*b]))
            .unwrap()
    }

    #[test]
    fn a_hump_stands_where_its_latencies_are() {
        let scale = LogScale::around([1e3, 1e6]);
        let curve = density(&histogram(&[(2_000, 900), (200_000, 300)]), scale);
        let expect = |ns| point(scale.percent(ns)).unwrap();
        assert_eq!(highest(&curve), expect(2e3));
        assert!((curve[expect(2e3)] - 1.0).abs() < 1e-9);
        let second = curve[expect(2e5)];
        assert!((0.3..0.4).contains(&second), "{second}");
        assert!(curve[expect(2e4)] == 0.0);
    }

    #[test]
    fn what_is_beyond_the_axis_is_not_heaped_up_at_its_end() {
        let scale = LogScale::around([1e3, 1e4]);
        let curve = density(&histogram(&[(2_000, 10), (1_000_000_000, 1000)]), scale);
        assert!(curve[POINTS - 1] == 0.0);
        assert_eq!(density(&histogram(&[]), scale), [0.0; POINTS]);
    }
}
