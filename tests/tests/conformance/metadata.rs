//! Metadata, both ways.

use ringway_proto::bench::StreamRequest;
use ringway_tests::{Running, Way};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::kinds::{payload, payloads};

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
