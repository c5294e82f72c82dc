//! The edge of a system: HTTP requests that begin a trace, or bring one along.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{self, Poll, ready};
use std::time::SystemTime;

use http::{Extensions, HeaderMap, Request, Response};
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};
use ringway::Scoped;
use ringway::trace::TraceContext;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tower::{Layer, Service};

use crate::spans::{Beginning, CallTracer, span_context};

/// The process's tracer.
static TRACER: OnceLock<CallTracer> = OnceLock::new();

pub(crate) fn install(tracer: CallTracer) {
    // A second one is refused before.
    let _ = TRACER.set(tracer);
}

/// A layer for HTTP services at the edge of a system: each request has a span, in the trace that its
/// `traceparent` names or in one of its own, and the calls that its handler makes belong to it. Where
/// nothing is recorded, a `traceparent` is passed on all the same.
///
/// ```
/// // With axum, as a `route_layer`, the route is known: MatchedPath.
/// let edge = ringway_telemetry::Edge::new(|extensions| {
///     extensions.get::<String>().cloned()
/// });
/// # drop(edge);
/// ```
#[derive(Clone, Copy)]
pub struct Edge {
    route: fn(&Extensions) -> Option<String>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Edge")
    }
}

impl Edge {
    /// `route` finds what a request was routed by, such as `/orders/{id}`, among its extensions: spans
    /// are named after it.
    pub fn new(route: fn(&Extensions) -> Option<String>) -> Self {
        Self { route }
    }
}

impl<S> Layer<S> for Edge {
    type Service = AtEdge<S>;

    fn layer(&self, inner: S) -> AtEdge<S> {
        AtEdge { inner, edge: *self }
    }
}

/// A service behind [`Edge`].
#[derive(Debug, Clone)]
pub struct AtEdge<S> {
    inner: S,
    edge: Edge,
}

impl<S, A, B> Service<Request<A>> for AtEdge<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = AtEdgeFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let parent = parent(request.headers());
        let beginning = TRACER.get().map(|tracer| tracer.decide(parent));
        let (trace, span) = match beginning {
            None => (parent, None),
            Some(Beginning::Unrecorded(trace)) => (trace, None),
            Some(Beginning::Recorded(trace)) => {
                let route = (self.edge.route)(request.extensions());
                (
                    Some(trace),
                    Some(EdgeSpan::new(trace, parent, &request, route)),
                )
            }
        };
        let mut context = ringway::Context::default();
        if let Some(trace) = trace {
            context = context.with_trace(trace);
        }
        if let Some(state) = state(request.headers()).filter(|_| parent.is_some()) {
            context = context.with_metadata(state);
        }
        AtEdgeFuture {
            inner: context.scope(self.inner.call(request)),
            span,
        }
    }
}

/// A malformed header is as good as none.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    TraceContext::from_traceparent(text)
}

fn state(headers: &HeaderMap) -> Option<MetadataMap> {
    const NAME: &str = "tracestate";
    let value = AsciiMetadataValue::try_from(headers.get(NAME)?.as_bytes()).ok()?;
    let mut metadata = MetadataMap::new();
    metadata.insert(NAME, value);
    Some(metadata)
}

pin_project_lite::pin_project! {
    /// The answer of a service behind [`Edge`], until its head is there.
    #[derive(Debug)]
    pub struct AtEdgeFuture<F> {
        #[pin]
        inner: Scoped<F>,
        span: Option<EdgeSpan>,
    }
}

impl<F, B, E> Future for AtEdgeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.span.as_ref().map(|span| span.context.clone().attach());
        let polled = this.inner.poll(context);
        drop(entered);
        let answered = ready!(polled);
        if let Some(span) = this.span {
            span.status = answered
                .as_ref()
                .ok()
                .map(|response| response.status().as_u16());
        }
        *this.span = None;
        Poll::Ready(answered)
    }
}

/// A request that is recorded; dropped, it is over.
#[derive(Debug)]
struct EdgeSpan {
    trace: TraceContext,
    parent: Option<TraceContext>,
    context: Context,
    name: String,
    attributes: Vec<KeyValue>,
    started: SystemTime,
    status: Option<u16>,
}

impl EdgeSpan {
    fn new<A>(
        trace: TraceContext,
        parent: Option<TraceContext>,
        request: &Request<A>,
        route: Option<String>,
    ) -> Self {
        let method = request.method().as_str();
        // As OpenTelemetry's "Semantic conventions for HTTP spans" names them.
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", request.uri().path().to_owned()),
        ];
        let name = match &route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        };
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        Self {
            trace,
            parent,
            context: Context::new().with_remote_span_context(span_context(&trace)),
            name,
            attributes,
            started: SystemTime::now(),
            status: None,
        }
    }
}

impl Drop for EdgeSpan {
    fn drop(&mut self) {
        let Some(tracer) = TRACER.get() else { return };
        let mut attributes = std::mem::take(&mut self.attributes);
        if let Some(status) = self.status {
            attributes.push(KeyValue::new(
                "http.response.status_code",
                i64::from(status),
            ));
        }
        tracer.spans().on_end(SpanData {
            span_context: span_context(&self.trace),
            parent_span_id: self.parent.map_or(SpanId::INVALID, |parent| {
                SpanId::from_bytes(parent.span_id())
            }),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: SpanKind::Server,
            name: std::mem::take(&mut self.name).into(),
            start_time: self.started,
            end_time: SystemTime::now(),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match self.status {
                Some(status) if status < 500 => Status::Unset,
                Some(_) => Status::error(""),
                None => Status::error("given up before it was answered"),
            },
            // Spans are sent as of one scope.
            instrumentation_scope: InstrumentationScope::default(),
        });
    }
}
