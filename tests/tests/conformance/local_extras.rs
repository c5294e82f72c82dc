//! What the local paths do beyond tonic's types.

use std::time::Duration;

use ringway::Trailers;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, eventually, ours};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::failures::asking;
use crate::kinds::{payload, payloads};

/// Adds trailers to what the usual handler answers.
#[derive(Default)]
struct WithTrailers(ours::Handler);

fn add_trailers<T>(mut response: Response<T>) -> Response<T> {
    let mut trailing = MetadataMap::new();
    trailing.insert("x-cost", "3".parse().unwrap());
    response.extensions_mut().insert(Trailers(trailing));
    response
}

#[tonic::async_trait]
impl Bench for WithTrailers {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.0.unary(request).await.map(add_trailers)
    }
    type ServerStreamStream = <ours::Handler as Bench>::ServerStreamStream;
    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        self.0.server_stream(request).await.map(add_trailers)
    }
    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        self.0.client_stream(request).await.map(add_trailers)
    }
    type BidiStream = <ours::Handler as Bench>::BidiStream;
    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        self.0.bidi(request).await.map(add_trailers)
    }
}

async fn with_trailers(way: Way) -> Running {
    let service = BenchServer::new(WithTrailers::default());
    Running::with(way, |builder| builder.add_service(service)).await
}

pub(crate) async fn trailers_with_an_answer(way: Way) {
    let running = with_trailers(way).await;
    let mut client = running.client().await;
    let response = client.unary(payload(1, 64)).await.unwrap();
    let Trailers(trailing) = response.extensions().get().unwrap();
    assert_eq!(trailing.get("x-cost").unwrap(), "3");
    assert!(response.metadata().get("x-cost").is_none());
    let response = client.client_stream(payloads(3, 64)).await.unwrap();
    let Trailers(trailing) = response.extensions().get().unwrap();
    assert_eq!(trailing.get("x-cost").unwrap(), "3");
}

pub(crate) async fn trailers_after_a_stream(way: Way) {
    let running = with_trailers(way).await;
    let mut client = running.client().await;
    let request = StreamRequest {
        count: 3,
        size_bytes: 3,
    };
    let mut stream = client.server_stream(request).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let trailing = stream.trailers().await.unwrap().unwrap();
    assert_eq!(trailing.get("x-cost").unwrap(), "3");
}

fn hanging<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = asking("hang", message);
    request.set_timeout(timeout);
    request
}

pub(crate) async fn a_deadline_ends_a_call(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let short = Duration::from_millis(30);
    let status = client
        .unary(hanging(payload(1, 1), short))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let upload = client.client_stream(hanging(payloads(1, 1), short));
    assert_eq!(upload.await.unwrap_err().code(), Code::DeadlineExceeded);
    eventually("the handlers are dropped", || running.seen.inside() == 0).await;
    let mut request = Request::new(payload(1, 1));
    request.set_timeout(Duration::from_secs(20));
    client.unary(request).await.unwrap();
}

pub(crate) async fn a_deadline_ends_a_stream(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let short = Duration::from_millis(100);
    let request = StreamRequest {
        count: 3,
        size_bytes: 3,
    };
    let response = client.server_stream(hanging(request, short)).await;
    let mut stream = response.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    eventually("the source is dropped", || running.seen.inside() == 0).await;
}

pub(crate) async fn a_deadline_that_is_past(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut request = Request::new(payload(1, 1));
    request.set_timeout(Duration::ZERO);
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(running.seen.entered(), 0);
}
