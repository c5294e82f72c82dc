//! Traces of calls that travel as HTTP: the header that names them, and the steps that bodies show.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use ringway_local::clock;
use ringway_net::{Picked, timeout};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::begun::Begun;
use crate::carried::counted;
use crate::meter::Direction;
use crate::path::Path;
use crate::trace::{Step, TRACEPARENT, Trace};

/// The instance that takes a call, told the trace that the call belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    instance: Picked,
    trace: Trace,
    to_its_end: bool,
}

impl Traced {
    pub(crate) fn new(instance: Picked, trace: &Trace) -> Self {
        Self {
            instance,
            trace: trace.clone(),
            to_its_end: false,
        }
    }

    /// Has the span end with the response's body: nobody else sees the end of a stream.
    pub(crate) fn until_its_end(mut self) -> Self {
        self.to_its_end = true;
        self
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }
}

impl Service<Request<Body>> for Traced {
    type Response = Response<Body>;
    type Error = Status;
    type Future = <Picked as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.instance.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(context) = self.trace.context() {
            let value = HeaderValue::try_from(context.to_string());
            // Digits and dashes always are a value.
            value.into_iter().for_each(|value| {
                request.headers_mut().insert(TRACEPARENT, value);
            });
        }
        let Trace::Recorded(span) = &self.trace else {
            return self.instance.call(request);
        };
        span.goes_by(Path::Grpc, self.instance.transport());
        let trace = self.trace.clone();
        let ended_by = self
            .to_its_end
            .then(|| Ending::of(&trace, request.headers()));
        let request = request.map(|inner| {
            let inner = counted(inner, &trace, Direction::Sent);
            match trace.with_steps() {
                Some(_) => {
                    let sent = Sent {
                        inner,
                        trace: Some(trace.clone()),
                    };
                    // Who polls it later is not known yet.
                    Body::new(Begun::new(sent, &mut Context::from_waker(Waker::noop())))
                }
                None => inner,
            }
        });
        let answer = self.instance.call(request);
        Box::pin(async move {
            let answered = answer.await?;
            trace.step(Step::AnswerSeen);
            let answered = answered.map(|inner| counted(inner, &trace, Direction::Received));
            Ok(match ended_by {
                Some(ending) => ending.with(answered),
                None => answered,
            })
        })
    }
}

/// Requests on their way.
struct Sent {
    inner: Body,
    /// Until the first of them has been encoded.
    trace: Option<Trace>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(trace) = self.trace.take() {
            trace.step(Step::Encoded);
            trace.step(Step::Published);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Ends a call's span with the body of its response.
#[derive(Debug)]
pub(crate) struct Ending {
    trace: Trace,
    /// When whoever waits for the response ceases to.
    deadline: Option<Instant>,
}

impl Ending {
    /// Of the call with these headers.
    pub(crate) fn of(trace: &Trace, headers: &HeaderMap) -> Self {
        let deadline = timeout::of(headers).and_then(|timeout| clock::now().checked_add(timeout));
        Self::at(trace, deadline)
    }

    /// Of the call that has to be over at `deadline`.
    pub(crate) fn at(trace: &Trace, deadline: Option<Instant>) -> Self {
        Self {
            trace: trace.clone(),
            deadline,
        }
    }

    /// The response, whose body ends the span.
    pub(crate) fn with(self, response: Response<Body>) -> Response<Body> {
        match Status::from_header_map(response.headers()) {
            // Nothing follows.
            Some(status) => {
                self.trace.end(status.code(), status.message());
                response
            }
            None => response.map(|inner| {
                Body::new(Received {
                    inner,
                    ending: self,
                })
            }),
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Only if nothing else has ended it.
        match self.deadline {
            Some(deadline) if deadline <= clock::now() => {
                self.trace.end(Code::DeadlineExceeded, "Timeout expired");
            }
            _ => self
                .trace
                .end(Code::Cancelled, "the caller gave the call up"),
        }
    }
}

/// Responses, and the status after them.
struct Received {
    inner: Body,
    ending: Ending,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let trace = &self.ending.trace;
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end_with(trace, trailers);
                }
            }
            Some(Err(status)) => trace.end(status.code(), status.message()),
            None => trace.end(Code::Unknown, "no status came"),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The call is over, as its trailers say.
pub(crate) fn end_with(trace: &Trace, trailers: &HeaderMap) {
    if trace.span().is_none() {
        return;
    }
    match Status::from_header_map(trailers) {
        Some(status) => trace.end(status.code(), status.message()),
        None => trace.end(Code::Unknown, "no status came"),
    }
}
