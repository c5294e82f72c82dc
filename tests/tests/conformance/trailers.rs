//! Trailing metadata beside an answer that succeeded.

use ringway::Trailers;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, asking, ours, payload, payloads, rich_status};
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

/// A service of another make answers with bodies of HTTP: what is all there goes as one piece.
pub(crate) async fn of_another_make(way: Way) {
    let service = BenchServer::new(WithTrailers::default());
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = running.client().await;
    let response = client.unary(payload(1, 64)).await.unwrap();
    let Trailers(trailing) = response.extensions().get().unwrap();
    assert_eq!(trailing.get("x-cost").unwrap(), "3");
    for (count, size_bytes) in [(0, 3), (1, 0), (1, 3), (1, 64 << 10), (2, 3), (2, 100_000)] {
        let mut request = Request::new(StreamRequest { count, size_bytes });
        let sent = "there and back".parse().unwrap();
        request.metadata_mut().insert("x-echo", sent);
        let response = client.server_stream(request).await.unwrap();
        assert_eq!(response.metadata().get("x-echo").unwrap(), "there and back");
        let mut stream = response.into_inner();
        for _ in 0..count {
            let message = stream.message().await.unwrap().unwrap();
            assert_eq!(message.data.len(), size_bytes as usize);
        }
        assert_eq!(stream.message().await.unwrap(), None);
        let trailing = stream.trailers().await.unwrap().unwrap();
        assert_eq!(trailing.get("x-cost").unwrap(), "3");
    }
    let only = StreamRequest {
        count: 1,
        size_bytes: 3,
    };
    let response = client.server_stream(asking("fail", only)).await.unwrap();
    let mut stream = response.into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.details(), rich_status().details());
}
