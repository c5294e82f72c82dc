//! Which rows a comparison has, and in which order they are timed.
//!
//! The machine changes from one second to the next, and what a reader wants is ratios. So rows
//! that will be compared, all paths at one kind, size and number in flight, form a group, and a
//! group's time is dealt out in short rounds: A B C A B C.

use std::fmt;
use std::time::Duration;

use ringway_sys::floor::Mechanism;

use super::measure::RowLabel;
use super::options::{Kind, Options, Path};
use super::work::HandlerWork;

/// How long a round should take.
const ROUND_S: f64 = 0.25;

/// Fewer rounds would not interleave, more would cut a paced round too short.
const ROUNDS_MIN: u16 = 2;
const ROUNDS_MAX: u16 = 40;

/// The size of a floor's message, in bytes.
pub(crate) const FLOOR_SIZE_BYTES: usize = 64;

/// All that is to be timed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    pub(crate) rounds: u16,
    /// What all rounds of a row take.
    pub(crate) seconds: f64,
    /// How long each round of each row takes.
    pub(crate) round: Duration,
}

/// Rows that are timed in turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    pub(crate) size_bytes: usize,
    pub(crate) in_flight: u16,
    pub(crate) rate: Option<f64>,
    pub(crate) handler: HandlerWork,
    pub(crate) subjects: Vec<Subject>,
}

/// What a row times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Calls over a path.
    Path(Path),
    /// The same with metadata and a deadline.
    Dressed(Path),
    /// Calls with tracing and without, in pairs.
    Traced(Path),
    /// A mechanism of the machine without any calls.
    Floor(Mechanism),
}

impl Plan {
    /// The rows that `options` ask for.
    pub(crate) fn new(options: &Options) -> Self {
        let mut groups = if options.times_calls() {
            call_groups(options)
        } else {
            Vec::new()
        };
        if options.floors {
            add_floors(&mut groups);
        }
        groups.retain(|group| !group.subjects.is_empty());
        let rounds = rounds(options.seconds);
        Plan {
            groups,
            rounds,
            seconds: options.seconds,
            round: Duration::from_secs_f64(options.seconds / f64::from(rounds)),
        }
    }

    /// How many timed rounds there will be in all.
    pub(crate) fn total_rounds(&self) -> u64 {
        let subjects = self.groups.iter().flat_map(|group| &group.subjects);
        let rounds = subjects.map(|subject| match subject {
            // The pairs of a row are one step.
            Subject::Traced(_) => 1,
            _ => u64::from(self.rounds),
        });
        rounds.sum()
    }
}

impl Group {
    /// What the row of `subject` is about.
    pub(crate) fn label(&self, subject: Subject) -> RowLabel {
        RowLabel {
            path: subject.to_string(),
            kind: self.kind,
            size_bytes: self.size_bytes,
            in_flight: self.in_flight,
            rate: self.rate,
            handler: self.handler,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Path(path) => path.fmt(f),
            Subject::Dressed(path) => write!(f, "{path}+metadata"),
            Subject::Traced(path) => write!(f, "{path}+trace"),
            Subject::Floor(floor) => write!(f, "floor:{floor}"),
        }
    }
}

fn call_groups(options: &Options) -> Vec<Group> {
    let mut groups = Vec::new();
    for kind in options.kinds() {
        for size_bytes in options.sizes() {
            for in_flight in options.in_flight() {
                groups.push(Group {
                    kind,
                    size_bytes,
                    in_flight,
                    rate: options.rate,
                    handler: options.handler,
                    subjects: subjects(options, kind),
                });
            }
        }
    }
    groups
}

fn subjects(options: &Options, kind: Kind) -> Vec<Subject> {
    let paths = options.paths.iter().copied();
    let paths = paths.filter(|path| path.has(kind, options.rate.is_some()));
    let dressed = paths
        .clone()
        .filter(|path| options.metadata && kind == Kind::Unary && *path != Path::ShmBlocking);
    let traced = paths
        .clone()
        .filter(|path| options.trace.is_some() && path.of_ringway().is_some());
    paths
        .map(Subject::Path)
        .chain(dressed.map(Subject::Dressed))
        .chain(traced.map(Subject::Traced))
        .collect()
}

/// The floors take turns with the calls that are compared with them, if there are any.
fn add_floors(groups: &mut Vec<Group>) {
    let floors = Mechanism::ALL.into_iter().map(Subject::Floor);
    let fitting = |group: &&mut Group| {
        let shape = (group.kind, group.size_bytes, group.in_flight);
        shape == (Kind::Unary, FLOOR_SIZE_BYTES, 1)
            && group.rate.is_none()
            && group.handler.is_none()
    };
    match groups.iter_mut().find(fitting) {
        Some(group) => group.subjects.extend(floors),
        None => groups.push(Group {
            kind: Kind::Unary,
            size_bytes: FLOOR_SIZE_BYTES,
            in_flight: 1,
            rate: None,
            handler: HandlerWork::default(),
            subjects: floors.collect(),
        }),
    }
}

fn rounds(seconds: f64) -> u16 {
    let mut rounds = ROUNDS_MIN;
    while rounds < ROUNDS_MAX && f64::from(rounds) * ROUND_S < seconds {
        rounds += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(line: &str) -> Plan {
        let words = format!("compare {line}");
        Plan::new(&Line::parse_from(words.split_whitespace()).options)
    }

    #[test]
    fn rows_are_the_product_of_what_was_asked() {
        let plan =
            plan("--paths grpc-unix,grpc-tcp --kinds unary,bidi --sizes 64,4096 --in-flight 1,8");
        assert_eq!(plan.groups.len(), 8);
        assert!(plan.groups.iter().all(|group| group.subjects.len() == 2));
        let shapes: Vec<_> = plan
            .groups
            .iter()
            .map(|g| (g.kind, g.size_bytes, g.in_flight))
            .collect();
        assert_eq!(
            shapes[..3],
            [
                (Kind::Unary, 64, 1),
                (Kind::Unary, 64, 8),
                (Kind::Unary, 4096, 1)
            ]
        );
    }

    #[test]
    fn threads_have_unary_rows_alone() {
        let plan = plan("--paths shm,shm-blocking --sizes 64 --in-flight 1");
        let with_threads = plan.groups.iter().filter(|group| group.subjects.len() == 2);
        assert!(with_threads.map(|group| group.kind).eq([Kind::Unary]));
        assert_eq!(plan.groups.len(), 4);
    }

    #[test]
    fn a_rows_seconds_are_dealt_out_in_rounds() {
        let plan = plan("--seconds 2 --paths shm,grpc-unix --kinds unary --sizes 64 --in-flight 1");
        assert_eq!(plan.rounds, 8);
        assert_eq!(plan.round, Duration::from_millis(250));
        assert_eq!(plan.total_rounds(), 16);
        assert_eq!(rounds(0.1), ROUNDS_MIN);
        assert_eq!(rounds(3600.0), ROUNDS_MAX);
    }

    #[test]
    fn floors_stand_beside_the_calls_they_are_compared_with() {
        let beside = plan("--paths shm --kinds bidi,unary --floors");
        let with_floors: Vec<_> = beside
            .groups
            .iter()
            .filter(|g| g.subjects.len() > 1)
            .collect();
        assert_eq!(with_floors.len(), 1);
        let group = with_floors[0];
        assert_eq!(
            (group.kind, group.size_bytes, group.in_flight),
            (Kind::Unary, 64, 1)
        );
        assert_eq!(group.subjects.len(), 9);
    }

    #[test]
    fn floors_have_no_handlers() {
        let working = plan("--paths shm --kinds unary --sizes 64 --handler-us 20 --floors");
        let work: Vec<_> = working
            .groups
            .iter()
            .map(|group| group.handler.handler_us)
            .collect();
        assert_eq!(work, [20, 20, 0]);
        let label = working.groups[0].label(Subject::Path(Path::Shm));
        assert_eq!(label.handler.handler_us, 20);
    }

    #[test]
    fn floors_are_never_paced() {
        let paced = plan("--paths shm --kinds unary --sizes 64 --rate 1000 --floors");
        assert_eq!(paced.groups.len(), 2);
        assert!(paced.groups[1].rate.is_none());
    }

    #[test]
    fn metadata_is_timed_beside_the_calls_without() {
        let plan =
            plan("--paths shm,grpc-unix --kinds unary,bidi --sizes 64 --in-flight 1 --metadata");
        let names = |group: &Group| {
            group
                .subjects
                .iter()
                .map(Subject::to_string)
                .collect::<Vec<_>>()
        };
        let unary = ["shm", "grpc-unix", "shm+metadata", "grpc-unix+metadata"];
        assert_eq!(names(&plan.groups[0]), unary);
        assert_eq!(names(&plan.groups[1]), ["shm", "grpc-unix"]);
    }

    #[test]
    fn traces_are_timed_on_the_paths_that_have_them() {
        let plan =
            plan("--paths shm,grpc-unix,inproc --kinds bidi --sizes 64 --in-flight 1 --trace 0.01");
        let names: Vec<_> = plan.groups[0]
            .subjects
            .iter()
            .map(Subject::to_string)
            .collect();
        let expected = ["shm", "grpc-unix", "inproc", "shm+trace", "inproc+trace"];
        assert_eq!(names, expected);
    }

    #[test]
    fn idle_alone_plans_no_calls() {
        assert!(plan("--idle 10").groups.is_empty());
        assert_eq!(plan("--idle 10 --floors").groups.len(), 1);
    }

    #[test]
    fn floors_are_named_as_floors() {
        assert_eq!(Subject::Floor(Mechanism::Spin).to_string(), "floor:spin");
        assert_eq!(Subject::Path(Path::SocketEpoll).to_string(), "socket-epoll");
    }
}
