//! A call, its steps and its place in a trace, as a span of OpenTelemetry.
//!
//! A span is put together when its call is over, out of a few words that were noted meanwhile. It
//! does not go through OpenTelemetry's tracer, which would sample it once more, and take the time by
//! itself.

use std::any::Any;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use ringway::Path;
use ringway::trace::{Span, Step, Trace, TraceContext, Tracer};
use tonic::Code;

use crate::Sampler;
use crate::export::{SpanQueue, SpanWriter, Value};
use crate::unsampled;

/// What OpenTelemetry calls the instrumentation scope of these spans.
pub(crate) const SCOPE: &str = "ringway";

/// Steps of a client's span, in order.
const OF_CLIENT: [Step; 4] = [
    Step::Encoded,
    Step::Published,
    Step::AnswerSeen,
    Step::Decoded,
];
/// The same of a server's.
const OF_SERVER: [Step; 4] = [
    Step::Seen,
    Step::HandlerStarted,
    Step::HandlerEnded,
    Step::Published,
];

thread_local! {
    /// Seeded by what the kernel gave this process: two of them must not come to the same ids.
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(
        RandomState::new().hash_one(std::thread::current().id()),
    ));
}

/// What is known of a span when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Beginning {
    /// It is recorded.
    Recorded(TraceContext),
    /// It is not, nor is what it leads to.
    Unrecorded(Option<TraceContext>),
}

fn recorded(trace_id: u128, span_id: u64, flags: u8) -> Beginning {
    let context = TraceContext::of_numbers(trace_id, span_id, flags | TraceContext::SAMPLED);
    context.map_or(Beginning::Unrecorded(None), Beginning::Recorded)
}

fn unrecorded(trace_id: u128, span_id: u64, flags: u8) -> Beginning {
    let flags = flags & !TraceContext::SAMPLED;
    Beginning::Unrecorded(TraceContext::of_numbers(trace_id, span_id, flags))
}

/// Of a trace and its first span. Whole words, since this is what an unrecorded call pays for; zero
/// means none.
fn new_ids(random: &mut fastrand::Rng) -> (u128, u64) {
    let high = u128::from(random.u64(..));
    (high << 64 | u128::from(new_id(random)), new_id(random))
}

fn new_id(random: &mut fastrand::Rng) -> u64 {
    random.u64(..).max(1)
}

/// Decides for each call of a process whether it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct CallTracer {
    sampler: Sampler,
    spans: SpanQueue,
}

impl CallTracer {
    pub(crate) fn new(sampler: Sampler, spans: SpanQueue) -> Self {
        Self { sampler, spans }
    }

    /// Where what is recorded goes.
    pub(crate) fn spans(&self) -> &SpanQueue {
        &self.spans
    }

    /// Whether what begins now, as a child of `parent`, is recorded, and what it is known by.
    // Each call pays for it, and half of that for moving ids from one frame to the next.
    #[inline(always)]
    pub(crate) fn decide(&self, parent: Option<TraceContext>) -> Beginning {
        let Some(parent) = parent else {
            let (trace_id, span_id) = RANDOM.with_borrow_mut(new_ids);
            return match self.sampler.records(trace_id, None) {
                true => recorded(trace_id, span_id, 0),
                false => unrecorded(trace_id, span_id, 0),
            };
        };
        let trace_id = parent.trace_number();
        match self.sampler.records(trace_id, Some(parent.is_sampled())) {
            true => recorded(
                trace_id,
                RANDOM.with_borrow_mut(new_id),
                parent.flags() & !TraceContext::SAMPLED,
            ),
            // Nobody hears of this call: what it leads to comes from whoever made it.
            false if !parent.is_sampled() => Beginning::Unrecorded(Some(parent)),
            false => unrecorded(
                trace_id,
                u64::from_be_bytes(parent.span_id()),
                parent.flags(),
            ),
        }
    }

    #[inline(always)]
    fn begin(
        &self,
        side: &'static Side,
        path: &str,
        parent: Option<TraceContext>,
        seen: Option<SystemTime>,
    ) -> Trace {
        match self.decide(parent) {
            Beginning::Recorded(context) => self.record(side, path, context, parent, seen),
            Beginning::Unrecorded(context) => context.map_or(Trace::None, Trace::Passing),
        }
    }

    #[cold]
    fn record(
        &self,
        side: &'static Side,
        path: &str,
        context: TraceContext,
        parent: Option<TraceContext>,
        seen: Option<SystemTime>,
    ) -> Trace {
        let started = seen.unwrap_or_else(SystemTime::now);
        Trace::Recorded(Arc::new(CallSpan {
            spans: self.spans.clone(),
            side,
            name: path.strip_prefix('/').unwrap_or(path).into(),
            context,
            parent: parent.map(|parent| parent.span_id()),
            started,
            entered: OnceLock::new(),
            noted: Mutex::default(),
        }))
    }
}

impl Tracer for CallTracer {
    fn client(&self, path: &str, handled: &Trace) -> Trace {
        match handled.context() {
            Some(handled) if self.sampler.leaves_out(handled) => Trace::Passing(*handled),
            handled => self.begin(&CLIENT, path, parent(handled), None),
        }
    }

    fn server(&self, path: &str, parent: Option<&TraceContext>, seen: Option<SystemTime>) -> Trace {
        if let Some(parent) = parent
            && self.sampler.leaves_out(parent)
        {
            return Trace::Passing(*parent);
        }
        let trace = self.begin(&SERVER, path, parent.copied(), seen);
        if let Trace::Recorded(span) = &trace {
            span.step(Step::Seen, seen.unwrap_or_else(SystemTime::now));
        }
        trace
    }
}

/// What a call that is made here is a child of: the program's own span, if it is one of the trace
/// that is handled here, or else the call that is.
#[inline(always)]
fn parent(handled: Option<&TraceContext>) -> Option<TraceContext> {
    let current = || Context::map_current(of_otel);
    match handled {
        None => current().or_else(unsampled::here),
        Some(handled) if !handled.is_sampled() => Some(*handled),
        Some(handled) => {
            let own = current().filter(|own| own.trace_number() == handled.trace_number());
            own.or(Some(*handled))
        }
    }
}

/// The span that OpenTelemetry takes for the current one.
pub(crate) fn of_otel(current: &Context) -> Option<TraceContext> {
    if !current.has_active_span() {
        return None;
    }
    let span = current.span();
    let context = span.span_context();
    TraceContext::new(
        context.trace_id().to_bytes(),
        context.span_id().to_bytes(),
        context.trace_flags().to_u8(),
    )
}

/// A span as OpenTelemetry names it.
pub(crate) fn span_context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        TraceFlags::new(context.flags()),
        false,
        TraceState::NONE,
    )
}

/// What differs between the two ends of a call.
#[derive(Debug)]
struct Side {
    kind: SpanKind,
    steps: [Step; 4],
    /// Its caller is another process, or may be.
    parent_is_remote: bool,
}

static CLIENT: Side = Side {
    kind: SpanKind::Client,
    steps: OF_CLIENT,
    parent_is_remote: false,
};

static SERVER: Side = Side {
    kind: SpanKind::Server,
    steps: OF_SERVER,
    parent_is_remote: true,
};

impl Side {
    /// Whether a status is an error of this end: what a client asked wrongly is none of the server's
    /// (OpenTelemetry, "Semantic conventions for gRPC").
    fn blames(&self, code: Code) -> bool {
        match self.kind {
            SpanKind::Server => matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ),
            _ => code != Code::Ok,
        }
    }
}

/// One end's part in a call.
struct CallSpan {
    spans: SpanQueue,
    side: &'static Side,
    /// `package.Service/Method`.
    name: Box<str>,
    context: TraceContext,
    parent: Option<[u8; 8]>,
    started: SystemTime,
    /// As OpenTelemetry has it, for what happens on its behalf.
    entered: OnceLock<Context>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    over: bool,
    steps: [Option<SystemTime>; 4],
    path: Option<(Path, &'static str)>,
}

impl CallSpan {
    fn entered(&self) -> &Context {
        self.entered
            .get_or_init(|| Context::new().with_remote_span_context(span_context(&self.context)))
    }

    /// As it is sent. Attributes are named as in OpenTelemetry's "Semantic conventions for gRPC".
    fn written(&self, noted: &Noted, code: Code, message: &str) -> Bytes {
        let Side {
            kind,
            steps,
            parent_is_remote,
        } = self.side;
        let is_remote = self.parent.is_some() && *parent_is_remote;
        let mut span = SpanWriter::new(&self.context, self.parent, is_remote, *kind);
        span.name(&self.name);
        // A server's part ends when its answer is out: what the client does with it is seen later.
        let published = noted.steps[3].filter(|_| *kind == SpanKind::Server);
        span.times(self.started, published.unwrap_or_else(SystemTime::now));
        let (service, method) = self.name.rsplit_once('/').unwrap_or((&self.name, ""));
        let number = i64::from(i32::from(code));
        span.attribute("rpc.system", Value::Text("grpc"));
        span.attribute("rpc.service", Value::Text(service));
        span.attribute("rpc.method", Value::Text(method));
        span.attribute("rpc.grpc.status_code", Value::Number(number));
        if let Some((path, transport)) = noted.path {
            span.attribute("network.transport", Value::Text(transport));
            span.attribute("ringway.path", Value::Text(path.name()));
        }
        for (step, at) in steps.iter().zip(noted.steps) {
            if let Some(at) = at {
                span.event(step.name(), at);
            }
        }
        if self.side.blames(code) {
            span.error(message);
        }
        span.finish()
    }
}

impl Span for CallSpan {
    fn context(&self) -> Option<&TraceContext> {
        Some(&self.context)
    }

    fn step(&self, step: Step, at: SystemTime) {
        let place = self.side.steps.iter().position(|known| *known == step);
        if let Some(place) = place {
            self.noted.lock().steps[place] = Some(at);
        }
    }

    fn goes_by(&self, path: Path, transport: &'static str) {
        self.noted.lock().path = Some((path, transport));
    }

    fn end(&self, code: Code, message: &str) {
        let mut noted = self.noted.lock();
        if std::mem::replace(&mut noted.over, true) {
            return;
        }
        let written = self.written(&noted, code, message);
        drop(noted);
        self.spans.push(written);
    }

    fn enter(&self) -> Box<dyn Any> {
        Box::new(self.entered().clone().attach())
    }

    fn join(&self) -> Option<Box<dyn Any>> {
        let current = Context::map_current(of_otel);
        let own = current.is_some_and(|it| it.trace_id() == self.context.trace_id());
        (!own).then(|| self.enter())
    }
}
