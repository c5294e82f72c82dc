//! Where a time stands on an axis.

use crate::words;

/// A logarithmic axis for times, in per cent of its width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogScale {
    from: f64,
    to: f64,
}

/// A mark of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub(crate) percent: f64,
    pub(crate) label: String,
    /// A power of ten: the others make way where there is little room.
    pub(crate) decade: bool,
}

impl LogScale {
    /// From a bit below the least to a bit above the most of some times, ns; a decade at least.
    pub(crate) fn around(times_ns: impl IntoIterator<Item = f64>) -> Self {
        const MARGIN: f64 = 0.04;
        let logs = times_ns.into_iter().map(|ns| ns.max(1.0).log10());
        let (mut from, mut to) = logs.fold((f64::MAX, f64::MIN), |(least, most), log| {
            (least.min(log), most.max(log))
        });
        if from > to {
            (from, to) = (3.0, 4.0);
        }
        let missing = (1.0 - (to - from)).max(0.0) / 2.0;
        Self {
            from: from - missing - MARGIN,
            to: to + missing + MARGIN,
        }
    }

    /// Where `ns` stands; outside of 0 to 100 if it is not on the axis.
    pub(crate) fn percent(&self, ns: f64) -> f64 {
        100.0 * (ns.max(1.0).log10() - self.from) / (self.to - self.from)
    }

    /// Decades, and 2 and 5 between them where there are few.
    pub(crate) fn ticks(&self) -> Vec<Tick> {
        let factors: &[f64] = match self.to - self.from {
            decades if decades > 3.5 => &[1.0],
            decades if decades > 2.2 => &[1.0, 3.0],
            _ => &[1.0, 2.0, 5.0],
        };
        // A u64 of nanoseconds has twenty decades.
        let decades = (0..20).map(|exponent| 10_f64.powi(exponent));
        let times = decades.flat_map(|decade| factors.iter().map(move |factor| (decade, *factor)));
        times
            .map(|(decade, factor)| Tick {
                percent: self.percent(decade * factor),
                label: words::round_time(decade * factor),
                decade: factor == 1.0,
            })
            .filter(|tick| (0.0..=100.0).contains(&tick.percent))
            .collect()
    }
}

/// Round steps from zero to at most `span_ns`: about `wanted` of them.
pub(crate) fn linear_ticks_ns(span_ns: f64, wanted: f64) -> Vec<f64> {
    let rough = (span_ns / wanted).max(1.0);
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * decade)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    std::iter::successors(Some(0.0), |at| Some(at + step))
        .take_while(|at| *at <= span_ns)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_order_and_within() {
        let scale = LogScale::around([300.0, 80_000.0]);
        let (left, right) = (scale.percent(300.0), scale.percent(80_000.0));
        assert!(0.0 < left && left < 5.0, "{left}");
        assert!(95.0 < right && right < 100.0, "{right}");
        assert!(scale.percent(1.0) < 0.0);
        let middle = scale.percent((300.0_f64 * 80_000.0).sqrt());
        assert!((middle - 50.0).abs() < 1e-9);
    }

    #[test]
    fn an_axis_has_marks_whatever_it_spans() {
        let labels = |times: &[f64]| -> Vec<String> {
            let ticks = LogScale::around(times.iter().copied()).ticks();
            ticks.into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(
            labels(&[300.0, 8e7]),
            ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms"]
        );
        assert!(labels(&[1000.0]).len() >= 2);
        assert!(labels(&[]).len() >= 2);
        assert_eq!(labels(&[900.0, 60_000.0])[..3], ["1 µs", "2 µs", "5 µs"]);
    }

    #[test]
    fn linear_marks_are_round() {
        assert_eq!(
            linear_ticks_ns(182_000.0, 4.0),
            [0.0, 50_000.0, 100_000.0, 150_000.0]
        );
        assert_eq!(linear_ticks_ns(1.0, 4.0), [0.0, 1.0]);
    }
}
