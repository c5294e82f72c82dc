//! Services that answer with whatever axum makes a response of, as tonic's `add_service` takes them.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum_core::response::IntoResponse;
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// A service whose responses are of tonic's type.
#[derive(Debug, Clone)]
pub(crate) struct Answering<S>(pub(crate) S);

impl<S: NamedService> NamedService for Answering<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Answering<S>
where
    S: Service<Request<Body>, Error = Infallible> + 'static,
    S::Response: IntoResponse,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AnsweringFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        AnsweringFuture {
            inner: self.0.call(request),
        }
    }
}

pin_project_lite::pin_project! {
    pub(crate) struct AnsweringFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, R> Future for AnsweringFuture<F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse + 'static,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(self.project().inner.poll(context));
        Poll::Ready(Ok(as_tonics(response)))
    }
}

/// Generated services answer with tonic's type already: theirs is not boxed once more.
fn as_tonics<R: IntoResponse + 'static>(response: R) -> Response<Body> {
    let mut response = Some(response);
    let tonics = (&mut response as &mut dyn Any).downcast_mut::<Option<Response<Body>>>();
    if let Some(response) = tonics.and_then(Option::take) {
        return response;
    }
    response.map_or_else(Response::default, |other| {
        other.into_response().map(Body::new)
    })
}
