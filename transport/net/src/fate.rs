//! How far a call came that the transport failed: whether it may be sent again.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::sync::Arc;

use tonic::{Code, Status};

use crate::pool::ConnectionOver;

/// How far a failed call came, as far as this side can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never left this process.
    Unsent,
    /// It reached the server's library, which says that no handler saw it: `REFUSED_STREAM`.
    Unprocessed,
    /// It came too late: the server drains, and its GOAWAY does not include it.
    LeftOut,
    /// A handler may have seen it.
    MayHaveRun,
}

impl Fate {
    /// The fate of a call that ended with `status`.
    ///
    /// ```
    /// use ringway_net::Fate;
    ///
    /// // What a server says itself has been seen by one.
    /// let status = tonic::Status::unavailable("said by a server");
    /// assert_eq!(Fate::of(&status), Fate::MayHaveRun);
    /// ```
    pub fn of(status: &Status) -> Self {
        for error in sources(status) {
            // The queue before a connection closes with the runtime that has made both.
            if error.is::<ConnectionOver>() || error.is::<tower::buffer::error::Closed>() {
                return Self::Unsent;
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>()
                && error.is_canceled()
            {
                return Self::Unsent;
            }
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return Self::of_h2(error);
            }
        }
        Self::MayHaveRun
    }

    fn of_h2(error: &h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        match (refused, is_left_out(error)) {
            (true, _) => Self::Unprocessed,
            (false, true) => Self::LeftOut,
            (false, false) => Self::MayHaveRun,
        }
    }
}

/// RFC 9113, 6.8: streams above the last one that a GOAWAY names were not and will not be processed.
fn is_left_out(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// Whether a call came too late for its connection, which took it no further: a server that drains
/// does so in order, and has failed nobody.
pub(crate) fn came_too_late(status: &Status) -> bool {
    matches!(Fate::of(status), Fate::Unsent | Fate::LeftOut)
}

/// Gives `UNAVAILABLE` to a call whose connection broke or would not take it, as gRPC has it; tonic
/// says `UNKNOWN`, `INTERNAL`, or `CANCELLED` where nobody cancelled anything. Resets of the call
/// alone keep their codes. Its source is an [`io::Error`], as on the local paths.
pub(crate) fn mapped(status: Status) -> Status {
    if status.code() == Code::Unavailable || !is_broken(&status) {
        return status;
    }
    with_io_error(Status::unavailable(broke(&status)), status)
}

/// The status of a stream of requests that a handler reads, and that ended before its time. tonic takes
/// `CANCELLED` for a clean end.
pub(crate) fn broken_off(status: Status) -> Status {
    if is_broken(&status) && !sources(&status).any(is_reset) {
        return with_io_error(Status::aborted(broke(&status)), status);
    }
    if status.code() != Code::Cancelled {
        return status;
    }
    let mut broken = Status::aborted("the call was cancelled before its stream ended");
    broken.set_source(Arc::new(Kept(status)));
    broken
}

/// Returns true if `status` tells of its connection's end by [`mapped`], and no server has said it.
pub(crate) fn broke_the_connection(status: &Status) -> bool {
    StdError::source(status).is_some_and(|source| source.is::<io::Error>())
}

fn broke(status: &Status) -> String {
    let why = match sources(status).last() {
        Some(error) if error.downcast_ref().is_some_and(has_lost_its_runtime) => {
            "the runtime that had made it has ended".to_owned()
        }
        Some(error) => error.to_string(),
        None => String::new(),
    };
    format!("the connection broke: {why}")
}

/// Gives `told` the status that it replaces as its source, behind an error of the connection's end.
fn with_io_error(mut told: Status, replaced: Status) -> Status {
    let kind = sources(&replaced).find_map(io_kind);
    let kind = kind.unwrap_or(io::ErrorKind::ConnectionAborted);
    told.set_source(Arc::new(io::Error::new(kind, Kept(replaced))));
    told
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let by_h2 = error
        .downcast_ref::<h2::Error>()
        .and_then(h2::Error::get_io);
    let error = by_h2.or_else(|| error.downcast_ref())?;
    Some(error.kind())
}

fn is_reset(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref().is_some_and(h2::Error::is_reset)
}

fn is_broken(status: &Status) -> bool {
    let vague = matches!(status.code(), Code::Unknown | Code::Cancelled);
    Fate::of(status) != Fate::MayHaveRun
        || vague
            && sources(status).any(|error| {
                error.downcast_ref::<hyper::Error>().is_some_and(is_lost)
                    || error.downcast_ref::<h2::Error>().is_some_and(ends_all)
                    || error.is::<std::io::Error>()
            })
}

/// Keeps the status that was mapped in the chain of sources.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Kept(#[source] Status);

fn is_lost(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || has_lost_its_runtime(error)
}

/// Its connection's task was dropped with its runtime, which hyper tells in words alone.
fn has_lost_its_runtime(error: &hyper::Error) -> bool {
    error.is_user() && format!("{error:?}").contains("DispatchGone")
}

fn ends_all(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away()
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    fn next<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        (*error).source()
    }
    successors(StdError::source(status), next)
}
