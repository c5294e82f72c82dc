//! Metadata of 63 KiB goes on every path, to the handler and back, wherever it may stand; more of it, or
//! too many entries, ends the call alone.

use std::pin::Pin;

use ringway::{Channel, Trailers};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, payload, payloads};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

const NAME: &str = "x-large";
const WHERE: &str = "x-where";
/// With its name it is a little less than the limit.
const LARGE_BYTES: usize = 63 * 1024;

/// Sends back what it is sent, where it is asked to.
struct Large;

/// Metadata in front of an answer and behind it, or with a status in its place.
fn send_back<T>(asked: &MetadataMap, message: T) -> Result<Response<T>, Status> {
    let mut back = MetadataMap::new();
    for value in asked.get_all(NAME) {
        back.append(NAME, value.clone());
    }
    let mut response = Response::new(message);
    let place = asked.get(WHERE).map(|place| place.as_bytes());
    match place {
        Some(b"initial") => *response.metadata_mut() = back,
        Some(b"trailing") => drop(response.extensions_mut().insert(Trailers(back))),
        Some(b"both") => {
            *response.metadata_mut() = back.clone();
            response.extensions_mut().insert(Trailers(back));
        }
        Some(b"status") => return Err(Status::with_metadata(Code::Aborted, "as asked", back)),
        _ => {}
    }
    Ok(response)
}

type Payloads = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

#[tonic::async_trait]
impl Bench for Large {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let (metadata, _, payload) = request.into_parts();
        send_back(&metadata, payload)
    }

    type ServerStreamStream = Payloads;

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        let count = request.get_ref().count;
        let payloads = (0..count).map(|sequence| Ok(payload(sequence, 10)));
        let payloads: Payloads = Box::pin(tokio_stream::iter(payloads.collect::<Vec<_>>()));
        send_back(request.metadata(), payloads)
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let mut summary = Summary::default();
        while requests.message().await?.is_some() {
            summary.messages += 1;
        }
        send_back(&metadata, summary)
    }

    type BidiStream = Payloads;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        let (metadata, _, requests) = request.into_parts();
        send_back(&metadata, Box::pin(requests))
    }
}

async fn running(way: Way) -> Running {
    Running::with(way, |builder| builder.add_service(BenchServer::new(Large))).await
}

/// A request with so much metadata, which is to come back there.
fn asking<T>(place: &'static str, len: usize, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(WHERE, place.parse().unwrap());
    metadata.insert(NAME, "x".repeat(len).parse().unwrap());
    request
}

fn assert_large(metadata: &MetadataMap, len: usize) {
    assert_eq!(metadata.get(NAME).unwrap().len(), len);
}

/// In front of an answer and behind it.
fn assert_answered<T>(place: &str, len: usize, response: &Response<T>) {
    if matches!(place, "initial" | "both") {
        assert_large(response.metadata(), len);
    }
    if matches!(place, "trailing" | "both") {
        assert_large(&response.extensions().get::<Trailers>().unwrap().0, len);
    }
}

pub(crate) async fn comes_with_an_answer(way: Way) {
    let running = running(way).await;
    let mut client = running.client().await;
    for place in ["initial", "trailing", "both"] {
        for len in [1_000, 3_000, 13_000, 17_000, LARGE_BYTES] {
            for size in [0, 100, 12_000, 100_000] {
                let sent = payload(1, size);
                let answer = client
                    .unary(asking(place, len, sent.clone()))
                    .await
                    .unwrap();
                assert_answered(place, len, &answer);
                assert_eq!(answer.into_inner(), sent, "{place} {len} {size}");
            }
        }
        let request = asking(place, LARGE_BYTES, payloads(3, 100));
        let answer = client.client_stream(request).await.unwrap();
        assert_answered(place, LARGE_BYTES, &answer);
        assert_eq!(answer.into_inner().messages, 3);
    }
}

pub(crate) async fn comes_with_a_stream_and_with_a_status(way: Way) {
    let running = running(way).await;
    let mut client = running.client().await;
    for place in ["initial", "trailing", "both"] {
        let request = asking(place, LARGE_BYTES, payloads(3, 10));
        let answer = client.bidi(request).await.unwrap();
        if place != "trailing" {
            assert_large(answer.metadata(), LARGE_BYTES);
        }
        let mut stream = answer.into_inner();
        for _ in 0..3 {
            stream.message().await.unwrap().unwrap();
        }
        assert_eq!(stream.message().await.unwrap(), None);
        let trailers = stream.trailers().await.unwrap();
        if place != "initial" {
            assert_large(&trailers.unwrap(), LARGE_BYTES);
        }
    }
    let request = asking("status", LARGE_BYTES, payload(1, 10));
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "as asked")
    );
    assert_large(status.metadata(), LARGE_BYTES);
}

async fn assert_refused(client: &mut BenchClient<Channel>, what: &str, metadata: MetadataMap) {
    let request = |metadata: &MetadataMap| {
        let mut request = Request::new(payload(1, 10));
        *request.metadata_mut() = metadata.clone();
        request
    };
    let status = client.unary(request(&metadata)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{what} {status:?}");
    assert!(
        status.message().starts_with("metadata"),
        "{what} {status:?}"
    );
    client.unary(payload(1, 10)).await.unwrap();
}

/// A hundred thousand values, or one that is too long. Nobody else's calls notice.
pub(crate) async fn too_much_ends_its_call_alone(way: Way) {
    let running = running(way).await;
    let mut client = running.client().await;
    let mut beside = running.client().await;
    let waits = tokio::spawn(async move {
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        let requests_of = tokio_stream::wrappers::ReceiverStream::new(receiver);
        requests.send(payload(1, 1)).await.unwrap();
        let mut stream = beside.bidi(requests_of).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        (requests, stream)
    });
    let (requests, mut stream) = waits.await.unwrap();
    let mut many = MetadataMap::new();
    for _ in 0..100_000 {
        many.append(NAME, "1".parse().unwrap());
    }
    assert_refused(&mut client, "entries", many).await;
    let mut long = MetadataMap::new();
    long.insert(NAME, "x".repeat(70 * 1024).parse().unwrap());
    assert_refused(&mut client, "bytes", long).await;
    requests.send(payload(2, 1)).await.unwrap();
    assert_eq!(stream.message().await.unwrap(), Some(payload(2, 1)));
}

/// Metadata that its handler adds is refused, and the caller is told so.
struct TooMuch;

fn too_much() -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(NAME, "x".repeat(100 * 1024).parse().unwrap());
    metadata
}

#[tonic::async_trait]
impl Bench for TooMuch {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let (metadata, _, payload) = request.into_parts();
        let mut response = Response::new(payload);
        match metadata.get(WHERE).map(|place| place.as_bytes()) {
            Some(b"initial") => *response.metadata_mut() = too_much(),
            Some(b"trailing") => {
                response.extensions_mut().insert(Trailers(too_much()));
            }
            _ => return Err(Status::with_metadata(Code::Aborted, "as asked", too_much())),
        }
        Ok(response)
    }

    type ServerStreamStream = Payloads;

    async fn server_stream(
        &self,
        _request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        let mut response = Response::new(Box::pin(tokio_stream::empty()) as Payloads);
        response.extensions_mut().insert(Trailers(too_much()));
        Ok(response)
    }

    async fn client_stream(
        &self,
        _request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        Err(Status::unimplemented(""))
    }

    type BidiStream = Payloads;

    async fn bidi(
        &self,
        _request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        Err(Status::unimplemented(""))
    }
}

pub(crate) async fn too_much_of_a_handler_is_a_status(way: Way) {
    let service = BenchServer::new(TooMuch);
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = running.client().await;
    for place in ["initial", "trailing"] {
        let status = client
            .unary(asking(place, 10, payload(1, 10)))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{place} {status:?}");
    }
    let mut stream = client
        .server_stream(StreamRequest::default())
        .await
        .unwrap()
        .into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    // What failed for a reason of its own keeps it.
    let status = client
        .unary(asking("status", 10, payload(1, 10)))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "as asked")
    );
}
