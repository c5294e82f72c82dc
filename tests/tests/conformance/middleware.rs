//! tonic's interceptors and tower's layers are in force on every path.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::raw::{framed, send, to};
use ringway_tests::{Running, Way, asking, ours, payload, payloads};
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tower::Layer;

pub(crate) async fn an_interceptor_adds_metadata(way: Way) {
    let running = Running::start(way).await;
    let mut client =
        BenchClient::with_interceptor(running.channel().await, |mut request: Request<()>| {
            request
                .metadata_mut()
                .insert("x-echo-added", "yes".parse().unwrap());
            Ok(request)
        });
    let response = client.unary(payload(1, 1)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client
        .server_stream(StreamRequest::default())
        .await
        .unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client.client_stream(payloads(2, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client.bidi(payloads(2, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
}

pub(crate) async fn an_interceptor_refuses(way: Way) {
    let running = Running::start(way).await;
    let refuse = |_: Request<()>| Err(Status::permission_denied("not you"));
    let mut client = BenchClient::with_interceptor(running.channel().await, refuse);
    let status = client.unary(payload(1, 1)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "not you")
    );
    let status = client.bidi(payloads(1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(running.seen.entered(), 0);
}

/// Counts what passes, and turns away what it is told to.
fn gate(
    passed: &Arc<AtomicU64>,
) -> impl Fn(http::Request<Body>) -> Result<http::Request<Body>, Status> + Clone + use<> {
    let passed = Arc::clone(passed);
    move |mut request| {
        if request.headers().contains_key("x-turn-away") {
            return Err(Status::permission_denied("not you"));
        }
        passed.fetch_add(1, Ordering::SeqCst);
        let yes = http::HeaderValue::from_static("yes");
        request.headers_mut().insert("x-echo-layered", yes);
        Ok(request)
    }
}

/// A layer of [`gate`].
#[derive(Clone)]
struct Gate(Arc<AtomicU64>);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated(inner, Arc::clone(&self.0))
    }
}

#[derive(Clone)]
struct Gated<S>(S, Arc<AtomicU64>);

impl<S> tower::Service<http::Request<Body>> for Gated<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let ready = self.0.poll_ready(context);
        ready.map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = gate(&self.1)(request).map(|request| self.0.call(request));
        Box::pin(async move {
            let answered = answer?.await;
            answered.map_err(|error| Status::from_error(error.into()))
        })
    }
}

async fn every_kind_is_layered<T>(client: &mut BenchClient<T>, passed: &AtomicU64)
where
    T: tonic::client::GrpcService<Body>,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let response = client.unary(payload(1, 1)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-layered").unwrap(), "yes");
    let response = client.server_stream(StreamRequest::default()).await;
    let response = response.unwrap();
    assert_eq!(response.metadata().get("x-echo-layered").unwrap(), "yes");
    let response = client.client_stream(payloads(2, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-layered").unwrap(), "yes");
    assert_eq!(response.into_inner().messages, 2);
    let response = client.bidi(payloads(20, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-layered").unwrap(), "yes");
    assert_eq!(response.into_inner().collect::<Vec<_>>().await.len(), 20);
    assert_eq!(passed.load(Ordering::SeqCst), 4);

    let mut request = Request::new(payload(1, 1));
    let value = "please".parse().unwrap();
    request.metadata_mut().insert("x-turn-away", value);
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "not you")
    );
    assert_eq!(passed.load(Ordering::SeqCst), 4);
}

pub(crate) async fn a_layer_of_the_server(way: Way) {
    let (handler, passed) = (ours::Handler::default(), Arc::default());
    let add = |builder: ringway::ServerBuilder| {
        let service = BenchServer::new(handler.clone());
        builder
            .layer(Gate(Arc::clone(&passed)))
            .add_service(service)
    };
    let running = Running::with(way, add).await;
    let mut client = running.client().await;
    every_kind_is_layered(&mut client, &passed).await;
    assert_eq!(handler.seen.entered(), 4);
    // What no service answers has passed the layer, too.
    let answer = send(&running.channel().await, to("/no/Such"), framed(0, &[])).await;
    assert_eq!(answer.code(), Code::Unimplemented);
    assert_eq!(passed.load(Ordering::SeqCst), 5);
    // Contexts and deadlines reach handlers behind a layer.
    let mut request = asking("left", payload(1, 1));
    request.set_timeout(Duration::from_secs(5));
    let response = client.unary(request).await.unwrap();
    assert!(response.metadata().contains_key("x-left-us"));
    let mut request = asking("hang", payload(1, 1));
    request.set_timeout(Duration::from_millis(50));
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

pub(crate) async fn a_layer_of_the_client(way: Way) {
    let running = Running::start(way).await;
    let passed = Arc::<AtomicU64>::default();
    let layered = Gate(Arc::clone(&passed)).layer(running.channel().await);
    let mut client = BenchClient::new(layered);
    every_kind_is_layered(&mut client, &passed).await;
    assert_eq!(running.seen.entered(), 4);
    let response = client.unary(payload(1, 1)).await.unwrap();
    assert_eq!(ringway::Path::of(&response), Some(way.path()));
}

/// tonic's own way to put an interceptor before a service.
pub(crate) async fn an_interceptor_of_the_server(way: Way) {
    let handler = ours::Handler::default();
    let add = |builder: ringway::ServerBuilder| {
        let check = |mut request: Request<()>| match request.metadata().get("x-token") {
            Some(token) if token == "open" => {
                let yes = "yes".parse().unwrap();
                request.metadata_mut().insert("x-echo-checked", yes);
                Ok(request)
            }
            _ => Err(Status::unauthenticated("who are you?")),
        };
        builder.add_service(BenchServer::with_interceptor(handler.clone(), check))
    };
    let running = Running::with(way, add).await;
    let mut client = running.client().await;
    let status = client.unary(payload(1, 1)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "who are you?")
    );
    let mut request = Request::new(payloads(3, 3));
    let token = "open".parse().unwrap();
    request.metadata_mut().insert("x-token", token);
    let response = client.bidi(request).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-checked").unwrap(), "yes");
    assert_eq!(response.into_inner().collect::<Vec<_>>().await.len(), 3);
    assert_eq!(handler.seen.entered(), 1);
}
