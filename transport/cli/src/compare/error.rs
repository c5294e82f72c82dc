//! What can end a comparison, and whose fault it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringway_sys::floor::Mechanism;

use super::options::{Kind, Path};
use super::payload::Mismatch;
use crate::plain::plain;

/// Why a comparison ended without its figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `--rate` with a kind whose messages have no start of their own.
    #[error("--rate paces unary and bidi, {0} has no single messages to schedule")]
    CannotPace(Kind),
    /// `--idle` over a path that is not watched for it.
    #[error("--idle opens many connections, which {0} has not: leave it out of --paths")]
    CannotIdle(Path),
    /// `--trace` where nothing of Ringway's is timed.
    #[error("--trace times Ringway's own paths, plain tonic has no traces: add one to --paths")]
    CannotTrace,
    /// `--trace` in an environment that forbids it.
    #[error(
        "--trace records nothing here: unset OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER in the environment"
    )]
    TracesDisabled,
    /// Tracing could not be set up.
    #[error("could not set up tracing")]
    Tracing(#[from] ringway_telemetry::Error),
    /// A row without a server: a fault of the plan's.
    #[error("{0}: no server was started for it")]
    NoServer(Path),
    /// The server of a path could not start.
    #[error("{path}: its server could not start")]
    Serve { path: Path, source: Cause },
    /// The client of a path could not connect.
    #[error("{path}: could not connect to {address}")]
    Connect {
        path: Path,
        address: String,
        source: Cause,
    },
    /// A call succeeded, but came by another path than the row's.
    #[error("{path}: the first call came by another path: {taken}")]
    OtherPath { path: Path, taken: &'static str },
    /// A timed call failed, or its answer was wrong.
    #[error("{row}")]
    Call { row: String, source: Failure },
    /// A bare mechanism is not to be had on this machine.
    #[error("floor:{mechanism} failed; leave --floors out")]
    Floor {
        mechanism: Mechanism,
        source: io::Error,
    },
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
    /// A process of the comparison could not be started, asked or ended.
    #[error("{what}")]
    Process { what: String, source: io::Error },
    /// A process of the comparison answered what it should not.
    #[error("{what} said {line:?}")]
    Answer { what: String, line: String },
    /// The result could not be written.
    #[error("could not write {}", .file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// What a library of a path reported.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a timed call does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The path ended the call.
    #[error("the call failed")]
    Status(#[source] Box<tonic::Status>),
    /// The payload that came is not the one that should.
    #[error("a wrong payload came back")]
    Payload(#[from] Mismatch),
    /// A stream ended early.
    #[error("the stream ended after {received} of {expected} messages")]
    Short { received: u64, expected: u64 },
    /// The server counted other messages, or bytes, than it was sent.
    #[error("the server counted {counted}, was sent {sent}")]
    Count { counted: String, sent: String },
    /// The pacing timer or the bare mechanism.
    #[error("the kernel refused")]
    System(#[from] io::Error),
    /// Calls that neither end nor fail.
    #[error("no end in sight {0:?} after the deadline")]
    Stalled(Duration),
    /// A task of the load panicked.
    #[error("a task of the load ended")]
    Task(#[from] tokio::task::JoinError),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Failure::Status(Box::new(status))
    }
}

/// The error and everything below it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut said: Vec<String> = Vec::new();
    for cause in causes.map(ToString::to_string) {
        // Some errors repeat their source in their own words.
        if !said.iter().any(|earlier| earlier.contains(&cause)) {
            said.push(cause);
        }
    }
    plain(&said.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once_and_in_order() {
        let error = Error::Call {
            row: "grpc-unix unary 64 B, 1 in flight".to_owned(),
            source: Failure::from(tonic::Status::data_loss("torn")),
        };
        let said = with_causes(&error);
        assert!(
            said.starts_with("grpc-unix unary 64 B, 1 in flight: the call failed: "),
            "{said}"
        );
        assert_eq!(said.matches("torn").count(), 1, "{said}");
    }
}
