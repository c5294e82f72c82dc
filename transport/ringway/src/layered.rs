//! tower's HTTP layers in front of services and behind stubs: in force on every path, because every
//! path goes through HTTP types where there is one.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use ringway_net::Handler;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};
use tracing::Instrument;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The layers of a server, outermost first.
#[derive(Clone, Default)]
pub(crate) struct Layers(Vec<Arc<dyn Fn(Handler) -> Handler + Send + Sync>>);

impl fmt::Debug for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} layers", self.0.len())
    }
}

impl Layers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one within those that are there.
    pub(crate) fn add<L, B>(&mut self, layer: L)
    where
        L: Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.0.push(Arc::new(move |inner| {
            let service = layer.layer(inner);
            let answered = tower::service_fn(move |request| {
                let answer = service.clone().oneshot(request);
                async move {
                    Ok(match answer.await {
                        Ok(response) => response.map(Body::new),
                        // A layer that fails a call says so by a status, as behind tonic's server.
                        Err(error) => Status::from_error(error.into()).into_http(),
                    })
                }
            });
            Handler::new(answered)
        }));
    }

    /// `inner` behind all of them.
    pub(crate) fn around(&self, inner: Handler) -> Handler {
        self.0.iter().rev().fold(inner, |inner, layer| layer(inner))
    }
}

/// Has calls handled in spans of the application's own making.
#[derive(Clone)]
pub(crate) struct TraceFn(Arc<MakeSpan>);

type MakeSpan = dyn Fn(&Request<()>) -> tracing::Span + Send + Sync;

impl fmt::Debug for TraceFn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TraceFn")
    }
}

impl TraceFn {
    pub(crate) fn by(make: impl Fn(&Request<()>) -> tracing::Span + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// `inner`, each of whose calls is handled in a span.
    pub(crate) fn around(&self, inner: Handler) -> Handler {
        let make = Arc::clone(&self.0);
        Handler::new(tower::service_fn(move |request: Request<Body>| {
            let (head, body) = request.into_parts();
            let head = Request::from_parts(head, ());
            let span = make(&head);
            let (head, ()) = head.into_parts();
            let answer = inner.clone().oneshot(Request::from_parts(head, body));
            answer.instrument(span)
        }))
    }
}

/// A service as it is. Generated clients take any that carries HTTP, such as a
/// [`Channel`](crate::Channel) behind tower's layers, so nothing needs this any more.
#[deprecated(note = "give the service to the generated client as it is")]
#[derive(Debug, Clone)]
pub struct Layered<S>(S);

#[allow(deprecated)]
impl<S> Layered<S> {
    /// Calls through `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

#[allow(deprecated)]
impl<S: Service<Request<Body>>> Service<Request<Body>> for Layered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}
