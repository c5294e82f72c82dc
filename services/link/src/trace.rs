//! The trace of work that outlives the call that asked for it.

use ringway::Scoped;
use ringway::trace::{self, TraceContext};

/// A trace that a task of its own goes on with, but neither with the deadline nor with the end of the
/// call that is handled where the task begins.
#[derive(Clone, Copy, Debug)]
pub struct SameTrace(Option<TraceContext>);

impl SameTrace {
    /// The one of the call that is handled here.
    pub fn here() -> Self {
        Self(trace::here())
    }

    /// `work`, whose calls belong to the trace.
    pub fn scope<F: Future>(self, work: F) -> Scoped<F> {
        let context = ringway::Context::default();
        match self.0 {
            Some(trace) => context.with_trace(trace).scope(work),
            None => context.scope(work),
        }
    }
}
