//! The bars that the project holds itself to, checked against the rows of one run.
//!
//! Each is a ratio within the run, so that it holds on a machine that is slow, noisy or neither.

use std::fmt;

use ringway_report::words::{size, three_digits};

use super::Report;
use crate::compare::measure::{CallRow, IdleRow, Row, ratio, to_f64};
use crate::compare::options::Kind;

/// The rate of the paced bars, calls a second.
const PACED_RATE: f64 = 1000.0;
/// How many busy processes the crowded bars have beside them.
const CROWD: u16 = 2;
/// How many connections the idle bars watch.
const IDLE_CONNECTIONS: u32 = 100;

/// What a call that is not recorded may cost more, ns.
const UNRECORDED_NS_MAX: f64 = 60.0;
/// The share of traces that the other bar of tracing has recorded, and the share of the calls/s
/// that is left then.
const RECORDED: f64 = 0.01;
const RECORDED_RATIO_MIN: f64 = 0.9;

/// A figure, and what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    figure: String,
    found: String,
    wanted: String,
    met: bool,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.met { "met   " } else { "MISSED" };
        write!(
            f,
            "{met} {} = {} (bar {})",
            self.figure, self.found, self.wanted
        )
    }
}

/// All bars that the report has the rows for.
pub(super) fn bars(report: &Report) -> Vec<Bar> {
    let run = Run { report };
    if !report.config.handler.is_none() {
        return run.working().into_iter().flatten().collect();
    }
    let found = match (report.config.busy, report.config.rate) {
        (CROWD, None) => run.crowded(),
        (0, None) => run.unhindered(),
        (0, Some(rate)) if rate == PACED_RATE => run.paced(),
        _ => Vec::new(),
    };
    let traced = match (report.config.busy, report.config.rate) {
        (0, None) => run.traced(),
        _ => Vec::new(),
    };
    let found = found.into_iter().chain(traced).chain(run.idle());
    found.flatten().collect()
}

/// What is read off a row.
type Read = fn(&CallRow) -> f64;

fn p50(row: &CallRow) -> f64 {
    to_f64(row.p50_ns)
}

fn p99(row: &CallRow) -> f64 {
    to_f64(row.p99_ns)
}

fn calls_per_s(row: &CallRow) -> f64 {
    row.calls_per_s
}

fn cpu(row: &CallRow) -> f64 {
    row.cpu_ns_per_call
}

/// Kind, size and number in flight of the rows to compare.
#[derive(Clone, Copy)]
struct Shape(Kind, usize, u16);

const ONE_CALL: Shape = Shape(Kind::Unary, 64, 1);
const MANY_CALLS: Shape = Shape(Kind::Unary, 64, 64);
const WORKING_CALLS: Shape = Shape(Kind::Unary, 64, 16);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape(kind, size_bytes, in_flight) = *self;
        write!(f, "{kind} {}, {in_flight} in flight", size(size_bytes))
    }
}

struct Run<'a> {
    report: &'a Report,
}

impl Run<'_> {
    fn unhindered(&self) -> Vec<Option<Bar>> {
        let at = |kind, size_bytes| Shape(kind, size_bytes, 1);
        vec![
            self.faster("shm", ONE_CALL, ("p50", p50), 80.0),
            self.near_the_floor(),
            self.tail(),
            self.more("shm", MANY_CALLS, 18.0, Some(25.0)),
            self.faster("shm", at(Kind::Unary, 64 << 10), ("p50", p50), 12.0),
            self.faster("shm", at(Kind::Unary, 1 << 20), ("p50", p50), 10.0),
            self.more("shm", at(Kind::ServerStream, 64), 1.5, None),
            self.more("shm", at(Kind::ServerStream, 4 << 10), 5.0, None),
            self.faster("shm", at(Kind::Bidi, 64), ("p50", p50), 40.0),
            self.join(),
            self.faster("shm-tonic", ONE_CALL, ("p50", p50), 25.0),
            self.socket(),
            self.more("socket", MANY_CALLS, 4.0, None),
            self.faster("socket-epoll", ONE_CALL, ("p50", p50), 1.3),
            self.more("socket-epoll", MANY_CALLS, 3.0, None),
        ]
    }

    /// Handlers that compute: calls run side by side on all workers, as tonic's do.
    fn working(&self) -> Vec<Option<Bar>> {
        let config = &self.report.config;
        let work = config.handler;
        let bar = match (work.handler_us, work.handler_sleep_us) {
            (1000, 0) => 1.05,
            (100, 0) => 1.5,
            _ => return Vec::new(),
        };
        if config.busy > 0 || config.rate.is_some() {
            return Vec::new();
        }
        let found = self.more("shm", WORKING_CALLS, bar, None);
        vec![found.map(|bar| Bar {
            figure: format!("{}, {work}", bar.figure),
            ..bar
        })]
    }

    fn paced(&self) -> Vec<Option<Bar>> {
        vec![
            self.faster("shm", ONE_CALL, ("paced p50", p50), 2.5),
            self.faster("shm", ONE_CALL, ("paced CPU", cpu), 2.0),
        ]
    }

    fn crowded(&self) -> Vec<Option<Bar>> {
        let among = |name, read| {
            let bar = self.faster("shm", ONE_CALL, (name, read), 1.0);
            bar.map(|bar| Bar {
                wanted: format!("{}, goal 4", bar.wanted),
                ..bar
            })
        };
        vec![
            among("p50 beside 2 busy processes", p50 as Read),
            among("p99 beside 2 busy processes", p99),
        ]
    }

    /// `grpc-unix` over `path`, in something of which less is better.
    fn faster(&self, path: &str, at: Shape, (name, read): (&str, Read), bar: f64) -> Option<Bar> {
        let found = ratio(read(self.row("grpc-unix", at)?), read(self.row(path, at)?));
        Some(Bar {
            figure: format!("{at}: grpc-unix / {path} {name}"),
            found: three_digits(found),
            wanted: bar.to_string(),
            met: found >= bar,
        })
    }

    /// `path` over `grpc-unix`, in calls or messages a second.
    fn more(&self, path: &str, at: Shape, bar: f64, goal: Option<f64>) -> Option<Bar> {
        let ours = calls_per_s(self.row(path, at)?);
        let found = ratio(ours, calls_per_s(self.row("grpc-unix", at)?));
        Some(Bar {
            figure: format!("{at}: {path} / grpc-unix calls/s"),
            found: three_digits(found),
            wanted: goal.map_or(bar.to_string(), |goal| format!("{bar}, goal {goal}")),
            met: found >= bar,
        })
    }

    fn near_the_floor(&self) -> Option<Bar> {
        let (ours_ns, floor_ns) = (
            p50(self.row("shm", ONE_CALL)?),
            p50(self.row("floor:spin", ONE_CALL)?),
        );
        let times = ratio(ours_ns, floor_ns);
        let above_us = (ours_ns - floor_ns) / 1e3;
        Some(Bar {
            figure: format!("{ONE_CALL}: shm / floor:spin p50"),
            found: format!("{}, {above_us:.2} µs above", three_digits(times)),
            wanted: "at most 4.5, or at most 0.6 µs above".to_owned(),
            met: times <= 4.5 || above_us <= 0.6,
        })
    }

    /// Eight calls cost less than eight times one: the second is on its way before the first is answered.
    fn join(&self) -> Option<Bar> {
        let eight = Shape(Kind::Join, 64, 1);
        let times = ratio(
            p50(self.row("shm", eight)?),
            p50(self.row("shm", ONE_CALL)?),
        );
        Some(Bar {
            figure: "eight calls of 64 B in one join!: shm p50 / that of one".to_owned(),
            found: three_digits(times),
            wanted: "at most 4".to_owned(),
            met: times <= 4.0,
        })
    }

    fn tail(&self) -> Option<Bar> {
        let ours_ns = p99(self.row("shm", ONE_CALL)?);
        let found = ratio(ours_ns, p50(self.row("grpc-unix", ONE_CALL)?));
        Some(Bar {
            figure: format!("{ONE_CALL}: shm p99 / grpc-unix p50"),
            found: three_digits(found),
            wanted: "at most 0.25".to_owned(),
            met: found <= 0.25,
        })
    }

    fn socket(&self) -> Option<Bar> {
        let ours_ns = p50(self.row("socket", ONE_CALL)?);
        let faster = ratio(p50(self.row("grpc-unix", ONE_CALL)?), ours_ns);
        let floor = self.row("floor:unix", ONE_CALL);
        let over_floor = floor.map(|floor| ratio(ours_ns, p50(floor)));
        let beside = over_floor.map_or(String::new(), |times| {
            format!(", socket / floor:unix {}", three_digits(times))
        });
        Some(Bar {
            figure: format!("{ONE_CALL}: grpc-unix / socket p50"),
            found: format!("{}{beside}", three_digits(faster)),
            wanted: "1.5, or at most 1.25 times floor:unix".to_owned(),
            met: faster >= 1.5 || over_floor.is_some_and(|times| times <= 1.25),
        })
    }

    /// What tracing may cost: next to nothing where a call is not recorded, a tenth of the
    /// throughput where one in a hundred is.
    fn traced(&self) -> Vec<Option<Bar>> {
        let shapes = [ONE_CALL, MANY_CALLS];
        shapes.map(|at| self.price(at)).into()
    }

    fn price(&self, at: Shape) -> Option<Bar> {
        let price = self.row("shm+trace", at)?.tracing.as_ref()?;
        if price.trace == 0.0 {
            return Some(Bar {
                figure: format!("{at}: shm, tracing that records nothing"),
                found: format!(
                    "{:.0} ± {:.0} ns more a call",
                    price.extra_ns, price.extra_ns_error
                ),
                wanted: format!("at most {UNRECORDED_NS_MAX} ns"),
                met: price.extra_ns <= UNRECORDED_NS_MAX,
            });
        }
        (price.trace == RECORDED).then(|| Bar {
            figure: format!("{at}: shm, tracing that records 1 %"),
            found: format!("{:.1} % of the calls/s", price.calls_per_s_ratio * 100.0),
            wanted: format!("at least {} %", RECORDED_RATIO_MIN * 100.0),
            met: price.calls_per_s_ratio >= RECORDED_RATIO_MIN,
        })
    }

    fn idle(&self) -> Vec<Option<Bar>> {
        let row = self.report.rows.iter().find_map(|row| match row {
            Row::Idle(row) if row.path == "shm" && row.connections == IDLE_CONNECTIONS => Some(row),
            _ => None,
        });
        vec![row.map(idle_cpu), row.map(idle_memory)]
    }

    fn row(&self, path: &str, Shape(kind, size_bytes, in_flight): Shape) -> Option<&CallRow> {
        self.report.rows.iter().find_map(|row| match row {
            Row::Calls(row)
                if row.label.path == path
                    && row.label.kind == kind
                    && row.label.size_bytes == size_bytes
                    && row.label.in_flight == in_flight
                    && row.calls > 0 =>
            {
                Some(row)
            }
            _ => None,
        })
    }
}

fn idle_cpu(row: &IdleRow) -> Bar {
    let percent = row.cpu_ns_per_s / 1e7;
    Bar {
        figure: format!("{IDLE_CONNECTIONS} idle shm connections: CPU"),
        found: format!("{percent:.2} % of a core"),
        wanted: "below 1 %".to_owned(),
        met: percent < 1.0,
    }
}

fn idle_memory(row: &IdleRow) -> Bar {
    let kib = row.bytes_per_connection / 1024.0;
    Bar {
        figure: format!("{IDLE_CONNECTIONS} idle shm connections: memory of each"),
        found: format!("{kib:.1} KiB"),
        wanted: "below 128 KiB".to_owned(),
        met: kib < 128.0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::compare::machine::Machine;
    use crate::compare::measure::{Latencies, RowLabel};
    use crate::compare::options::Options;
    use crate::compare::pairs::Price;
    use crate::compare::report::Config;
    use crate::compare::work::HandlerWork;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    pub(in super::super) fn report(rows: Vec<Row>) -> Report {
        Report {
            machine: Machine::this(),
            config: Config::new(&Line::parse_from(["compare"]).options, 4),
            rows,
        }
    }

    fn row(path: &str, Shape(kind, size_bytes, in_flight): Shape, p50_ns: u64) -> Row {
        Row::Calls(CallRow {
            label: RowLabel {
                path: path.to_owned(),
                kind,
                size_bytes,
                in_flight,
                rate: None,
                handler: HandlerWork::default(),
            },
            calls: 1000,
            p50_ns,
            p99_ns: p50_ns * 2,
            p999_ns: p50_ns * 3,
            calls_per_s: 1e9 / to_f64(p50_ns),
            cpu_ns_per_call: to_f64(p50_ns),
            tracing: None,
            latencies: Latencies::new(),
        })
    }

    fn said(report: &Report) -> Vec<String> {
        bars(report).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_the_rows_allow_is_said() {
        assert!(said(&report(vec![row("shm", ONE_CALL, 1000)])).is_empty());
        let two = report(vec![
            row("shm", ONE_CALL, 1000),
            row("grpc-unix", ONE_CALL, 85_200),
        ]);
        assert_eq!(
            said(&two),
            [
                "met    unary 64 B, 1 in flight: grpc-unix / shm p50 = 85.2 (bar 80)",
                "met    unary 64 B, 1 in flight: shm p99 / grpc-unix p50 = 0.02 (bar at most 0.25)",
            ]
        );
    }

    #[test]
    fn a_missed_bar_says_so() {
        let slow = report(vec![
            row("shm", MANY_CALLS, 100),
            row("grpc-unix", MANY_CALLS, 1000),
        ]);
        let said = said(&slow);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("MISSED"), "{}", said[0]);
        assert!(
            said[0].ends_with("calls/s = 10.0 (bar 18, goal 25)"),
            "{}",
            said[0]
        );
    }

    #[test]
    fn either_floor_bar_will_do() {
        let near = |ours, floor| {
            said(&report(vec![
                row("shm", ONE_CALL, ours),
                row("floor:spin", ONE_CALL, floor),
            ]))
        };
        assert!(near(640, 80)[0].starts_with("met"), "0.56 µs above");
        assert!(near(1300, 300)[0].starts_with("met"), "4.3 times");
        assert!(near(1700, 300)[0].starts_with("MISSED"));
    }

    #[test]
    fn eight_calls_at_once_may_take_as_long_as_four() {
        let join = Shape(Kind::Join, 64, 1);
        let eight = |took| report(vec![row("shm", ONE_CALL, 1000), row("shm", join, took)]);
        assert!(said(&eight(4000))[0].starts_with("met    eight calls of 64 B"));
        assert!(said(&eight(4010))[0].starts_with("MISSED"));
    }

    #[test]
    fn paced_and_crowded_runs_have_bars_of_their_own() {
        let rows = || {
            vec![
                row("shm", ONE_CALL, 30_000),
                row("grpc-unix", ONE_CALL, 90_000),
            ]
        };
        let mut paced = report(rows());
        paced.config.rate = Some(1000.0);
        assert_eq!(said(&paced).len(), 2);
        assert!(said(&paced)[1].contains("paced CPU = 3.00 (bar 2)"));
        let mut crowded = report(rows());
        crowded.config.busy = 2;
        assert_eq!(said(&crowded).len(), 2);
        assert!(said(&crowded)[0].contains("(bar 1, goal 4)"));
        crowded.config.busy = 3;
        assert!(said(&crowded).is_empty());
    }

    #[test]
    fn handlers_that_compute_have_bars_of_their_own() {
        let working = |handler_us, ours| {
            let mut report = report(vec![
                row("shm", WORKING_CALLS, ours),
                row("grpc-unix", WORKING_CALLS, 1_500),
                row("shm", ONE_CALL, 1),
                row("grpc-unix", ONE_CALL, 1),
            ]);
            report.config.handler.handler_us = handler_us;
            said(&report)
        };
        assert_eq!(
            working(100, 1_000),
            [
                "met    unary 64 B, 16 in flight: shm / grpc-unix calls/s, handlers that compute for 100 µs = 1.50 (bar 1.5)"
            ]
        );
        assert!(working(100, 1_010)[0].starts_with("MISSED"));
        assert!(working(1_000, 1_420)[0].starts_with("met"));
        assert!(working(1_000, 1_440)[0].starts_with("MISSED"));
        assert!(working(20, 1).is_empty(), "no bar was set for these");
    }

    #[test]
    fn tracing_is_held_to_its_price() {
        let traced = |at, trace, extra_ns, calls_per_s_ratio| {
            let mut row = row("shm+trace", at, 1000);
            if let Row::Calls(row) = &mut row {
                row.tracing = Some(Box::new(Price {
                    trace,
                    pairs: 8,
                    mean_ns_without: 1000.0,
                    mean_ns_with: 1000.0 + extra_ns,
                    extra_ns,
                    extra_ns_error: 4.0,
                    calls_per_s_without: 1e6,
                    calls_per_s_ratio,
                    spans_sent: 0,
                    spans_lost: 0,
                }));
            }
            said(&report(vec![row]))
        };
        assert_eq!(
            traced(ONE_CALL, 0.0, 25.0, 0.97),
            [
                "met    unary 64 B, 1 in flight: shm, tracing that records nothing = 25 ± 4 ns more a call (bar at most 60 ns)"
            ]
        );
        assert!(traced(MANY_CALLS, 0.0, 61.0, 1.0)[0].starts_with("MISSED"));
        assert_eq!(
            traced(MANY_CALLS, 0.01, 70.0, 0.93),
            [
                "met    unary 64 B, 64 in flight: shm, tracing that records 1 % = 93.0 % of the calls/s (bar at least 90 %)"
            ]
        );
        assert!(traced(ONE_CALL, 0.01, 10.0, 0.89)[0].starts_with("MISSED"));
        assert!(traced(ONE_CALL, 0.5, 1000.0, 0.1).is_empty());
    }

    #[test]
    fn idle_connections_are_held_to_cpu_and_memory() {
        let idle = Row::Idle(IdleRow {
            path: "shm".to_owned(),
            kind: "idle",
            connections: 100,
            cpu_ns_per_s: 20e6,
            bytes_per_connection: 65_536.0,
        });
        let said = said(&report(vec![idle]));
        assert_eq!(
            said[0],
            "MISSED 100 idle shm connections: CPU = 2.00 % of a core (bar below 1 %)"
        );
        assert!(said[1].starts_with("met") && said[1].contains("64.0 KiB"));
    }
}
