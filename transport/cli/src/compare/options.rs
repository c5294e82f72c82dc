//! What a person may ask of `ringway compare`, and what it does unasked.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer};

use super::error::Error;
use super::work::HandlerWork;

/// The largest payload that may be asked for: larger ones meet the limits of the paths.
const SIZE_BYTES_MAX: u64 = 64 << 20;

/// The options of `ringway compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Paths to time
    #[arg(long, value_delimiter = ',', value_name = "PATH", default_values_t = DEFAULT_PATHS)]
    pub(crate) paths: Vec<Path>,

    /// Payload sizes, in bytes [default: 64,4096,65536,1048576]
    #[arg(long, value_delimiter = ',', value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(0..=SIZE_BYTES_MAX))]
    sizes: Vec<u64>,

    /// Calls, or streams, in flight at a time [default: 1,64; with --rate 1]
    #[arg(long, value_delimiter = ',', value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: Vec<u16>,

    /// Kinds of call [default: all but join; with --rate unary,bidi]
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,

    /// Pace the calls: so many a second, with exponential gaps, each timed from its scheduled
    /// start; in place of as fast as possible
    #[arg(long, value_name = "CALLS_PER_S", value_parser = positive)]
    pub(crate) rate: Option<f64>,

    #[command(flatten)]
    pub(crate) handler: HandlerWork,

    /// Spread the calls in flight over so many connections of the client
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,

    /// Worker threads of each server in a process of its own [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) server_workers: Option<u16>,

    /// Run so many busy processes beside the comparison
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) busy: u16,

    /// Watch so many idle connections, each of which has carried a call of 64 B and one of 1 MiB;
    /// alone unless --sizes, --in-flight, --kinds or --rate asks for more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) idle: Option<u32>,

    /// Seconds for each row
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = positive)]
    pub(crate) seconds: f64,

    /// Write the result as JSON, too; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the result as a page of its own, for any browser: HTML without scripts
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Time what each bare mechanism of the machine costs, too
    #[arg(long)]
    pub(crate) floors: bool,

    /// Time unary calls that carry four entries of metadata and a deadline, too: rows PATH+metadata
    #[arg(long)]
    pub(crate) metadata: bool,

    /// Time calls with tracing, too, and this share of them recorded (0 to 1): rows PATH+trace, for
    /// Ringway's own paths. Both ends switch it on and off between short slices of time, so that
    /// what it costs a call is a mean of differences; spans go to a collector of the comparison's own
    #[arg(long, value_name = "RATIO", value_parser = share)]
    pub(crate) trace: Option<f64>,

    /// How calls in flight are spread over the client's tasks
    #[arg(long, hide = true, default_value = "tasks")]
    pub(crate) spread: Spread,
}

const DEFAULT_PATHS: [Path; 6] = [
    Path::Shm,
    Path::Socket,
    Path::SocketEpoll,
    Path::GrpcUnix,
    Path::GrpcTcp,
    Path::Inproc,
];

impl Options {
    /// The payload sizes to time, in bytes.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let asked = self
            .sizes
            .iter()
            .filter_map(|&size| usize::try_from(size).ok());
        or_default(asked.collect(), &[64, 4096, 65_536, 1_048_576])
    }

    /// How many calls to keep in flight, row by row.
    pub(crate) fn in_flight(&self) -> Vec<u16> {
        let unasked: &[u16] = if self.rate.is_some() { &[1] } else { &[1, 64] };
        or_default(self.in_flight.clone(), unasked)
    }

    /// The kinds of call to time.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let unasked: &[Kind] = match self.rate {
            Some(_) => &[Kind::Unary, Kind::Bidi],
            None => &[
                Kind::Unary,
                Kind::ServerStream,
                Kind::ClientStream,
                Kind::Bidi,
            ],
        };
        or_default(self.kinds.clone(), unasked)
    }

    /// Whether calls are timed at all: `--idle` alone times none.
    pub(crate) fn times_calls(&self) -> bool {
        self.idle.is_none()
            || self.rate.is_some()
            || !(self.sizes.is_empty() && self.in_flight.is_empty() && self.kinds.is_empty())
    }

    /// Refuses what no row can be made of.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let single = self.paths.iter().find(|path| !path.has_connections());
        if let Some(&path) = self.idle.and(single) {
            return Err(Error::CannotIdle(path));
        }
        let traced = |path: &Path| path.of_ringway().is_some();
        if self.trace.is_some() && !self.paths.iter().any(traced) {
            return Err(Error::CannotTrace);
        }
        let streaming = |kind: &Kind| !kind.is_paceable();
        match self.rate.and(self.kinds.iter().copied().find(streaming)) {
            Some(kind) => Err(Error::CannotPace(kind)),
            None => Ok(()),
        }
    }
}

fn or_default<T: Clone>(asked: Vec<T>, unasked: &[T]) -> Vec<T> {
    if asked.is_empty() {
        unasked.to_vec()
    } else {
        asked
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        Ok(_) => Err("must be above zero".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        Ok(_) => Err("must be from 0 to 1".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How a call gets from client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Path {
    /// Memory rings.
    Shm,
    /// A Unix socket driven by `io_uring`.
    Socket,
    /// A Unix socket driven by epoll.
    SocketEpoll,
    /// Plain tonic over a Unix socket.
    GrpcUnix,
    /// Plain tonic over loopback TCP.
    GrpcTcp,
    /// Two pipes to a child process.
    Pipe,
    /// Queues inside one process.
    Inproc,
    /// Memory rings under plain tonic stubs.
    ShmTonic,
    /// Memory rings under blocking stubs, a thread for each call in flight; unary alone, as fast as
    /// possible.
    ShmBlocking,
}

impl Path {
    /// What Ringway calls it; none for those that are plain tonic from end to end.
    pub(crate) fn of_ringway(self) -> Option<ringway::Path> {
        match self {
            Path::Shm | Path::ShmTonic | Path::ShmBlocking => Some(ringway::Path::Shm),
            Path::Socket | Path::SocketEpoll => Some(ringway::Path::Socket),
            Path::Pipe => Some(ringway::Path::Pipe),
            Path::Inproc => Some(ringway::Path::Inproc),
            Path::GrpcUnix | Path::GrpcTcp => None,
        }
    }

    /// Whether calls of this kind, paced or not, can be timed over it.
    pub(crate) fn has(self, kind: Kind, paced: bool) -> bool {
        self != Path::ShmBlocking || (kind == Kind::Unary && !paced)
    }

    /// Whether it can have many connections to one server.
    fn has_connections(self) -> bool {
        !matches!(self, Path::Pipe | Path::ShmBlocking)
    }
}

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// One message each way.
    Unary,
    /// Eight unary calls of one task in one `join!`: timed together, until the last has its answer.
    Join,
    /// Many messages from the server.
    ServerStream,
    /// Many messages to the server.
    ClientStream,
    /// Lockstep: one message each way at a time.
    Bidi,
}

impl Kind {
    /// Whether single messages of it can be scheduled and timed.
    pub(crate) fn is_paceable(self) -> bool {
        matches!(self, Kind::Unary | Kind::Bidi)
    }
}

/// How calls in flight are spread over the client's tasks. The same for every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// A spawned task for each.
    Tasks,
    /// All of them in one spawned task.
    OneTask,
}

/// Shown and serialized by the name that the command line has for it.
macro_rules! named {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.to_possible_value() {
                    Some(value) => f.pad(value.get_name()),
                    None => fmt::Debug::fmt(self, f),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
named!(Path, Kind, Spread);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Line::try_parse_from(format!("compare {line}").split_whitespace()).map(|line| line.options)
    }

    #[test]
    fn unasked_times_everything() {
        let options = parse("").unwrap();
        assert_eq!(options.paths, DEFAULT_PATHS);
        assert_eq!(options.sizes(), [64, 4096, 65_536, 1_048_576]);
        assert_eq!(options.in_flight(), [1, 64]);
        assert_eq!(options.kinds().len(), 4);
        assert!(options.times_calls());
        assert!(!options.floors);
    }

    #[test]
    fn lists_are_taken_in_their_order() {
        let options =
            parse("--paths grpc-tcp,shm-tonic --sizes 0,7 --in-flight 3 --kinds bidi,unary")
                .unwrap();
        assert_eq!(options.paths, [Path::GrpcTcp, Path::ShmTonic]);
        assert_eq!(options.sizes(), [0, 7]);
        assert_eq!(options.in_flight(), [3]);
        assert_eq!(options.kinds(), [Kind::Bidi, Kind::Unary]);
    }

    #[test]
    fn a_rate_paces_what_has_single_messages() {
        let options = parse("--rate 1000").unwrap();
        assert_eq!(options.kinds(), [Kind::Unary, Kind::Bidi]);
        assert_eq!(options.in_flight(), [1]);
        options.check().unwrap();
        let streaming = parse("--rate 1000 --kinds unary,server-stream").unwrap();
        assert!(matches!(
            streaming.check(),
            Err(Error::CannotPace(Kind::ServerStream))
        ));
    }

    #[test]
    fn handlers_answer_at_once_unless_asked_to_work() {
        assert!(parse("").unwrap().handler.is_none());
        let asked = parse("--handler-us 100 --handler-sleep-us 7").unwrap();
        let work = HandlerWork {
            handler_us: 100,
            handler_sleep_us: 7,
        };
        assert_eq!(asked.handler, work);
        let passed_on = parse(&work.arguments().join(" ")).unwrap();
        assert_eq!(passed_on.handler, work);
    }

    #[test]
    fn idle_alone_times_no_calls() {
        assert!(!parse("--idle 100 --paths shm").unwrap().times_calls());
        assert!(parse("--idle 100 --kinds unary").unwrap().times_calls());
    }

    #[test]
    fn a_pipe_is_no_one_of_many_connections() {
        let options = parse("--idle 10 --paths shm,pipe").unwrap();
        assert!(matches!(
            options.check(),
            Err(Error::CannotIdle(Path::Pipe))
        ));
        parse("--paths shm,pipe").unwrap().check().unwrap();
    }

    #[test]
    fn only_calls_of_ringway_are_traced() {
        let plain = parse("--trace 0.5 --paths grpc-tcp,grpc-unix").unwrap();
        assert!(matches!(plain.check(), Err(Error::CannotTrace)));
        let beside = parse("--trace 0.5 --paths grpc-tcp,shm").unwrap();
        beside.check().unwrap();
        assert_eq!(beside.trace, Some(0.5));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--paths carrier-pigeon",
            "--in-flight 0",
            "--seconds 0",
            "--seconds NaN",
            "--rate -1",
            "--handler-us -1",
            "--handler-us 0.5",
            "--handler-sleep-us 1000001",
            "--trace 1.5",
            "--trace -0.1",
            "--trace NaN",
            "--sizes 99999999999",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
