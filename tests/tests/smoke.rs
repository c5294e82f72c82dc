//! First light: every kind of call over shared memory and inside one process.
#![allow(clippy::unwrap_used)]

use std::pin::Pin;

use bytes::Bytes;
use ringway::{Endpoint, Path, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

struct Echo;

#[tonic::async_trait]
impl Bench for Echo {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }
    type ServerStreamStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;
    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let StreamRequest { count, size_bytes } = request.into_inner();
        let data = Bytes::from(vec![7; size_bytes as usize]);
        let items = (0..count).map(move |sequence| {
            Ok(Payload {
                sequence,
                data: data.clone(),
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(items))))
    }
    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let mut stream = request.into_inner();
        let mut summary = Summary::default();
        while let Some(payload) = stream.message().await? {
            summary.messages += 1;
            summary.bytes += payload.data.len() as u64;
        }
        Ok(Response::new(summary))
    }
    type BidiStream = ReceiverStream<Result<Payload, Status>>;
    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        let mut stream = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(payload)) = stream.message().await {
                if sender.send(Ok(payload)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn all_kinds(path: Path, name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .name(name)
        .directory(directory.path())
        .add_service(BenchServer::new(Echo))
        .bind()
        .await
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(async {
        let _ = stopped.await;
    }));
    tokio::task::yield_now().await;
    let channel = Endpoint::new(format!("{path}://{name}"))
        .unwrap()
        .directory(directory.path())
        .connect()
        .await
        .unwrap();
    let mut client = BenchClient::new(channel);
    for size in [0, 64, 5000, 100_000, 1 << 20] {
        for sequence in 0..20 {
            let data = Bytes::from(vec![3; size]);
            let response = client
                .unary(Payload {
                    sequence,
                    data: data.clone(),
                })
                .await
                .unwrap();
            assert_eq!(Path::of(&response), Some(path));
            assert_eq!(response.into_inner(), Payload { sequence, data });
        }
    }
    let mut stream = client
        .server_stream(StreamRequest {
            count: 5000,
            size_bytes: 64,
        })
        .await
        .unwrap()
        .into_inner();
    let mut seen = 0;
    while let Some(payload) = stream.message().await.unwrap() {
        assert_eq!(payload.sequence, seen);
        seen += 1;
    }
    assert_eq!(seen, 5000);
    let payloads = (0..3000).map(|sequence| Payload {
        sequence,
        data: Bytes::from(vec![1; 100]),
    });
    let summary = client
        .client_stream(tokio_stream::iter(payloads.collect::<Vec<_>>()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        summary,
        Summary {
            messages: 3000,
            bytes: 300_000
        }
    );
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut replies = client
        .bidi(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    for sequence in 0..500 {
        sender
            .send(Payload {
                sequence,
                data: Bytes::new(),
            })
            .await
            .unwrap();
        assert_eq!(replies.next().await.unwrap().unwrap().sequence, sequence);
    }
    drop(sender);
    assert!(replies.next().await.is_none());
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shm() {
    all_kinds(Path::Shm, "smoke:1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inproc() {
    all_kinds(Path::Inproc, "smoke-inproc:1").await
}

#[tokio::test]
async fn shm_on_one_thread() {
    all_kinds(Path::Shm, "smoke-one:1").await
}
