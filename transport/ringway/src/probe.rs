//! How a server finds out that a service is a generated one, and by which way calls reach it without
//! HTTP types.
//!
//! A generated service's future is [`Answer`] of the service itself. A service that wraps it has a
//! future of another type, even where it passes the inner one's on: so no service behind a layer or an
//! interceptor is ever taken for one that stands alone, and nothing in front of it is skipped.

use std::any::{Any, TypeId};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::response::IntoResponse;
use http::{Request, Response, Version};
use ringway_local::HandlerFuture;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};

use crate::answering::Answering;
use crate::bridge::HttpService;
use crate::dispatch::{LocalService, ServerCall};
use crate::method::Method;

/// The future of the generated service `S`.
pub struct Answer<S, E = Infallible> {
    answer: BoxFuture<Response<Body>, E>,
    found: Option<Found>,
    of: PhantomData<fn() -> S>,
}

/// The way to a service without HTTP types.
enum Found {
    Always(Arc<dyn LocalService>),
    /// Unless a call's metadata names one of these.
    Unless(Arc<dyn LocalService>, &'static [&'static str]),
}

impl<S, E> Answer<S, E> {
    /// Of a call.
    pub fn new(answer: BoxFuture<Response<Body>, E>) -> Self {
        Self {
            answer,
            found: None,
            of: PhantomData,
        }
    }

    /// Tells a server the way to `service`.
    pub fn found(service: S) -> Self
    where
        S: LocalService,
        E: Send + 'static,
    {
        Self::telling(Some(Found::Always(Arc::new(service))))
    }

    /// Tells the way to `inner`, for all calls but those whose metadata names one of `unless`.
    pub(crate) fn through<I>(inner: Answer<I, E>, unless: &'static [&'static str]) -> Self
    where
        E: Send + 'static,
    {
        Self::telling(inner.found.map(|found| match found {
            Found::Always(service) => Found::Unless(service, unless),
            nested => nested,
        }))
    }

    /// Tells that no way without HTTP types leads to the service.
    pub(crate) fn nothing_found() -> Self
    where
        E: Send + 'static,
    {
        Self::telling(None)
    }

    fn telling(found: Option<Found>) -> Self
    where
        E: Send + 'static,
    {
        Self {
            answer: Box::pin(ready(Ok(Response::default()))),
            found,
            of: PhantomData,
        }
    }
}

impl<S, E> Future for Answer<S, E> {
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(context)
    }
}

impl<S, E> fmt::Debug for Answer<S, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// Marks a request that asks for the way to a service.
#[derive(Clone, Copy)]
struct Probe;

/// Whether a request asks for the way to a service without HTTP types. No peer can send one.
pub fn is_probe<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_09 && request.extensions().get::<Probe>().is_some()
}

/// A request that asks for the way to a service.
pub(crate) fn probe() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.version_mut() = Version::HTTP_09;
    request.extensions_mut().insert(Probe);
    request
}

/// The way to `service` without HTTP types, if it is a generated one with nothing in front of it.
pub(crate) fn local_service<S>(service: &S) -> Option<Arc<dyn LocalService>>
where
    S: Service<Request<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    if !answers_probes::<S, Infallible>() {
        return None;
    }
    let mut answer = service.clone().call(probe());
    let answer = (&mut answer as &mut dyn Any).downcast_mut::<Answer<S>>()?;
    match answer.found.take()? {
        Found::Always(service) => Some(service),
        Found::Unless(inner, names) => Some(Arc::new(Unless {
            inner,
            names,
            http: HttpService::new(Answering(service.clone())),
        })),
    }
}

/// Whether a service's future says that it answers probes. No other is asked: it might take the probe
/// for a call.
pub(crate) fn answers_probes<S, E>() -> bool
where
    S: Service<Request<Body>> + 'static,
    S::Future: 'static,
    E: 'static,
{
    TypeId::of::<S::Future>() == TypeId::of::<Answer<S, E>>()
}

/// A service some of whose calls need HTTP types.
struct Unless {
    inner: Arc<dyn LocalService>,
    names: &'static [&'static str],
    http: HttpService,
}

impl LocalService for Unless {
    fn methods(&self) -> &'static [Method] {
        self.inner.methods()
    }

    fn dispatch(&self, index: usize, call: ServerCall<'_>) -> HandlerFuture {
        if call.has_metadata(self.names) {
            self.http.answer(call)
        } else {
            self.inner.dispatch(index, call)
        }
    }
}
