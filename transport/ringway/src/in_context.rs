//! The [`Context`](crate::Context) of calls that came over the network: around each poll of the
//! service and of its response's body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use ringway_net::guard::CallDeadline;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::server::NamedService;
#[cfg(feature = "_tls-any")]
use tonic::transport::server::TlsConnectInfo;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};

use crate::begun::Begun;
use crate::carried::counted;
use crate::context::{Context, Entered, Handling, Peer};
use crate::latency::{self, Source, Timing};
use crate::metadata::TraceHeaders;
use crate::meter::Direction;
use crate::path::Path;
use crate::trace::{self, Step, Trace};
use crate::traced::end_with;

/// A service whose handlers have a context.
#[derive(Debug, Clone)]
pub(crate) struct InContext<S>(pub(crate) S);

impl<S: NamedService> NamedService for InContext<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for InContext<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = InContextFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // On a local path whoever brought the call here has said all that there is to say.
        let from_network = !Context::is_set();
        let mut handling = from_network.then(|| Handling(context_of(&request)));
        if let Some(handling) = &handling {
            handling.0.recorded().step(Step::HandlerStarted);
        }
        let timing = (from_network && latency::is_watched())
            .then(|| Timing::begin(Source::Network(address(request.extensions()))));
        let request = match &handling {
            Some(handling) => {
                request.map(|body| counted(body, handling.0.recorded(), Direction::Received))
            }
            None => request,
        };
        let entered = enter(&mut handling);
        let inner = self.0.call(request);
        drop(entered);
        InContextFuture {
            handling,
            timing,
            inner,
        }
    }
}

fn enter(handling: &mut Option<Handling>) -> Option<Entered<'_>> {
    handling
        .as_mut()
        .map(|handling| Entered::new(&mut handling.0))
}

/// Where a call came from, as people see it.
fn address(extensions: &Extensions) -> String {
    match process(extensions).or_else(|| network(extensions)) {
        Some(Peer::Network(address)) => address.to_string(),
        Some(Peer::Process { pid, uid, .. }) => match pid {
            Some(pid) => format!("pid {pid}, uid {uid}"),
            None => format!("uid {uid}"),
        },
        None => String::new(),
    }
}

fn context_of(request: &Request<Body>) -> Context {
    let extensions = request.extensions();
    let deadline = extensions.get().map(|CallDeadline(at)| *at);
    let said = TraceHeaders::of_http(request.headers());
    let trace = trace::of_server(request.uri().path(), said.parent.as_ref(), None);
    if let Some(span) = trace.span() {
        let unix = extensions.get::<UdsConnectInfo>().is_some();
        span.goes_by(Path::Grpc, if unix { "unix" } else { "tcp" });
    }
    let peer = process(extensions).or_else(|| network(extensions));
    Context::of_call(deadline, peer, trace).with_trace_state(said.state)
}

fn process(extensions: &Extensions) -> Option<Peer> {
    let credentials = extensions.get::<UdsConnectInfo>()?.peer_cred?;
    Some(Peer::Process {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()),
    })
}

fn network(extensions: &Extensions) -> Option<Peer> {
    let info = extensions.get::<TcpConnectInfo>();
    #[cfg(feature = "_tls-any")]
    let info = info.or_else(|| {
        let secured = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        secured.map(TlsConnectInfo::get_ref)
    });
    info?.remote_addr().map(Peer::Network)
}

pin_project_lite::pin_project! {
    /// A call until its response has begun.
    pub(crate) struct InContextFuture<F> {
        handling: Option<Handling>,
        timing: Option<Timing>,
        #[pin]
        inner: F,
    }
}

impl<F, B> Future for InContextFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = enter(this.handling);
        let polled = this.inner.poll(context);
        drop(entered);
        let Ok(response) = ready!(polled);
        let (handling, timing) = (this.handling.take(), this.timing.take());
        if let Some(handling) = &handling {
            note_head(handling.0.recorded(), response.headers());
        }
        Poll::Ready(Ok(response.map(|inner| {
            let mut inner = Body::new(inner);
            if let Some(handling) = &handling {
                inner = counted(inner, handling.0.recorded(), Direction::Sent);
            }
            let is_traced = handling
                .as_ref()
                .is_some_and(|handling| handling.0.recorded().with_steps().is_some());
            let body = InContextBody {
                handling,
                timing,
                inner,
                frames: 0,
            };
            if is_traced {
                Body::new(Begun::new(body, context))
            } else {
                Body::new(body)
            }
        })))
    }
}

/// A response's body: a stream's source is polled as its handler was.
struct InContextBody {
    handling: Option<Handling>,
    timing: Option<Timing>,
    inner: Body,
    /// Frames of messages, as far as it matters.
    frames: u8,
}

/// The handler has answered: with its message or stream, or with a status alone.
fn note_head(trace: &Trace, headers: &HeaderMap) {
    if trace.span().is_none() {
        return;
    }
    trace.step(Step::HandlerEnded);
    if let Some(status) = Status::from_header_map(headers) {
        trace.step(Step::Published);
        trace.end(status.code(), status.message());
    }
}

impl InContextBody {
    /// What a frame tells of the call's steps.
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, Status>>) {
        let Some(trace) = self.handling.as_ref().map(|handling| handling.0.recorded()) else {
            return;
        };
        if trace.span().is_none() {
            return;
        }
        match frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => {
                    // The handler of a stream has ended only now.
                    if self.frames != 1 {
                        trace.step(Step::HandlerEnded);
                        trace.step(Step::Published);
                    }
                    end_with(trace, trailers);
                }
                None => {
                    self.frames = self.frames.saturating_add(1);
                    trace.step(Step::Published);
                }
            },
            Some(Err(status)) => trace.end(status.code(), status.message()),
            None => {}
        }
    }
}

impl HttpBody for InContextBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let entered = enter(&mut this.handling);
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        drop(entered);
        if let Poll::Ready(frame) = &polled {
            this.note(frame.as_ref());
            let goes_on = matches!(frame, Some(Ok(frame)) if !frame.is_trailers());
            if !goes_on && let Some(timing) = this.timing.take() {
                timing.end();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
