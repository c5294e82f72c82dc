//! The server's end of a guarded call.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};

use super::stall::Polls;
use super::{Trailers, trailers};
use crate::accepted::Caller;
use crate::bare::{are_of_grpc, status_of_http};
use crate::fate::broken_off;
use crate::header_list;
use crate::reserved::{self, drop_bad_details};
use crate::timeout::{self, Deadline};

/// When a call has to be over, as an extension of its request.
#[derive(Debug, Clone, Copy)]
pub struct CallDeadline(pub Instant);

/// A service whose calls end as gRPC says: at their deadline, and with a status when they panic. A
/// stream of requests never seems complete when it is not, and ends with its call.
#[derive(Clone, Debug)]
pub struct Served<S> {
    inner: S,
    timeout: Option<Duration>,
    polls: Arc<Polls>,
}

impl<S> Served<S> {
    /// Wraps a service; no call may take longer than `timeout`, whatever its caller allows.
    pub fn new(inner: S, timeout: Option<Duration>) -> Self {
        Self {
            inner,
            timeout,
            polls: Arc::default(),
        }
    }
}

impl<S> tower::Service<Request<Body>> for Served<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        Caller::unfold(request.extensions_mut());
        reserved::clean_request(request.headers_mut());
        let is_grpc = are_of_grpc(request.headers());
        let asked = timeout::of(request.headers());
        let timeout = asked.into_iter().chain(self.timeout).min();
        let deadline = timeout.and_then(Deadline::after);
        if let Some(deadline) = &deadline {
            request
                .extensions_mut()
                .insert(CallDeadline(deadline.at.into_std()));
        }
        let over = CancellationToken::new();
        let request = request.map(|inner| {
            Body::new(Requests {
                inner,
                over: Box::pin(over.clone().cancelled_owned()),
            })
        });
        // No handler runs for what is too late already, nor is its panic anybody else's.
        let inner = match timeout {
            Some(Duration::ZERO) => Err(timeout::exceeded()),
            _ => {
                let _poll = self.polls.begin();
                catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).map_err(|_| panicked())
            }
        };
        let (inner, refused) = match inner {
            Ok(inner) => (Some(inner), None),
            Err(status) => (None, Some(status)),
        };
        AnswerFuture {
            inner,
            refused,
            is_grpc,
            guard: Some(Guard {
                deadline,
                polls: Arc::clone(&self.polls),
                _over: over.drop_guard(),
            }),
        }
    }
}

/// What lasts from a call's request to its last trailer.
#[derive(Debug)]
struct Guard {
    deadline: Option<Deadline>,
    polls: Arc<Polls>,
    /// Dropped, it ends the stream of requests.
    _over: DropGuard,
}

impl Guard {
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| deadline.poll_passed(cx))
    }
}

fn panicked() -> Status {
    Status::internal("the handler ended without an answer")
}

pin_project_lite::pin_project! {
    /// The answer of a [`Served`] service.
    #[derive(Debug)]
    pub struct AnswerFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Status>,
        is_grpc: bool,
        guard: Option<Guard>,
    }
}

impl<F> Future for AnswerFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(inner), Some(guard)) = (this.inner.as_mut().as_pin_mut(), this.guard.as_mut())
        else {
            let status = this.refused.take().unwrap_or_else(panicked);
            return Poll::Ready(Ok(status.into_http()));
        };
        let polled = {
            let _poll = guard.polls.begin();
            catch_unwind(AssertUnwindSafe(|| inner.poll(cx)))
        };
        let status = match polled {
            Ok(Poll::Ready(Ok(response))) => {
                let guard = this.guard.take();
                let bare = status_of_http(response.status(), response.headers());
                return Poll::Ready(Ok(match bare {
                    Some(status) if *this.is_grpc => status.into_http(),
                    _ => answer(response, guard),
                }));
            }
            Ok(Poll::Pending) if guard.poll_too_late(cx) => timeout::exceeded(),
            Ok(Poll::Pending) => return Poll::Pending,
            Err(_) => panicked(),
        };
        this.inner.set(None);
        Poll::Ready(Ok(status.into_http()))
    }
}

fn answer(mut response: Response<Body>, guard: Option<Guard>) -> Response<Body> {
    drop_bad_details(response.headers_mut());
    if let Err(status) = header_list::check(response.headers()) {
        return in_place_of(response.headers_mut(), status).into_http();
    }
    let trailing = response.extensions_mut().remove::<Trailers>();
    response.map(|inner| {
        Body::new(AnswerBody {
            inner: Some(inner),
            trailing: trailing.map(|Trailers(metadata)| metadata.into_headers()),
            guard,
        })
    })
}

/// A response body with a deadline, and with what its handler wants in the trailers.
struct AnswerBody {
    inner: Option<Body>,
    trailing: Option<HeaderMap>,
    guard: Option<Guard>,
}

impl AnswerBody {
    fn add_trailing(&mut self, trailers: &mut HeaderMap) {
        let ok = trailers
            .get(Status::GRPC_STATUS)
            .is_some_and(|status| status == "0");
        if let Some(trailing) = self.trailing.take()
            && ok
        {
            let names = reserved::STATUS_NAMES;
            let own = |name: &http::HeaderName| names.contains(&name.as_str());
            for (name, value) in &trailing {
                if !own(name) {
                    trailers.append(name.clone(), value.clone());
                }
            }
        }
    }

    fn is_too_late(&mut self, cx: &mut Context<'_>, pending: bool) -> bool {
        self.guard.as_mut().is_some_and(|guard| match pending {
            true => guard.poll_too_late(cx),
            false => guard.deadline.as_ref().is_some_and(Deadline::has_passed),
        })
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let polled = {
            let _poll = this.guard.as_ref().map(|guard| guard.polls.begin());
            catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx)))
        };
        let ending = match polled {
            Err(_) => Some(Ok(trailers(&panicked()))),
            Ok(Poll::Pending) if self.is_too_late(cx, true) => {
                Some(Ok(trailers(&timeout::exceeded())))
            }
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(mut frame)))) => match frame.trailers_mut() {
                Some(trailers) => {
                    self.add_trailing(trailers);
                    drop_bad_details(trailers);
                    keep_within_limits(trailers);
                    Some(Ok(frame))
                }
                None if self.is_too_late(cx, false) => Some(Ok(trailers(&timeout::exceeded()))),
                None => return Poll::Ready(Some(Ok(frame))),
            },
            Ok(Poll::Ready(ending)) => ending,
        };
        self.inner = None;
        self.guard = None;
        Poll::Ready(ending)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// A failure with more metadata than there may be keeps its status; an answer whose metadata can't come is
/// `refused`.
fn in_place_of(headers: &mut HeaderMap, refused: Status) -> Status {
    drop_bad_details(headers);
    let failed = Status::from_header_map(headers).filter(|said| said.code() != Code::Ok);
    failed.map_or(refused, |said| Status::new(said.code(), said.message()))
}

fn keep_within_limits(trailers: &mut HeaderMap) {
    if let Err(refused) = header_list::check(trailers) {
        let status = in_place_of(trailers, refused);
        *trailers = HeaderMap::new();
        // It has no metadata, and a text that was a header before.
        let _ = status.add_header(trailers);
    }
}

/// The requests of a call. Half of them never seem to be all, and a handler's leftover task is told
/// when the call is over.
struct Requests {
    inner: Body,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::aborted("the call is over"))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(broken_off)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
