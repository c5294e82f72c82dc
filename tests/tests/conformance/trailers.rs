//! Trailing metadata beside an answer that succeeded.

use ringway::Trailers;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, ours, payload, payloads};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

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

pub(crate) async fn with_an_answer(way: Way) {
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

pub(crate) async fn after_a_stream(way: Way) {
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
