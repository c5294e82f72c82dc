//! What is added up for a row, and what becomes of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::options::Kind;
use super::pairs::Price;
use super::work::HandlerWork;

/// Three significant digits: 0.1 % of whatever was measured.
const DIGITS: u8 = 3;

/// The latencies of one lane of the load.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet. Grows with what it records, so that a lane's counters stay in its cache.
    pub(crate) fn new() -> Self {
        Latencies(Histogram::new(DIGITS).expect("three digits are within what it offers"))
    }

    /// One call.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_each(latency, 1);
    }

    /// A block of messages that took `elapsed` together.
    pub(crate) fn record_each(&mut self, elapsed: Duration, messages: u64) {
        let each_ns = elapsed.as_nanos() / u128::from(messages.max(1));
        let each_ns = u64::try_from(each_ns).unwrap_or(u64::MAX / 2);
        self.0
            .record_n(each_ns.max(1), messages)
            .expect("a histogram that resizes takes any value");
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Takes over what another lane or round recorded.
    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.0
            .add(&other.0)
            .expect("a histogram that resizes takes any other");
    }

    /// What was recorded, ns.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    fn quantile_ns(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }
}

/// Latencies that are noted first and counted some at a time: the counters of many lanes do not fit into
/// a cache together, and a miss takes longer than a tenth of a call.
#[derive(Debug)]
pub(crate) struct Recorder {
    noted: Vec<Duration>,
    counted: Latencies,
}

impl Recorder {
    /// So many are counted at a time.
    const NOTED_MAX: usize = 64;

    /// None yet.
    pub(crate) fn new() -> Self {
        Recorder {
            noted: Vec::with_capacity(Self::NOTED_MAX),
            counted: Latencies::new(),
        }
    }

    /// One call.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.noted.push(latency);
        if self.noted.len() == Self::NOTED_MAX {
            self.count_noted();
        }
    }

    /// All of them.
    pub(crate) fn finish(mut self) -> Latencies {
        self.count_noted();
        self.counted
    }

    fn count_noted(&mut self) {
        for latency in self.noted.drain(..) {
            self.counted.record(latency);
        }
    }
}

/// One timed round of one path, or all rounds of it.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) latencies: Latencies,
    pub(crate) elapsed: Duration,
    /// User and system time, of both processes.
    pub(crate) cpu_ns: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Tally {
            latencies: Latencies::new(),
            elapsed: Duration::ZERO,
            cpu_ns: 0,
        }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, round: &Tally) {
        self.latencies.merge(&round.latencies);
        self.elapsed += round.elapsed;
        self.cpu_ns += round.cpu_ns;
    }

    /// The row that the rounds come to.
    pub(crate) fn into_row(self, label: RowLabel) -> CallRow {
        let calls = self.latencies.count();
        let p = |quantile| self.latencies.quantile_ns(quantile);
        CallRow {
            label,
            calls,
            p50_ns: p(0.5),
            p99_ns: p(0.99),
            p999_ns: p(0.999),
            calls_per_s: ratio(to_f64(calls), self.elapsed.as_secs_f64()),
            cpu_ns_per_call: ratio(to_f64(self.cpu_ns), to_f64(calls)),
            tracing: None,
            latencies: self.latencies,
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RowLabel {
    /// A path, or `floor:` and a mechanism.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) size_bytes: usize,
    pub(crate) in_flight: u16,
    /// Calls a second; none when the calls came as fast as possible.
    pub(crate) rate: Option<f64>,
    #[serde(flatten)]
    pub(crate) handler: HandlerWork,
}

/// Calls, or messages of streams, over one path.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CallRow {
    #[serde(flatten)]
    pub(crate) label: RowLabel,
    pub(crate) calls: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) calls_per_s: f64,
    pub(crate) cpu_ns_per_call: f64,
    /// Of a row of traced calls: what that cost.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) tracing: Option<Box<Price>>,
    /// Whole, for the page of `--report`.
    #[serde(skip)]
    pub(crate) latencies: Latencies,
}

/// Connections that do nothing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) path: String,
    /// Always `idle`.
    pub(crate) kind: &'static str,
    pub(crate) connections: u32,
    pub(crate) cpu_ns_per_s: f64,
    pub(crate) bytes_per_connection: f64,
}

/// A row of the result.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Calls(CallRow),
    Idle(IdleRow),
}

/// `above / below`, and zero where nothing was measured: JSON has no NaN.
pub(crate) fn ratio(above: f64, below: f64) -> f64 {
    if below > 0.0 { above / below } else { 0.0 }
}

/// Counts and nanoseconds as the figures of a report: exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> RowLabel {
        RowLabel {
            path: "shm".to_owned(),
            kind: Kind::Unary,
            size_bytes: 64,
            in_flight: 1,
            rate: None,
            handler: HandlerWork::default(),
        }
    }

    fn round(latencies_ns: impl IntoIterator<Item = u64>, elapsed_ms: u64, cpu_ns: u64) -> Tally {
        let mut tally = Tally::new();
        for latency_ns in latencies_ns {
            tally.latencies.record(Duration::from_nanos(latency_ns));
        }
        tally.elapsed = Duration::from_millis(elapsed_ms);
        tally.cpu_ns = cpu_ns;
        tally
    }

    #[test]
    fn nothing_that_was_noted_is_left_uncounted() {
        for calls in [0, 1, 64, 65, 200] {
            let mut recorder = Recorder::new();
            (0..calls).for_each(|_| recorder.record(Duration::from_micros(3)));
            assert_eq!(recorder.finish().count(), calls);
        }
    }

    #[test]
    fn a_row_is_of_all_rounds() {
        let mut total = Tally::new();
        total.add(&round((1..=600).map(|n| n * 1000), 300, 600_000));
        total.add(&round((601..=1000).map(|n| n * 1000), 200, 400_000));
        let row = total.into_row(label());
        assert_eq!(row.calls, 1000);
        let within = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 1000;
        assert!(within(row.p50_ns, 500_000), "{}", row.p50_ns);
        assert!(within(row.p99_ns, 990_000), "{}", row.p99_ns);
        assert!(within(row.p999_ns, 999_000), "{}", row.p999_ns);
        assert!((row.calls_per_s - 2000.0).abs() < 1e-6);
        assert!((row.cpu_ns_per_call - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn a_block_counts_its_messages() {
        let mut latencies = Latencies::new();
        latencies.record_each(Duration::from_nanos(6400), 64);
        assert_eq!(latencies.count(), 64);
        assert_eq!(latencies.quantile_ns(0.5), 100);
    }

    #[test]
    fn no_calls_make_zeros() {
        let row = Tally::new().into_row(label());
        assert_eq!((row.calls, row.p50_ns), (0, 0));
        assert!(row.calls_per_s == 0.0 && row.cpu_ns_per_call == 0.0);
    }

    #[test]
    fn rows_have_the_names_of_the_contract() {
        let row = Row::Calls(Tally::new().into_row(label()));
        let json = serde_json::to_value(&row).unwrap();
        let mut names: Vec<_> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "calls",
                "calls_per_s",
                "cpu_ns_per_call",
                "handler_sleep_us",
                "handler_us",
                "in_flight",
                "kind",
                "p50_ns",
                "p999_ns",
                "p99_ns",
                "path",
                "rate",
                "size_bytes"
            ]
        );
        assert_eq!(json["kind"], "unary");
        assert!(json["rate"].is_null());
    }
}
