//! How a case can fail.

use std::time::Duration;

use ringway::Path;
use tonic::{Code, Status};

/// Why a case did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No way leads to the server.
    #[error("no connection to the server")]
    Connect(#[from] ringway::Error),
    /// A call failed that should not have.
    #[error("{call} ended with {:?}: {}", .status.code(), .status.message())]
    Call {
        /// The method, or the part of the case.
        call: &'static str,
        /// How it ended.
        status: Box<Status>,
    },
    /// A call succeeded that should have failed.
    #[error("{call} succeeded, although it should have ended with {expected:?}")]
    Succeeded {
        /// The method, or the part of the case.
        call: &'static str,
        /// How it should have ended.
        expected: Code,
    },
    /// A call took another path than the one to be tested.
    #[error("the call went over {found:?} in place of {expected}")]
    OtherPath {
        /// The path to be tested.
        expected: Path,
        /// What carried the call.
        found: Option<Path>,
    },
    /// It took longer than it may.
    #[error("not done after {timeout:?}")]
    TimedOut {
        /// How long it may take.
        timeout: Duration,
    },
    /// What came back is not what the case demands.
    #[error("{0}")]
    Unexpected(String),
}

impl Failure {
    /// Makes a call's status the failure of the case.
    pub(crate) fn of(call: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Call {
            call,
            status: Box::new(status),
        }
    }
}

/// Fails with `what` unless both are equal.
pub(crate) fn expect_eq<T>(what: &str, found: T, expected: T) -> Result<(), Failure>
where
    T: PartialEq + std::fmt::Debug,
{
    if found == expected {
        return Ok(());
    }
    Err(Failure::Unexpected(format!(
        "{what} is {found:?} in place of {expected:?}"
    )))
}

/// Fails unless `outcome` is a status with the code `expected`.
pub(crate) fn expect_code<T>(
    call: &'static str,
    outcome: Result<T, Status>,
    expected: Code,
) -> Result<Status, Failure> {
    match outcome {
        Err(status) if status.code() == expected => Ok(status),
        Err(status) => Err(Failure::of(call)(status)),
        Ok(_) => Err(Failure::Succeeded { call, expected }),
    }
}
