//! Handlers that panic where streams are: before the first message, between two of them, and in the
//! stream that they answer with.

use std::pin::Pin;

use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, asking, payload};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::failures::assert_panicked;

/// Panics where it is asked to.
struct Panics;

fn panic_if(metadata: &MetadataMap, place: &str) {
    if metadata.get("x-do").is_some_and(|wish| wish == place) {
        panic!("asked to panic {place}");
    }
}

type Payloads = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

#[tonic::async_trait]
impl Bench for Panics {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type ServerStreamStream = Payloads;

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        panic_if(request.metadata(), "at once");
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        panic_if(&metadata, "at once");
        while requests.message().await?.is_some() {
            panic_if(&metadata, "between messages");
        }
        Ok(Response::new(Summary::default()))
    }

    type BidiStream = Payloads;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        panic_if(&metadata, "at once");
        if metadata
            .get("x-do")
            .is_some_and(|wish| wish == "after a request")
        {
            requests.message().await?;
            panic_if(&metadata, "after a request");
        }
        let replies = requests.map(move |request| {
            let request = request?;
            if request.sequence > 1 {
                panic_if(&metadata, "between messages");
            }
            Ok(request)
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// Requests that go on, as long as somebody holds the sender.
async fn going_on() -> (mpsc::Sender<Payload>, ReceiverStream<Payload>) {
    let (requests, receiver) = mpsc::channel(4);
    requests.send(payload(1, 10)).await.unwrap();
    (requests, ReceiverStream::new(receiver))
}

pub(crate) async fn an_upload_ends(way: Way) {
    let service = BenchServer::new(Panics);
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = running.client().await;
    for place in ["at once", "between messages"] {
        let (_requests, stream) = going_on().await;
        let ended = client.client_stream(asking(place, stream)).await;
        assert_panicked(&ended.unwrap_err());
        client.unary(payload(1, 10)).await.unwrap();
    }
    let request = StreamRequest::default();
    let ended = client.server_stream(asking("at once", request)).await;
    assert_panicked(&ended.unwrap_err());
    client.unary(payload(1, 10)).await.unwrap();
}

pub(crate) async fn an_exchange_ends(way: Way) {
    let service = BenchServer::new(Panics);
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = running.client().await;
    for place in ["at once", "after a request"] {
        let (_requests, stream) = going_on().await;
        let ended = client.bidi(asking(place, stream)).await;
        assert_panicked(&ended.unwrap_err());
        client.unary(payload(1, 10)).await.unwrap();
    }
    let (requests, stream) = going_on().await;
    let answered = client.bidi(asking("between messages", stream)).await;
    let mut replies = answered.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap(), Some(payload(1, 10)));
    requests.send(payload(2, 10)).await.unwrap();
    assert_panicked(&replies.message().await.unwrap_err());
    client.unary(payload(1, 10)).await.unwrap();
}
