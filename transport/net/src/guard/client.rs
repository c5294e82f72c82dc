//! The client's end of a guarded call.

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::{Status, body::Body, client::GrpcService};

use super::{
    means_too_late, trailers,
    upload::{Hold, Shared, Upload},
};
use crate::fate::{broke_the_connection, mapped};
use crate::header_list;
use crate::reserved::{STATUS_NAMES, drop_bad_details};
use crate::timeout::{self, Deadline};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Where an answer's trailers are put aside for whoever made the call.
pub(crate) type TrailersAside = Arc<Mutex<Option<HeaderMap>>>;

/// A channel whose calls end as gRPC says: at their deadline, when they are dropped, and without a
/// panic, whatever the answer holds.
#[derive(Clone, Debug)]
pub struct Guarded<T> {
    inner: T,
    aside: Option<TrailersAside>,
}

impl<T> Guarded<T> {
    /// Wraps a channel.
    pub fn new(inner: T) -> Self {
        Self { inner, aside: None }
    }

    /// Puts the trailers of an answer that succeeded aside, but for its status.
    pub(crate) fn trailers_aside(mut self, aside: TrailersAside) -> Self {
        self.aside = Some(aside);
        self
    }
}

impl<T: GrpcService<Body>> tower::Service<Request<Body>> for Guarded<T>
where
    T::ResponseBody: HttpBody<Data = Bytes>,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    type Response = Response<CallBody<T::ResponseBody>>;
    type Error = Status;
    type Future = CallFuture<T::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let timeout = timeout::of(request.headers());
        let shared = Arc::new(Shared::default());
        let request = request.map(|body| Body::new(Upload::new(body, &shared)));
        let guard = Guard {
            deadline: timeout.and_then(Deadline::after),
            hold: Hold(shared),
            aside: self.aside.take(),
        };
        // What is too late already is not sent, nor what would cost the connection.
        let refused = match timeout {
            Some(Duration::ZERO) => Some(timeout::exceeded()),
            _ => header_list::check(request.headers()).err(),
        };
        let inner = refused.is_none().then(|| self.inner.call(request));
        CallFuture {
            inner,
            refused,
            guard: Some(guard),
        }
    }
}

/// What lasts from a call's beginning to its last trailer.
#[derive(Debug)]
struct Guard {
    deadline: Option<Deadline>,
    hold: Hold,
    aside: Option<TrailersAside>,
}

impl Guard {
    /// The status of a call that failed with `error`.
    fn judge(&self, error: BoxError) -> Status {
        // Why this side broke off its own requests says more than what that led to.
        let refused = self.hold.0.refused.lock().take();
        refused.unwrap_or_else(|| self.in_time(mapped(Status::from_error(error))))
    }

    fn in_time(&self, status: Status) -> Status {
        match &self.deadline {
            Some(deadline) if means_too_late(&status, deadline.at) => timeout::exceeded(),
            _ => status,
        }
    }

    fn is_too_late(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::has_passed)
    }

    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| deadline.poll_passed(cx))
    }

    /// Looks over a head or trailers.
    fn check(&self, headers: &mut HeaderMap) {
        drop_bad_details(headers);
        let Some(deadline) = &self.deadline else {
            return;
        };
        let said = Status::from_header_map(headers);
        if said.is_some_and(|status| means_too_late(&status, deadline.at)) {
            // Writing a code and a short text can't fail.
            let _ = timeout::exceeded().add_header(headers);
        }
    }

    fn put_aside(&self, headers: &mut HeaderMap) {
        let ok = headers
            .get(Status::GRPC_STATUS)
            .is_some_and(|status| status == "0");
        if let Some(aside) = &self.aside
            && ok
        {
            let mut status = HeaderMap::new();
            for name in STATUS_NAMES {
                if let Some(value) = headers.remove(name) {
                    status.insert(name, value);
                }
            }
            *aside.lock() = Some(std::mem::replace(headers, status));
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a [`Guarded`] channel. Dropped, it cancels the call.
    #[derive(Debug)]
    pub struct CallFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Status>,
        guard: Option<Guard>,
    }
}

impl<F, B, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<CallBody<B>>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(guard) = this.guard.as_mut() else {
            return Poll::Ready(Err(Status::internal("polled after its end")));
        };
        let polled = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => {
                let refused = this.refused.take();
                return Poll::Ready(Err(refused.unwrap_or_else(timeout::exceeded)));
            }
        };
        match polled {
            Poll::Ready(Ok(mut response)) => {
                guard.check(response.headers_mut());
                let guard = this.guard.take();
                Poll::Ready(Ok(response.map(|inner| CallBody {
                    inner: Some(inner),
                    guard,
                })))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(guard.judge(error.into()))),
            Poll::Pending if guard.poll_too_late(cx) => {
                this.inner.set(None);
                Poll::Ready(Err(timeout::exceeded()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

pin_project_lite::pin_project! {
    /// A response body that ends at the call's deadline at the latest. Dropped, it cancels the call.
    #[derive(Debug)]
    pub struct CallBody<B> {
        #[pin]
        inner: Option<B>,
        guard: Option<Guard>,
    }
}

impl<B> HttpBody for CallBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let (Some(inner), Some(guard)) = (this.inner.as_mut().as_pin_mut(), this.guard.as_mut())
        else {
            return Poll::Ready(None);
        };
        let ending = match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => match frame.trailers_mut() {
                Some(trailers) => {
                    guard.check(trailers);
                    guard.put_aside(trailers);
                    Some(frame)
                }
                None if guard.is_too_late() => Some(super::trailers(&timeout::exceeded())),
                None => return Poll::Ready(Some(Ok(frame))),
            },
            Poll::Ready(Some(Err(error))) => {
                let status = guard.judge(error.into());
                if broke_the_connection(&status) {
                    this.inner.set(None);
                    *this.guard = None;
                    // Trailers have no place for its source.
                    return Poll::Ready(Some(Err(status)));
                }
                Some(trailers(&status))
            }
            Poll::Ready(None) => None,
            Poll::Pending if guard.poll_too_late(cx) => Some(trailers(&timeout::exceeded())),
            Poll::Pending => return Poll::Pending,
        };
        this.inner.set(None);
        *this.guard = None;
        Poll::Ready(ending.map(Ok))
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
