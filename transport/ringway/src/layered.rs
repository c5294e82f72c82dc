//! tower's HTTP layers in front of services and behind stubs: in force on every path, because every
//! path goes through HTTP types where there is one.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::Message;
use ringway_net::Handler;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::{Status, Streaming};
use tower::{Layer, Service, ServiceExt};

use crate::attempt::Plan;
use crate::client::Caller;
use crate::method::{CallOptions, Method};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The layers of a server, outermost first.
#[derive(Default)]
pub(crate) struct Layers(Vec<Box<dyn Fn(Handler) -> Handler + Send + Sync>>);

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
        self.0.push(Box::new(move |inner| {
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

/// A caller for generated clients made of anything that carries HTTP, such as a
/// [`Channel`](crate::Channel) behind tower's layers.
///
/// Its calls go through HTTP types on every path, which adds about two microseconds to a local one.
///
/// ```
/// use tower::ServiceBuilder;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ringway::Error> {
/// let channel = ringway::Endpoint::new("catalog:50051")?.connect_lazy()?;
/// let traced = ServiceBuilder::new()
///     .map_request(|request: http::Request<tonic::body::Body>| request)
///     .service(channel);
/// let caller = ringway::Layered::new(traced);
/// // let client = CatalogClient::new(caller);
/// # drop(caller); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Layered<S>(S);

impl<S> Layered<S> {
    /// Calls through `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

fn path(method: &'static Method) -> PathAndQuery {
    PathAndQuery::from_static(method.path())
}

impl<S, B> Caller for Layered<S>
where
    S: GrpcService<Body, ResponseBody = B> + Clone + Send,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    async fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: tonic::Request<M>,
    ) -> Result<tonic::Response<R>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let settings = Plan { method, options }.settings();
        ringway_net::unary(self.0.clone(), path(method), &settings, request).await
    }

    async fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: tonic::Request<M>,
    ) -> Result<tonic::Response<Streaming<R>>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let settings = Plan { method, options }.settings();
        ringway_net::server_streaming(self.0.clone(), path(method), &settings, request).await
    }

    async fn client_streaming<T, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: tonic::Request<T>,
    ) -> Result<tonic::Response<R>, Status>
    where
        T: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let settings = Plan { method, options }.settings();
        ringway_net::client_streaming(self.0.clone(), path(method), &settings, request).await
    }

    async fn streaming<T, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: tonic::Request<T>,
    ) -> Result<tonic::Response<Streaming<R>>, Status>
    where
        T: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let settings = Plan { method, options }.settings();
        ringway_net::streaming(self.0.clone(), path(method), &settings, request).await
    }
}
