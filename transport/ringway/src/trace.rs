//! Which trace a call belongs to, and the hook by which its spans are made.
//!
//! A call knows its [`Trace`]. Without a [`Tracer`] it is only passed on: from a call that is handled
//! to those that its handler makes. `ringway-telemetry` installs one, which decides for each call
//! whether it is recorded, before anything is built for it; a call that is not pays for a few words
//! in thread-local storage.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ringway_local::Stamp;
pub use ringway_wire::TraceContext;
use tonic::{Code, Status};

use crate::context;
use crate::meter::{self, Direction, Role};
use crate::path::Path;

/// The header of W3C Trace Context.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Its second one: passed on as it came.
pub(crate) const TRACESTATE: &str = "tracestate";

/// What a call has to do with traces.
#[derive(Clone, Default)]
pub enum Trace {
    /// It belongs to none.
    #[default]
    None,
    /// Nothing is recorded of it here, but the calls that its handler makes belong to this trace.
    Passing(TraceContext),
    /// It is recorded.
    Recorded(Arc<dyn Span>),
}

impl fmt::Debug for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context().fmt(formatter)
    }
}

impl Trace {
    /// What calls say of it that are made on its behalf.
    #[inline]
    pub fn context(&self) -> Option<&TraceContext> {
        match self {
            Self::None => None,
            Self::Passing(context) => Some(context),
            Self::Recorded(span) => span.context(),
        }
    }

    /// The span, where it is recorded.
    #[inline]
    pub(crate) fn span(&self) -> Option<&Arc<dyn Span>> {
        match self {
            Self::Recorded(span) => Some(span),
            _ => None,
        }
    }

    /// The span, where its steps are recorded.
    #[inline]
    pub(crate) fn with_steps(&self) -> Option<&Arc<dyn Span>> {
        self.span().filter(|span| span.has_steps())
    }

    /// Notes that a step is done now.
    #[inline]
    pub(crate) fn step(&self, step: Step) {
        if let Some(span) = self.with_steps() {
            span.step(step, SystemTime::now());
        }
    }

    /// Notes messages that the call carried, and how many bytes they had.
    #[inline]
    pub(crate) fn carried(&self, direction: Direction, messages: usize, bytes: usize) {
        if let Self::Recorded(span) = self {
            span.carried(direction, messages, bytes);
        }
    }

    /// The call is over.
    #[inline]
    pub(crate) fn end(&self, code: Code, message: &str) {
        if let Self::Recorded(span) = self {
            span.end(code, message);
        }
    }
}

/// Makes the spans of a process's calls.
pub trait Tracer: Send + Sync + 'static {
    /// A call to `path` (`/package.Service/Method`) is about to be made, by the handler of a call
    /// that `handled` is known of.
    fn client(&self, path: &str, handled: &Trace) -> Trace;

    /// A call to `path` came from `parent`; it was taken from its link when it was `seen`.
    fn server(&self, path: &str, parent: Option<&TraceContext>, seen: Option<SystemTime>) -> Trace;
}

/// One end's part in a call that is recorded.
pub trait Span: Send + Sync {
    /// What the calls made on its behalf say; nothing where it is measured and belongs to no trace.
    fn context(&self) -> Option<&TraceContext>;

    /// Whether anybody wants to know of its steps.
    fn has_steps(&self) -> bool {
        true
    }

    /// A step was done. One that had to be done again counts from the last time.
    fn step(&self, step: Step, at: SystemTime);

    /// Messages went out or came in, with so many bytes.
    fn carried(&self, _direction: Direction, _messages: usize, _bytes: usize) {}

    /// It goes by this path, over `transport` (OpenTelemetry's `network.transport`).
    fn goes_by(&self, path: Path, transport: &'static str);

    /// It is over. Only the first end counts.
    fn end(&self, code: Code, message: &str);

    /// Makes it the current span of this thread, until what is returned is dropped.
    fn enter(&self) -> Box<dyn Any>;

    /// The same for work that goes on elsewhere: unless a span of this trace is the current one.
    fn join(&self) -> Option<Box<dyn Any>>;
}

/// What is done of a call, in order: one end's half of it, then the other's, then the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Client: the request is encoded.
    Encoded,
    /// The request (client) or the answer (server) lies where the peer sees it, or was handed to the
    /// kernel. The time is taken just before.
    Published,
    /// Server: the request was taken from its link.
    Seen,
    /// Server: the handler begins.
    HandlerStarted,
    /// Server: the handler has made its answer.
    HandlerEnded,
    /// Client: the answer is there, and its caller runs.
    AnswerSeen,
    /// Client: the answer, or the first message of it, is decoded.
    Decoded,
}

impl Step {
    /// The name of a span's event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Published => "published",
            Self::Seen => "seen",
            Self::HandlerStarted => "handler started",
            Self::HandlerEnded => "handler ended",
            Self::AnswerSeen => "answer seen",
            Self::Decoded => "decoded",
        }
    }
}

/// A process has one tracer, from the first call on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process has a tracer already")]
pub struct TracerInstalled;

/// Who is asked about each call: the tracer, the meter, both or none.
static ACTIVE: AtomicU8 = AtomicU8::new(0);
/// The tracer is.
const TRACER_ACTIVE: u8 = 1;
/// The meter is.
pub(crate) const METER: u8 = 2;
static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Has `tracer` asked about each call of this process from now on.
///
/// # Errors
/// There is one already.
pub fn install(tracer: Box<dyn Tracer>) -> Result<(), TracerInstalled> {
    TRACER.set(tracer).map_err(|_| TracerInstalled)?;
    set_active(true);
    Ok(())
}

/// Whether the tracer is asked about calls that begin from now on, to compare calls with and without.
pub fn set_active(active: bool) {
    set(TRACER_ACTIVE, active);
}

/// Whether one of those who may be asked is.
pub(crate) fn set(who: u8, active: bool) {
    match active {
        true => ACTIVE.fetch_or(who, Ordering::Relaxed),
        false => ACTIVE.fetch_and(!who, Ordering::Relaxed),
    };
}

/// Whether the tracer is asked, the meter, or both, as `who` says.
#[inline]
fn is_active(who: u8) -> bool {
    ACTIVE.load(Ordering::Relaxed) & who != 0
}

/// Whether calls are measured.
#[inline]
pub(crate) fn is_measured() -> bool {
    is_active(METER)
}

/// The trace of the call that is being handled here.
pub fn here() -> Option<TraceContext> {
    context::with_trace(|trace| trace.context().copied())
}

/// Whether anybody is asked about calls.
#[inline]
pub(crate) fn is_anybody_asked() -> bool {
    is_active(TRACER_ACTIVE | METER)
}

#[inline]
fn tracer() -> Option<&'static dyn Tracer> {
    if !is_active(TRACER_ACTIVE) {
        return None;
    }
    TRACER.get().map(|tracer| &**tracer)
}

/// The trace of a call to `path` that is about to be made here.
#[inline]
fn of_client(path: &str) -> Trace {
    let trace = context::with_trace(|handled| match tracer() {
        None => handled
            .context()
            .copied()
            .map_or(Trace::None, Trace::Passing),
        Some(tracer) => tracer.client(path, handled),
    });
    match is_measured() {
        true => meter::measured(Role::Client, path, trace),
        false => trace,
    }
}

/// The trace of a call to `path` that came here.
#[inline]
pub(crate) fn of_server(
    path: &str,
    parent: Option<&TraceContext>,
    seen: Option<SystemTime>,
) -> Trace {
    let trace = match tracer() {
        None => parent.copied().map_or(Trace::None, Trace::Passing),
        Some(tracer) => tracer.server(path, parent, seen),
    };
    match is_measured() {
        true => meter::measured(Role::Server, path, trace),
        false => trace,
    }
}

/// Whether the call that is being handled here is recorded: for whoever would note several things of it.
#[inline]
pub(crate) fn is_recorded_here() -> bool {
    is_anybody_asked() && context::with_trace(|trace| trace.span().is_some())
}

/// Notes a step of the call that is being handled here.
#[inline]
pub(crate) fn step_here(step: Step) {
    if is_active(TRACER_ACTIVE) {
        context::with_trace(|trace| trace.step(step));
    }
}

/// Notes a message that the call carried which is being handled here.
#[inline]
pub(crate) fn carried_here(direction: Direction, bytes: usize) {
    if is_measured() {
        context::with_trace(|trace| trace.carried(direction, 1, bytes));
    }
}

/// The call that is being handled here, for what counts its messages.
#[inline]
pub(crate) fn counted_here() -> Trace {
    match is_measured() {
        true => context::with_trace(Trace::clone),
        false => Trace::None,
    }
}

/// The call that is being handled here is over.
#[inline]
pub(crate) fn end_here(code: Code, message: &str) {
    if is_anybody_asked() {
        context::with_trace(|trace| trace.end(code, message));
    }
}

/// What a caller has of its call's span: dropped before its end, the call was given up.
#[derive(Debug)]
pub(crate) struct Calling(Trace);

impl Calling {
    /// A call to `path` begins.
    #[inline]
    pub(crate) fn begin(path: &str) -> Self {
        Self(of_client(path))
    }

    #[inline]
    pub(crate) fn trace(&self) -> &Trace {
        &self.0
    }

    /// The call has its answer.
    #[inline]
    pub(crate) fn end<T>(&self, answered: &Result<T, Status>) {
        match answered {
            Ok(_) => self.succeeded(),
            Err(status) => self.failed(status),
        }
    }

    #[inline]
    pub(crate) fn succeeded(&self) {
        self.0.end(Code::Ok, "");
    }

    #[inline]
    pub(crate) fn failed(&self, status: &Status) {
        self.0.end(status.code(), status.message());
    }

    /// The call failed, or its answer has begun; who reads that ends the span.
    #[inline]
    pub(crate) fn end_unless_ok<T>(mut self, answered: &Result<T, Status>) {
        match answered {
            Ok(_) => self.0 = Trace::None,
            Err(_) => self.end(answered),
        }
    }
}

impl Drop for Calling {
    #[inline]
    fn drop(&mut self) {
        self.0.end(Code::Cancelled, "the caller gave the call up");
    }
}

/// When a request was encoded and published.
#[derive(Default)]
pub(crate) struct Stamps {
    pub(crate) encoded: Stamp,
    pub(crate) published: Stamp,
}

impl Stamps {
    pub(crate) fn note(&self, span: &dyn Span) {
        for (step, stamp) in [
            (Step::Encoded, &self.encoded),
            (Step::Published, &self.published),
        ] {
            if let Some(at) = stamp.get() {
                span.step(step, at);
            }
        }
    }
}
