//! What the figures come to, in a sentence that they alone decide.

use crate::page::{Group, Page, Row, Unit};
use crate::paths::{is_burdened, is_grpc, is_one_process, known};
use crate::words::{count, time, times};

/// A difference below it is none that a person should act on.
const NOTABLE: f64 = 1.1;

/// What a person reads first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) headline: String,
    /// The figures behind it, and why they are so.
    pub(crate) because: Vec<String>,
}

impl Page {
    /// The group that the verdict is about: single calls before streams, one at a time before many,
    /// small before large.
    pub(crate) fn foremost(&self) -> Option<&Group> {
        let timed = self
            .groups
            .iter()
            .filter(|group| group.unit != Unit::Hop && group.timed().next().is_some());
        timed.min_by_key(|group| {
            (
                group.unit == Unit::Message,
                group.in_flight,
                group.size_bytes,
            )
        })
    }

    /// The group that shows how much gets through: the foremost, with the most in flight.
    pub(crate) fn busiest(&self) -> Option<&Group> {
        let foremost = self.foremost()?;
        let alike = self.groups.iter().filter(|group| {
            let shape = (&group.kind, group.size_bytes, group.rate.is_some());
            shape == (&foremost.kind, foremost.size_bytes, false) && group.timed().next().is_some()
        });
        alike.max_by_key(|group| group.in_flight)
    }

    /// What the figures come to.
    pub(crate) fn verdict(&self) -> Verdict {
        let Some(group) = self.foremost() else {
            return Verdict {
                headline: "Nothing was timed".to_owned(),
                because: Vec::new(),
            };
        };
        let Some(best) = best(group) else {
            return Verdict {
                headline: format!("{} was timed, nothing to choose from", group.title()),
                because: Vec::new(),
            };
        };
        match rival(group, best) {
            Some(rival) => self.compared(group, best, rival),
            None => alone(group, best),
        }
    }

    fn compared(&self, group: &Group, best: &Row, rival: &Row) -> Verdict {
        let winner = known(&best.path);
        let loser = match is_grpc(&rival.path) {
            true => "gRPC".to_owned(),
            false => known(&rival.path).spoken,
        };
        let gain = judged(group, rival) / judged(group, best);
        let gained = match by_throughput(group) {
            _ if gain < NOTABLE => format!("about as fast as {loser}"),
            true => format!("{}× the {} of {loser}", times(gain), group.unit.many()),
            false => format!("{}× faster than {loser}", times(gain)),
        };
        let cpu = cpu_words(best, rival).map_or(String::new(), |words| format!(", {words}"));
        let mut because = vec![latencies(group, best, rival)];
        because.extend(
            self.busiest()
                .and_then(|busiest| throughput(busiest, best, rival)),
        );
        because.push(winner.why.to_owned());
        Verdict {
            headline: format!("{}: {gained}{cpu}", winner.label),
            because: because
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect(),
        }
    }
}

/// The fastest row between processes, or inside one if there is no other; metadata or a trace is a burden
/// that the others do not carry.
fn best(group: &Group) -> Option<&Row> {
    let fastest = |within_one: bool| {
        let rows = group
            .timed()
            .filter(|row| !is_burdened(&row.path) && is_one_process(&row.path) == within_one);
        rows.min_by(|a, b| judged(group, a).total_cmp(&judged(group, b)))
    };
    fastest(false).or_else(|| fastest(true))
}

/// What `best` is compared with: the fastest gRPC; if it is that itself, or there is none, the next.
fn rival<'a>(group: &'a Group, best: &Row) -> Option<&'a Row> {
    let others = || {
        let others = group.timed().filter(|row| {
            row.path != best.path && !is_burdened(&row.path) && !is_one_process(&row.path)
        });
        others.map(|row| (judged(group, row), row))
    };
    let grpc = others().filter(|(_, row)| is_grpc(&row.path));
    let least = |a: &(f64, &Row), b: &(f64, &Row)| a.0.total_cmp(&b.0);
    let found = match is_grpc(&best.path) {
        true => others()
            .filter(|(_, row)| !is_grpc(&row.path))
            .min_by(least),
        false => grpc.min_by(least),
    };
    found.or_else(|| others().min_by(least)).map(|(_, row)| row)
}

/// With many in flight and no schedule, latency is what the queue makes it, and throughput counts.
fn by_throughput(group: &Group) -> bool {
    group.in_flight > 1
        && group.rate.is_none()
        && group
            .timed()
            .all(|row| row.per_s.is_some_and(|per_s| per_s > 0.0))
}

/// What the group is judged by, ns: less is better.
fn judged(group: &Group, row: &Row) -> f64 {
    match row.per_s.filter(|_| by_throughput(group)) {
        Some(per_s) => 1e9 / per_s,
        None => row.p50_ns().max(1.0),
    }
}

fn cpu_words(best: &Row, rival: &Row) -> Option<String> {
    let (ours, theirs) = (best.cpu_ns?, rival.cpu_ns?);
    if ours <= 0.0 || theirs <= 0.0 {
        return None;
    }
    Some(match theirs / ours {
        less if less >= NOTABLE => format!("{}× less CPU", times(less)),
        more if more <= 1.0 / NOTABLE => format!("but {}× the CPU", times(1.0 / more)),
        _ => "for as much CPU".to_owned(),
    })
}

fn latencies(group: &Group, best: &Row, rival: &Row) -> String {
    format!(
        "{} takes {} over {}, {} over {}: medians, {}.",
        capital(group.unit.a()),
        time(best.p50_ns()),
        known(&best.path).spoken,
        time(rival.p50_ns()),
        known(&rival.path).spoken,
        group.title(),
    )
}

fn throughput(group: &Group, best: &Row, rival: &Row) -> Option<String> {
    let per_s = |path: &str| group.timed().find(|row| row.path == path)?.per_s;
    let (ours, theirs) = (per_s(&best.path)?, per_s(&rival.path)?);
    Some(format!(
        "{} in flight: {} {} a second against {}.",
        group.in_flight,
        count(ours),
        group.unit.many(),
        count(theirs),
    ))
}

fn alone(group: &Group, only: &Row) -> Verdict {
    let path = known(&only.path);
    Verdict {
        headline: format!("{}: {} {}", path.label, time(only.p50_ns()), group.unit.a()),
        because: vec![
            format!(
                "Median of {} {}, {}. No other path was timed beside it: --paths names them.",
                count(crate::page::float(only.latency_ns.len())),
                group.unit.many(),
                group.title(),
            ),
            path.why.to_owned(),
        ],
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase());
    first.into_iter().flatten().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn row(path: &str, p50_ns: u64, per_s: f64, cpu_ns: f64) -> Row {
        let mut latency_ns = Histogram::new(3).unwrap();
        latency_ns.record(p50_ns).unwrap();
        Row {
            path: path.to_owned(),
            latency_ns,
            per_s: Some(per_s),
            cpu_ns: Some(cpu_ns),
        }
    }

    fn group(unit: Unit, in_flight: usize, rows: Vec<Row>) -> Group {
        Group {
            unit,
            kind: "unary".to_owned(),
            size_bytes: None,
            in_flight,
            rate: None,
            handler: None,
            rows,
        }
    }

    fn headline(groups: Vec<Group>) -> String {
        let page = Page {
            groups,
            ..Page::default()
        };
        page.verdict().headline
    }

    fn of_calls(rows: Vec<Row>) -> String {
        headline(vec![group(Unit::Call, 1, rows)])
    }

    #[test]
    fn one_call_at_a_time_is_judged_by_latency_against_the_fastest_grpc() {
        let rows = vec![
            row("grpc-tcp", 99_000, 1.0, 9_000.0),
            row("shm", 2_000, 1.0, 4_000.0),
            row("grpc-unix", 80_000, 1.0, 12_000.0),
            row("inproc", 500, 1.0, 1.0),
            row("shm+metadata", 1_000, 1.0, 1.0),
        ];
        assert_eq!(
            of_calls(rows),
            "Shared memory: 40× faster than gRPC, 3.0× less CPU"
        );
    }

    #[test]
    fn many_orders_are_judged_by_how_many_get_through() {
        let rows = vec![
            row("shm", 1_000_000, 14_000.0, 100_000.0),
            row("grpc-tcp", 900_000, 2_000.0, 700_000.0),
        ];
        let orders = group(Unit::Order, 16, rows);
        assert_eq!(
            headline(vec![orders]),
            "Shared memory: 7.0× the orders of gRPC, 7.0× less CPU"
        );
    }

    #[test]
    fn paced_calls_are_judged_by_latency_however_many_are_in_flight() {
        let rows = vec![
            row("shm", 20_000, 1_000.0, 40.0),
            row("grpc-tcp", 130_000, 1_000.0, 140.0),
        ];
        let paced = Group {
            rate: Some(1000.0),
            ..group(Unit::Call, 8, rows)
        };
        assert!(headline(vec![paced]).starts_with("Shared memory: 6.5× faster than gRPC"));
    }

    #[test]
    fn figures_that_speak_for_grpc_or_for_nobody_are_said_as_they_are() {
        let grpc = vec![
            row("shm", 9_000, 1.0, 5.0),
            row("grpc-tcp", 3_000, 1.0, 10.0),
        ];
        assert_eq!(
            of_calls(grpc),
            "gRPC, TCP: 3.0× faster than shared memory, but 2.0× the CPU"
        );
        let even = vec![
            row("shm", 1_000, 1.0, 5.0),
            row("grpc-tcp", 1_050, 1.0, 5.0),
        ];
        assert_eq!(
            of_calls(even),
            "Shared memory: about as fast as gRPC, for as much CPU"
        );
        let local = vec![row("shm", 1_000, 1.0, 0.0), row("socket", 5_000, 1.0, 5.0)];
        assert_eq!(
            of_calls(local),
            "Shared memory: 5.0× faster than a Unix socket by io_uring"
        );
    }

    #[test]
    fn small_single_calls_come_before_all_else() {
        let small = group(Unit::Call, 1, vec![row("shm", 1_750, 1.0, 1.0)]);
        let many = group(Unit::Call, 64, vec![row("shm", 9, 1.0, 1.0)]);
        let stream = group(Unit::Message, 1, vec![row("shm", 8, 1.0, 1.0)]);
        let large = Group {
            size_bytes: Some(1 << 20),
            ..group(Unit::Call, 1, vec![row("shm", 7, 1.0, 1.0)])
        };
        let headline = headline(vec![stream, many, large, small]);
        assert_eq!(headline, "Shared memory: 1.75 µs a call");
    }
}
