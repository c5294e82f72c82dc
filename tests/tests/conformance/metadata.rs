//! Metadata, both ways.

use ringway_proto::bench::StreamRequest;
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_tests::raw::{framed, send, to};
use ringway_tests::{Running, Way, arrived_names, payload, payloads, plain, reserved_names};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::server::TcpIncoming;

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-echo-text", "a b;c, d=\"e\"".parse().unwrap());
    metadata.insert("x-echo-empty", MetadataValue::from_static(""));
    metadata.insert("x-other", "not echoed".parse().unwrap());
    metadata.insert_bin(
        "x-echo-bytes-bin",
        MetadataValue::from_bytes(&[0, 1, 2, 254, 255]),
    );
    metadata.insert_bin("x-echo-none-bin", MetadataValue::from_bytes(&[]));
    request
}

fn assert_echoed(metadata: &MetadataMap) {
    assert_eq!(metadata.get("x-echo-text").unwrap(), "a b;c, d=\"e\"");
    assert_eq!(metadata.get("x-echo-empty").unwrap(), "");
    assert!(metadata.get("x-other").is_none());
    let bytes = |key| metadata.get_bin(key).unwrap().to_bytes().unwrap();
    assert_eq!(bytes("x-echo-bytes-bin").as_ref(), [0, 1, 2, 254, 255]);
    assert_eq!(bytes("x-echo-none-bin").as_ref(), [0; 0]);
}

pub(crate) async fn ascii_and_binary_both_ways(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let response = client.unary(with_metadata(payload(1, 10))).await.unwrap();
    assert_echoed(response.metadata());
    assert_eq!(response.into_inner(), payload(1, 10));
}

pub(crate) async fn repeated_keys_keep_their_order(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut request = Request::new(payload(1, 10));
    for value in ["one", "two", "three", "two"] {
        request
            .metadata_mut()
            .append("x-echo", value.parse().unwrap());
        let value = MetadataValue::from_bytes(value.as_bytes());
        request.metadata_mut().append_bin("x-echo-bin", value);
    }
    let response = client.unary(request).await.unwrap();
    let text: Vec<_> = response.metadata().get_all("x-echo").iter().collect();
    assert_eq!(text, ["one", "two", "three", "two"]);
    let bytes = response.metadata().get_all_bin("x-echo-bin");
    let bytes: Vec<_> = bytes
        .iter()
        .map(|value| value.to_bytes().unwrap())
        .collect();
    assert_eq!(bytes, ["one", "two", "three", "two"]);
}

pub(crate) async fn on_streams(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let request = StreamRequest {
        count: 2,
        size_bytes: 3,
    };
    let response = client.server_stream(with_metadata(request)).await.unwrap();
    assert_echoed(response.metadata());
    let response = client
        .client_stream(with_metadata(payloads(3, 3)))
        .await
        .unwrap();
    assert_echoed(response.metadata());
    let response = client.bidi(with_metadata(payloads(3, 3))).await.unwrap();
    assert_echoed(response.metadata());
}

/// What arrives of reserved names: at the handler, beside its answer, beside its error.
async fn what_arrives(ours: Running) -> [String; 3] {
    let mut client = ours.client().await;
    let mut ask = async |wish: &str| {
        let mut request = Request::new(payload(1, 1));
        *request.metadata_mut() = reserved_names();
        request.metadata_mut().insert("x-do", wish.parse().unwrap());
        client.unary(request).await
    };
    let answered = ask("return reserved").await.unwrap();
    let failed = ask("fail with reserved").await.unwrap_err();
    names_in(answered.metadata(), failed.metadata())
}

fn names_in(answered: &MetadataMap, failed: &MetadataMap) -> [String; 3] {
    let at_handler = answered.get("x-arrived").unwrap().to_str().unwrap();
    [
        at_handler.to_owned(),
        arrived_names(answered),
        arrived_names(failed),
    ]
}

/// The same over tonic alone.
async fn what_arrives_over_tonic() -> [String; 3] {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", incoming.local_addr().unwrap());
    let service = PlainServer::new(plain::Handler::default());
    let server = tonic::transport::Server::builder().add_service(service);
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let mut client = PlainClient::connect(address).await.unwrap();
    let mut ask = async |wish: &str| {
        let mut request = Request::new(ringway_proto::bench_tonic::Payload::default());
        *request.metadata_mut() = reserved_names();
        request.metadata_mut().insert("x-do", wish.parse().unwrap());
        client.unary(request).await
    };
    let answered = ask("return reserved").await.unwrap();
    let failed = ask("fail with reserved").await.unwrap_err();
    serving.abort();
    names_in(answered.metadata(), failed.metadata())
}

pub(crate) async fn reserved_names_are_left_out_as_tonic_does(way: Way) {
    let arrives = what_arrives(Running::start(way).await).await;
    assert_eq!(arrives, what_arrives_over_tonic().await);
    let beside_messages = "grpc-status-details-bin grpc-of-no-meaning";
    assert_eq!(
        arrives,
        [beside_messages, beside_messages, "grpc-of-no-meaning"]
    );
}

/// A handler that passes its metadata on, in an answer or in a status, must not pass on what tonic panics on.
pub(crate) async fn bad_details_reach_no_handler(way: Way) {
    let running = Running::start(way).await;
    let channel = running.channel().await;
    let request = to("/ringway.bench.v1.Bench/Unary")
        .header("grpc-status-details-bin", "*")
        .header("x-do", "fail with what came");
    let answer = send(&channel, request, framed(0, &[])).await;
    assert_eq!(answer.code(), tonic::Code::NotFound);
    let metadata = answer.status.metadata();
    assert_eq!(metadata.get("x-had-details").unwrap(), "false");
    assert!(!metadata.as_ref().contains_key("grpc-status-details-bin"));
}
