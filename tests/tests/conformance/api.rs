//! What people who come from tonic write, on every path: services and clients that are more than
//! generated ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ringway::{Channel, ServerBuilder};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{Running, Way, asking, eventually, ours, payload};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::channel::Change;
use tonic::{Code, GrpcMethod, Request, Status};
use tower::Service;

/// Counts calls, and passes its inner service's future on as its own: what would be skipped if a service
/// were known by less than its own future.
#[derive(Clone)]
struct Counted<S>(S, Arc<AtomicU64>);

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.call(request)
    }
}

pub(crate) async fn a_wrapped_service_sees_each_call(way: Way) {
    let calls = Arc::new(AtomicU64::new(0));
    let service = BenchServer::new(ours::Handler::default());
    let service = Counted(service, Arc::clone(&calls));
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = running.client().await;
    client.unary(payload(1, 1)).await.unwrap();
    client
        .server_stream(StreamRequest::default())
        .await
        .unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

pub(crate) async fn routes_answer_for_all_other_services(way: Way) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<BenchServer<ours::Handler>>().await;
    let running = Running::with(way, |builder| {
        let others = Routes::new(BenchServer::new(ours::Handler::default()));
        builder.add_service(health).add_routes(others)
    })
    .await;
    running.client().await.unary(payload(1, 1)).await.unwrap();
    let channel = running.channel().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = tonic_health::pb::HealthCheckRequest {
        service: "nobody".to_owned(),
    };
    // The service's own answer, not that of routes that do not know it.
    let status = health.check(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

pub(crate) async fn calls_are_handled_in_spans_of_the_applications_own(way: Way) {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let add = |builder: ServerBuilder| {
        let builder = builder.trace_fn(move |request| {
            assert_eq!(request.uri().path(), "/ringway.bench.v1.Bench/Unary");
            counted.fetch_add(1, Ordering::SeqCst);
            tracing::Span::none()
        });
        builder.add_service(BenchServer::new(ours::Handler::default()))
    };
    let running = Running::with(way, add).await;
    running.client().await.unary(payload(1, 1)).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

fn name_the_method(mut request: Request<()>) -> Result<Request<()>, Status> {
    let method = request.extensions().get::<GrpcMethod<'_>>().unwrap();
    let name = format!("{}/{}", method.service(), method.method());
    let metadata = request.metadata_mut();
    metadata.insert("x-echo-method", name.parse().unwrap());
    Ok(request)
}

pub(crate) async fn interceptors_see_the_method(way: Way) {
    let running = Running::start(way).await;
    let channel = running.channel().await;
    let intercepted = InterceptedService::new(channel.clone(), name_the_method);
    let by_value = BenchClient::new(intercepted).unary(payload(1, 1)).await;
    let captured = BenchClient::with_interceptor(channel, name_the_method)
        .unary(payload(1, 1))
        .await;
    for response in [by_value, captured] {
        let response = response.unwrap();
        let name = response.metadata().get("x-echo-method").unwrap();
        assert_eq!(name, "ringway.bench.v1.Bench/Unary");
        assert_eq!(ringway::Path::of(&response), Some(way.path()));
    }
}

pub(crate) async fn calls_above_a_channels_limit_wait(way: Way) {
    let running = Running::start(way).await;
    let endpoint = running.endpoint().concurrency_limit(2);
    let client = BenchClient::new(endpoint.connect().await.unwrap());
    calls_wait(&running, client).await;
}

/// Through HTTP types, and through interceptors without them.
pub(crate) async fn calls_above_a_limit_wait_for_clients_of_other_makes(way: Way) {
    let running = Running::start(way).await;
    let endpoint = running.endpoint().concurrency_limit(2);
    let channel = endpoint.connect().await.unwrap();
    let intercepted = InterceptedService::new(channel.clone(), name_the_method);
    calls_wait(&running, BenchClient::new(intercepted)).await;
    let captured = BenchClient::with_interceptor(channel, name_the_method);
    calls_wait(&running, captured).await;
}

/// The limits of the endpoint that takes a call hold, whatever leads there.
pub(crate) async fn calls_above_the_limit_of_one_of_several_endpoints_wait(way: Way) {
    let running = Running::start(way).await;
    let endpoint = running.endpoint().concurrency_limit(1);
    // Of two members, each takes one of the two calls that hang.
    let other = match way {
        Way::Pipe => running.endpoint().concurrency_limit(1),
        _ => endpoint.clone(),
    };
    let channel = Channel::balance_list([endpoint, other].into_iter());
    calls_wait(&running, BenchClient::new(channel.clone())).await;
    let intercepted = InterceptedService::new(channel, name_the_method);
    calls_wait(&running, BenchClient::new(intercepted)).await;
    let (channel, changes) = Channel::balance_channel(1);
    let endpoint = running.endpoint().concurrency_limit(2);
    changes.send(Change::Insert(1, endpoint)).await.unwrap();
    let mut client = BenchClient::new(channel);
    while client.unary(payload(1, 1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    calls_wait(&running, client).await;
}

pub(crate) async fn calls_above_the_rate_of_one_of_several_endpoints_wait(way: Way) {
    let running = Running::start(way).await;
    let long = Duration::from_secs(600);
    let endpoint = running.endpoint().rate_limit(2, long);
    let mut client = BenchClient::new(Channel::balance_list([endpoint].into_iter()));
    for _ in 0..2 {
        client.unary(payload(1, 1)).await.unwrap();
    }
    let mut late = Request::new(payload(1, 1));
    late.set_timeout(Duration::from_millis(50));
    let status = client.unary(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(running.seen.entered(), 2);
}

/// Two calls that hang are all that `client` may have on their way.
async fn calls_wait<T>(running: &Running, client: BenchClient<T>)
where
    BenchClient<T>: Clone,
    T: tonic::client::GrpcService<Body> + Send + 'static,
    T::Error: Into<tonic::codegen::StdError>,
    T::Future: Send,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let before = running.seen.entered();
    let hanging = [(); 2].map(|()| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(asking("hang", payload(1, 1))).await })
    });
    eventually("two calls hang", || running.seen.inside() == 2).await;
    let mut late = Request::new(StreamRequest::default());
    late.set_timeout(Duration::from_millis(50));
    let status = client.clone().server_stream(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(running.seen.entered(), before + 2, "a handler ran");
    for call in hanging {
        call.abort();
    }
    eventually("they are given up", || running.seen.inside() == 0).await;
    client.clone().unary(payload(1, 1)).await.unwrap();
}
