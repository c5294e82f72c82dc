//! What a generated client calls through: a channel of ours without HTTP types, anything else with
//! them.

use std::any::Any;
use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http::Uri;
use http_body::Body as HttpBody;
use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{InterceptedService, StdError};
use tonic::service::Interceptor;
use tonic::{GrpcMethod, Request, Response, Status, Streaming};
use tower::Service;

use crate::attempt::Plan;
use crate::bridge::{take_head, to_intercept};
use crate::channel::Channel;
use crate::client::Caller;
use crate::method::{CallOptions, Method};

/// A service that takes calls, and what its calls are made with.
///
/// | service | calls |
/// | --- | --- |
/// | [`Channel`] | without HTTP types |
/// | tonic's `InterceptedService` over a [`Channel`], made by [`Client::with_interceptor`] | without HTTP types, but for the head that the interceptor sees |
/// | any other | with HTTP types, as tonic's own |
#[derive(Debug, Clone)]
pub struct Client<T> {
    service: T,
    known: Known,
    /// Seldom there, and large.
    origin: Option<Box<Uri>>,
    options: CallOptions,
}

/// What is known of a client's service.
#[derive(Debug, Clone)]
enum Known {
    /// It is this channel.
    Channel(Channel),
    /// It is tonic's interceptor in front of this channel.
    Intercepted(Channel),
    Nothing,
}

impl<T: 'static> Client<T> {
    /// Calls through `service`.
    pub fn new(service: T) -> Self {
        Self {
            known: channel_of(&service).map_or(Known::Nothing, Known::Channel),
            service,
            origin: None,
            options: CallOptions::default(),
        }
    }

    /// Calls through `service`, to which each request says `origin`. A channel says its own.
    pub fn with_origin(service: T, origin: Uri) -> Self {
        Self {
            origin: Some(Box::new(origin)),
            ..Self::new(service)
        }
    }
}

/// The channel that a service is, if its type says so.
fn channel_of<T: 'static>(service: &T) -> Option<Channel> {
    (service as &dyn Any).downcast_ref::<Channel>().cloned()
}

impl<T, F: Interceptor> Client<InterceptedService<T, F>> {
    /// Calls through `service`, each of them shown to `interceptor` first.
    pub fn with_interceptor(service: T, interceptor: F) -> Self
    where
        T: 'static,
    {
        Self {
            known: channel_of(&service).map_or(Known::Nothing, Known::Intercepted),
            service: InterceptedService::new(service, interceptor),
            origin: None,
            options: CallOptions::default(),
        }
    }
}

impl<T> Client<T> {
    /// Compresses requests on the network path.
    #[must_use]
    pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
        self.options.send_compression = Some(encoding);
        self
    }

    /// Understands responses that are compressed so.
    #[must_use]
    pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
        self.options.accept_compression.push(encoding);
        self
    }

    /// Limits the size of a response, in bytes.
    #[must_use]
    pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
        self.options.limits.decoding = Some(limit);
        self
    }

    /// Limits the size of a request, in bytes.
    #[must_use]
    pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
        self.options.limits.encoding = Some(limit);
        self
    }
}

/// One call, in any of four kinds: over the channel at once where there is one and nothing in front
/// of it. What else there is to do lies in a box, because a future is moved with all that it may
/// become.
macro_rules! call {
    ($client:ident, $kind:ident, $method:ident, $request:ident) => {
        match $client.known {
            Known::Channel(ref mut channel) => {
                Either::Left(channel.$kind($method, &$client.options, $request))
            }
            _ => Either::Right(Box::pin(async move {
                let request = named($method, $request);
                let Self {
                    service,
                    known,
                    origin,
                    options,
                } = $client;
                match known {
                    Known::Channel(channel) | Known::Intercepted(channel) => {
                        let request = intercepted(service, request).await?;
                        channel.$kind($method, options, request).await
                    }
                    Known::Nothing => {
                        let plan = Plan {
                            method: $method,
                            options,
                        };
                        let mut settings = plan.settings();
                        settings.origin = origin.as_deref().cloned();
                        let service = ByRef(service);
                        ringway_net::$kind(service, plan.path(), &settings, request).await
                    }
                }
            })),
        }
    };
}

impl<T> Client<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// One request, one response.
    pub fn unary<M, R>(
        &mut self,
        method: &'static Method,
        request: Request<M>,
    ) -> impl Future<Output = Result<Response<R>, Status>>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        call!(self, unary, method, request)
    }

    /// One request, a stream of responses.
    pub fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        request: Request<M>,
    ) -> impl Future<Output = Result<Response<Streaming<R>>, Status>>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        call!(self, server_streaming, method, request)
    }

    /// A stream of requests, one response.
    pub fn client_streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        request: Request<S>,
    ) -> impl Future<Output = Result<Response<R>, Status>>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        call!(self, client_streaming, method, request)
    }

    /// A stream of requests, a stream of responses.
    pub fn streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        request: Request<S>,
    ) -> impl Future<Output = Result<Response<Streaming<R>>, Status>>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        call!(self, streaming, method, request)
    }
}

/// The request as interceptors and layers see it, with the method that it is for.
fn named<M>(method: &'static Method, mut request: Request<M>) -> Request<M> {
    let name = GrpcMethod::new(method.service(), method.name());
    request.extensions_mut().insert(name);
    request
}

/// Shows a request's head to the interceptor in front of a channel.
async fn intercepted<T, M>(service: &mut T, request: Request<M>) -> Result<Request<M>, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
{
    let (metadata, extensions, message) = request.into_parts();
    drop(take_head());
    let answer = service.call(to_intercept(metadata, extensions));
    if let Some((metadata, extensions)) = take_head() {
        return Ok(Request::from_parts(metadata, extensions, message));
    }
    let refused = answer
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let refused = Status::from_header_map(refused.headers());
    Err(refused.unwrap_or_else(|| Status::internal("the interceptor refused without a status")))
}

/// A service for one call: [`GrpcService`] is not there for what is borrowed.
struct ByRef<'a, T>(&'a mut T);

impl<T: GrpcService<Body>> Service<http::Request<Body>> for ByRef<'_, T> {
    type Response = http::Response<T::ResponseBody>;
    type Error = T::Error;
    type Future = T::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> T::Future {
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceBuilder;

    use super::*;
    use crate::endpoint::Endpoint;

    fn hear(request: Request<()>) -> Result<Request<()>, Status> {
        Ok(request)
    }

    /// What a client knows decides what its calls cost: nothing else would show that it forgot.
    #[tokio::test]
    async fn a_channel_is_known_by_its_type_and_behind_our_own_interceptor() {
        let channel = || Endpoint::from_static("catalog:1").connect_lazy();
        let plain = Client::new(channel());
        assert!(matches!(plain.known, Known::Channel(_)));
        let with_origin = Client::with_origin(channel(), Uri::from_static("http://a:1"));
        assert!(matches!(with_origin.known, Known::Channel(_)));
        let intercepted = Client::with_interceptor(channel(), hear);
        assert!(matches!(intercepted.known, Known::Intercepted(_)));
        // Whatever else is in front of it must see each call.
        let stack = ServiceBuilder::new().map_request(|request: http::Request<Body>| request);
        let stacked = Client::new(stack.service(channel()));
        assert!(matches!(stacked.known, Known::Nothing));
        let nested = Client::with_interceptor(InterceptedService::new(channel(), hear), hear);
        assert!(matches!(nested.known, Known::Nothing));
    }
}
