//! What came of all rounds, and the bars that it is held to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::round::{Choice, Judged};

/// Bounds how long after the signal a call ends, beside the kernel's time to end the process.
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
    /// The longest that the kernel took to end a process.
    dying: Duration,
    failed: usize,
}

#[derive(Debug)]
pub(crate) struct Table {
    began: Instant,
    rows: BTreeMap<String, Row>,
    lateness: Vec<Duration>,
    /// Calls that ended later than [`PROMPT`].
    late: usize,
    /// Those of them that the kernel accounts for: it took as long to end the process.
    late_by_kernel: usize,
    resident_bytes: Vec<usize>,
    failed: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            rows: BTreeMap::new(),
            lateness: Vec::new(),
            late: 0,
            late_by_kernel: 0,
            resident_bytes: Vec::new(),
            failed: 0,
        }
    }

    /// Adds a round, and says at once what was wrong with it.
    pub(crate) fn add(&mut self, choice: &Choice, judged: Judged) {
        let Judged {
            calls,
            lateness,
            dying,
            mut problems,
            resident_bytes,
        } = judged;
        let worst = lateness.iter().max().copied().unwrap_or_default();
        let late = |late: &&Duration| **late > PROMPT;
        self.late += lateness.iter().filter(late).count();
        let is_prompt = |after: &&Duration| after.saturating_sub(dying) <= PROMPT;
        let late = lateness.iter().filter(late);
        self.late_by_kernel += late.filter(is_prompt).count();
        if worst.saturating_sub(dying) > LONGEST {
            problems.push(format!("a call ended {worst:?} after the signal"));
        } else if worst > PROMPT {
            println!(
                "late: {choice}: {worst:?}, of a process that ended after {dying:?}; repeat with --rounds 1 --seed {}",
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
        row.dying = row.dying.max(dying);
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
        self.failed == 0
            && self.late - self.late_by_kernel <= self.lateness.len().div_ceil(LATE_ONE_IN)
            && self.growth_bytes() <= GROWTH_BYTES
    }

    pub(crate) fn print(&mut self) {
        println!(
            "{:<28} {:>6} {:>8} {:>9} {:>9} {:>9} {:>6}",
            "transport, victim, signals",
            "rounds",
            "calls",
            "in flight",
            "worst ms",
            "dying ms",
            "failed"
        );
        for (name, row) in &self.rows {
            let Row {
                rounds,
                calls,
                in_flight,
                worst,
                dying,
                failed,
            } = row;
            let (worst, dying) = (worst.as_secs_f64() * 1e3, dying.as_secs_f64() * 1e3);
            println!(
                "{name:<28} {rounds:>6} {calls:>8} {in_flight:>9} {worst:>9.2} {dying:>9.2} {failed:>6}"
            );
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
             {:.2} (p99.9), {:.2} (worst); {} after more than {} ms, {} of them because the kernel took as long \
             to end the process",
            self.lateness.len(),
            ms(0.5),
            ms(0.99),
            ms(0.999),
            ms(1.0),
            self.late,
            PROMPT.as_millis(),
            self.late_by_kernel,
        );
        println!(
            "{} KiB more memory at the end; {} rounds failed; {:.0} s",
            self.growth_bytes() >> 10,
            self.failed,
            self.began.elapsed().as_secs_f64()
        );
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
