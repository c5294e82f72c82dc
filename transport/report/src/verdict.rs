//! What the figures come to, in a sentence that they alone decide.

use crate::page::{Group, Page, Row, Unit};
use crate::paths::{is_dressed, is_grpc, is_one_process, known};
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

/// The fastest row between processes, or inside one if there is no other; metadata is a burden that
/// the others do not carry.
fn best(group: &Group) -> Option<&Row> {
    let fastest = |within_one: bool| {
        let rows = group
            .timed()
            .filter(|row| !is_dressed(&row.path) && is_one_process(&row.path) == within_one);
        rows.min_by(|a, b| judged(group, a).total_cmp(&judged(group, b)))
    };
    fastest(false).or_else(|| fastest(true))
}

/// What `best` is compared with: the fastest gRPC; if it is that itself, or there is none, the next.
fn rival<'a>(group: &'a Group, best: &Row) -> Option<&'a Row> {
    let others = || {
        let others = group.timed().filter(|row| {
            row.path != best.path && !is_dressed(&row.path) && !is_one_process(&row.path)
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
