//! What came of all rounds, and the bars that it is held to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::round::{Choice, Judged};

/// What an ended call may take from the signal.
const PROMPT: Duration = Duration::from_millis(100);
/// The longest that one may take.
const LONGEST: Duration = Duration::from_secs(1);
/// One call in so many may be later than [`PROMPT`].
const LATE_ONE_IN: usize = 1000;
/// What the process may grow by from its second tenth of the rounds to its last.
const GROWTH_BYTES: usize = 8 << 20;
/// Rounds after which growth says something.
const ROUNDS_FOR_GROWTH: usize = 100;

#[derive(Debug, Default)]
struct Row {
    rounds: usize,
    calls: u64,
    in_flight: usize,
    worst: Duration,
    failed: usize,
}

#[derive(Debug)]
pub(crate) struct Table {
    began: Instant,
    rows: BTreeMap<String, Row>,
    lateness: Vec<Duration>,
    resident_bytes: Vec<usize>,
    failed: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            rows: BTreeMap::new(),
            lateness: Vec::new(),
            resident_bytes: Vec::new(),
            failed: 0,
        }
    }

    /// Adds a round, and says at once what was wrong with it.
    pub(crate) fn add(&mut self, choice: &Choice, judged: Judged) {
        let Judged {
            calls,
            lateness,
            mut problems,
            resident_bytes,
        } = judged;
        let worst = lateness.iter().max().copied().unwrap_or_default();
        if worst > LONGEST {
            problems.push(format!("a call ended {worst:?} after the signal"));
        } else if worst > PROMPT {
            println!(
                "late: {choice}: {worst:?}; repeat with --rounds 1 --seed {}",
                choice.seed
            );
        }
        for problem in &problems {
            println!(
                "FAILED: {choice}: {problem}; repeat with --rounds 1 --seed {}",
                choice.seed
            );
        }
        let failed = usize::from(!problems.is_empty());
        self.failed += failed;
        self.resident_bytes.push(resident_bytes);
        let row = self.rows.entry(choice.to_string()).or_default();
        row.rounds += 1;
        row.calls += calls;
        row.in_flight += lateness.len();
        row.worst = row.worst.max(worst);
        row.failed += failed;
        self.lateness.extend(lateness);
    }

    /// Adds a problem that one of several rounds has left.
    pub(crate) fn add_problem_of_rounds(&mut self, seeds: &Range<u64>, problem: &str) {
        let (first, count) = (seeds.start, seeds.end - seeds.start);
        println!("FAILED: {problem}; repeat with --rounds {count} --seed {first}");
        self.failed += 1;
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    pub(crate) fn is_passed(&self) -> bool {
        let late = self.late();
        self.failed == 0
            && late <= self.lateness.len().div_ceil(LATE_ONE_IN)
            && self.growth_bytes() <= GROWTH_BYTES
    }

    pub(crate) fn print(&mut self) {
        println!(
            "{:<28} {:>6} {:>8} {:>9} {:>9} {:>6}",
            "transport, victim, signals", "rounds", "calls", "in flight", "worst ms", "failed"
        );
        for (name, row) in &self.rows {
            let Row {
                rounds,
                calls,
                in_flight,
                worst,
                failed,
            } = row;
            let worst = worst.as_secs_f64() * 1e3;
            println!("{name:<28} {rounds:>6} {calls:>8} {in_flight:>9} {worst:>9.2} {failed:>6}");
        }
        self.lateness.sort_unstable();
        let ms = |part: f64| {
            let last = self.lateness.len().saturating_sub(1);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index into as many"
            )]
            let at = (last as f64 * part) as usize;
            self.lateness
                .get(at)
                .map_or(0.0, |late| late.as_secs_f64() * 1e3)
        };
        println!(
            "{} calls in flight at the last signal: they ended after {:.2} ms (median), {:.2} (p99), \
             {:.2} (p99.9), {:.2} (worst); {} after more than {} ms",
            self.lateness.len(),
            ms(0.5),
            ms(0.99),
            ms(0.999),
            ms(1.0),
            self.late(),
            PROMPT.as_millis(),
        );
        println!(
            "{} KiB more memory at the end; {} rounds failed; {:.0} s",
            self.growth_bytes() >> 10,
            self.failed,
            self.began.elapsed().as_secs_f64()
        );
    }

    fn late(&self) -> usize {
        self.lateness.iter().filter(|late| **late > PROMPT).count()
    }

    /// From the second tenth of the rounds to the last one, by their medians.
    fn growth_bytes(&self) -> usize {
        let len = self.resident_bytes.len();
        if len < ROUNDS_FOR_GROWTH {
            return 0;
        }
        let tenth = |from: usize| {
            let mut some = self.resident_bytes[from..from + len / 10].to_vec();
            some.sort_unstable();
            some[some.len() / 2]
        };
        tenth(len - len / 10).saturating_sub(tenth(len / 10))
    }
}
