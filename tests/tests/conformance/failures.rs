//! Calls that fail, and connections that don't.

use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{Running, Way, asking, payload, payloads, rich_status};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn assert_rich(status: &Status) {
    let expected = rich_status();
    assert_eq!(status.code(), expected.code(), "{status:?}");
    assert_eq!(status.message(), expected.message());
    assert_eq!(status.details(), expected.details());
    let why: Vec<_> = status.metadata().get_all("x-why").iter().collect();
    assert_eq!(why, ["because", "twice"]);
    let bytes = status.metadata().get_bin("x-why-bin").unwrap().to_bytes();
    assert_eq!(bytes.unwrap().as_ref(), [9, 0, 255]);
}

pub(crate) async fn a_status_comes_whole(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let failed = client.unary(asking("fail", payload(1, 1))).await;
    assert_rich(&failed.unwrap_err());
    let failed = client.client_stream(asking("fail", payloads(3, 10))).await;
    assert_rich(&failed.unwrap_err());
    client.unary(payload(1, 1)).await.unwrap();
}

pub(crate) async fn a_status_ends_a_stream(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let request = StreamRequest {
        count: 100,
        size_bytes: 10,
    };
    let response = client.server_stream(asking("fail", request)).await;
    let mut stream = response.unwrap().into_inner();
    for _ in 0..100 {
        stream.message().await.unwrap().unwrap();
    }
    assert_rich(&stream.message().await.unwrap_err());
    assert_eq!(stream.message().await.unwrap(), None);

    let response = client.bidi(asking("fail", payloads(3, 10))).await;
    let mut stream = response.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    assert_rich(&stream.message().await.unwrap_err());
}

pub(crate) async fn unknown_methods_and_services(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    for path in ["/ringway.bench.v1.Bench/Nothing", "/nobody.Knows/This"] {
        let mut grpc = tonic::client::Grpc::new(running.channel().await);
        grpc.ready().await.unwrap();
        let codec = tonic_codec();
        let called = grpc.unary(Request::new(payload(1, 1)), path.parse().unwrap(), codec);
        assert_eq!(
            called.await.unwrap_err().code(),
            Code::Unimplemented,
            "{path}"
        );
    }
    client.unary(payload(1, 1)).await.unwrap();
}

fn tonic_codec() -> tonic_prost::ProstCodec<Payload, Payload> {
    tonic_prost::ProstCodec::default()
}

pub(crate) async fn a_request_over_the_limit(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    // One byte more than what `unary_of_every_size` shows to pass.
    let size = (4 << 20) - 6;
    let status = client.unary(payload(1, size)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let status = client.client_stream(payloads(3, size)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    client.unary(payload(1, 1 << 20)).await.unwrap();
}

pub(crate) async fn a_response_over_the_limit(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await.max_decoding_message_size(10_000);
    let status = client.unary(payload(1, 20_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let request = StreamRequest {
        count: 3,
        size_bytes: 20_000,
    };
    let mut stream = client.server_stream(request).await.unwrap().into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    client.unary(payload(1, 5_000)).await.unwrap();

    let mut client = running.client().await.max_encoding_message_size(10_000);
    let status = client.unary(payload(1, 20_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    client.unary(payload(1, 5_000)).await.unwrap();
}

pub(crate) fn assert_panicked(status: &Status) {
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(!status.message().contains("asked to panic"), "{status:?}");
}

/// A stream that had begun ends with a status, too.
pub(crate) async fn a_panic_fails_its_call_alone(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut waiting = running.client().await;
    let waits = tokio::spawn(async move { waiting.unary(asking("nap", payload(9, 9))).await });
    let failed = client.unary(asking("panic", payload(1, 1))).await;
    assert_panicked(&failed.unwrap_err());
    let failed = client.client_stream(asking("panic", payloads(3, 1))).await;
    assert_panicked(&failed.unwrap_err());
    let request = StreamRequest {
        count: 3,
        size_bytes: 3,
    };
    let response = client.server_stream(asking("panic", request)).await;
    let mut stream = response.unwrap().into_inner();
    // What was ready together with the panic may be lost with it.
    let ended = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "the stream ended silently"),
            Err(status) => break status,
        }
    };
    assert_panicked(&ended);
    assert_eq!(waits.await.unwrap().unwrap().into_inner(), payload(9, 9));
    for sequence in 0..10 {
        client.unary(payload(sequence, 100)).await.unwrap();
    }
    assert_eq!(running.seen.inside(), 0);
}

/// What tonic-types calls richer errors travels in the details, on unary calls and in streams.
pub(crate) async fn richer_errors(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let unary = client.unary(asking("fail richly", payload(1, 1))).await;
    let request = StreamRequest {
        count: 1,
        size_bytes: 3,
    };
    let response = client.server_stream(asking("fail richly", request)).await;
    let mut stream = response.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    for status in [unary.unwrap_err(), stream.message().await.unwrap_err()] {
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "data");
        assert_eq!(violations[0].description, "is too odd \u{1f608}");
        let delay = details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(std::time::Duration::from_secs(3)));
    }
}
