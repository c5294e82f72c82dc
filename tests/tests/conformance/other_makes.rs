//! Stubs and services of tonic's own, over our channel and server.

use ringway::ServerBuilder;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_proto::bench_tonic::{Payload, StreamRequest};
use ringway_tests::{Running, Way, asking, plain, rich_status};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Code;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn payload(sequence: u64, size: usize) -> Payload {
    let data = ringway_tests::payload(sequence, size).data;
    Payload { sequence, data }
}

fn payloads(count: u64, size: usize) -> impl Stream<Item = Payload> + Send + 'static {
    tokio_stream::iter((0..count).map(move |sequence| payload(sequence, size)))
}

fn add_plain(builder: ServerBuilder) -> ServerBuilder {
    builder.add_service(PlainServer::new(plain::Handler::default()))
}

pub(crate) async fn plain_stubs_over_our_channel(way: Way) {
    let running = Running::start(way).await;
    every_kind(running.channel().await).await;
}

pub(crate) async fn plain_stubs_to_a_plain_service(way: Way) {
    let running = Running::with(way, add_plain).await;
    every_kind(running.channel().await).await;
}

/// A client that tonic generated, over whatever carries HTTP.
async fn every_kind<T>(channel: T)
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = PlainClient::new(channel);
    for size in [0, 64, 10_000, 1 << 20, (4 << 20) - 7] {
        let response = client.unary(payload(1, size)).await.unwrap();
        assert_eq!(response.into_inner(), payload(1, size));
    }
    let request = StreamRequest {
        count: 1000,
        size_bytes: 100,
    };
    let stream = client.server_stream(request).await.unwrap().into_inner();
    let sequences: Vec<u64> = stream.map(|item| item.unwrap().sequence).collect().await;
    assert!(sequences.into_iter().eq(0..1000));
    // A single message may come together with the stream's end.
    for count in [0, 1, 2, 500] {
        let summary = client.client_stream(payloads(count, 100)).await.unwrap();
        assert_eq!(summary.into_inner().bytes, 100 * count);
        let replies = client
            .bidi(payloads(count, 100))
            .await
            .unwrap()
            .into_inner();
        let replies: Vec<_> = replies.map(|reply| reply.unwrap().sequence).collect().await;
        assert!(replies.into_iter().eq(0..count));
    }

    let mut request = asking("fail", payload(1, 1));
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (rich_status().code(), rich_status().message())
    );
    assert_eq!(status.details(), rich_status().details());
    request = tonic::Request::new(payload(1, 1));
    request
        .metadata_mut()
        .insert("x-echo", "there and back".parse().unwrap());
    let response = client.unary(request).await.unwrap();
    assert_eq!(response.metadata().get("x-echo").unwrap(), "there and back");
    let status = client.unary(payload(1, (4 << 20) - 6)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    client.unary(payload(1, 1)).await.unwrap();
}

pub(crate) async fn our_stubs_to_a_plain_service(way: Way) {
    let running = Running::with(way, add_plain).await;
    every_kind_of_ours(running.client().await).await;
}

async fn every_kind_of_ours(mut client: BenchClient<ringway::Channel>) {
    for size in [0, 64, 10_000, 1 << 20] {
        let sent = ringway_tests::payload(1, size);
        let response = client.unary(sent.clone()).await.unwrap();
        assert_eq!(response.into_inner(), sent);
    }
    let request = ringway_proto::bench::StreamRequest {
        count: 1000,
        size_bytes: 100,
    };
    let stream = client.server_stream(request).await.unwrap().into_inner();
    assert_eq!(stream.collect::<Vec<_>>().await.len(), 1000);
    let summary = client
        .client_stream(ringway_tests::payloads(500, 100))
        .await
        .unwrap();
    assert_eq!(summary.into_inner().bytes, 50_000);
    let replies = client
        .bidi(ringway_tests::payloads(500, 100))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(replies.collect::<Vec<_>>().await.len(), 500);
    let status = client
        .unary(asking("fail", ringway_tests::payload(1, 1)))
        .await
        .unwrap_err();
    assert_eq!(status.details(), rich_status().details());
}

/// Nothing of ours at the client's end.
pub(crate) async fn a_tonic_client_to_our_server(way: Way) {
    let running = Running::start(way).await;
    let address = running.called().replace("grpc://", "http://");
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap();
    every_kind(channel.connect().await.unwrap()).await;
    running.stop().await;
}

/// Nothing of ours at the server's end.
pub(crate) async fn our_client_to_a_tonic_server(way: Way) {
    let server = tonic::transport::Server::builder()
        .add_service(PlainServer::new(plain::Handler::default()));
    let directory = tempfile::tempdir().unwrap();
    let (address, serving) = if way == Way::GrpcUnix {
        let socket = directory.path().join("grpc.sock");
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let serving = tokio::spawn(server.serve_with_incoming(incoming));
        (format!("unix:{}", socket.display()), serving)
    } else {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("grpc://{}", incoming.local_addr().unwrap());
        (address, tokio::spawn(server.serve_with_incoming(incoming)))
    };
    let channel = ringway::Endpoint::new(&address).unwrap();
    let channel = channel.connect().await.unwrap();
    every_kind_of_ours(BenchClient::new(channel.clone())).await;
    every_kind(channel).await;
    serving.abort();
}

pub(crate) async fn health(way: Way) {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop", tonic_health::ServingStatus::Serving)
        .await;
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let mut client = HealthClient::new(running.channel().await);
    let request = HealthCheckRequest {
        service: "shop".into(),
    };
    let answer = client.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    reporter
        .set_service_status("shop", tonic_health::ServingStatus::NotServing)
        .await;
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
}

/// Asks whoever reflects, in one version of the protocol.
macro_rules! reflected {
    ($version:ident, $channel:expr) => {{
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as pb;

        let asked = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol(BENCH.to_owned()),
            MessageRequest::FileContainingSymbol("no.such.Thing".to_owned()),
        ];
        let requests = asked.map(|message_request| pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message_request),
        });
        let mut client = pb::server_reflection_client::ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(tokio_stream::iter(requests));
        let mut answers = answers.await.unwrap().into_inner();
        let mut next = async || answers.message().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(listed)) = next().await else {
            panic!("no list")
        };
        assert!(listed.service.iter().any(|service| service.name == BENCH));
        let Some(MessageResponse::FileDescriptorResponse(files)) = next().await else {
            panic!("no file")
        };
        assert_eq!(files.file_descriptor_proto.len(), 1);
        let Err(status) = answers.message().await else {
            panic!("it knows what there is not")
        };
        assert_eq!(status.code(), Code::NotFound);
    }};
}

const BENCH: &str = "ringway.bench.v1.Bench";

pub(crate) async fn reflection(way: Way) {
    let contracts = || {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(ringway_proto::bench::DESCRIPTORS)
    };
    let add = |builder: ServerBuilder| {
        builder
            .add_service(contracts().build_v1().unwrap())
            .add_service(contracts().build_v1alpha().unwrap())
    };
    let running = Running::with(way, |builder| add(add_plain(builder))).await;
    reflected!(v1, running.channel().await);
    reflected!(v1alpha, running.channel().await);
}
