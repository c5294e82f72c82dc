//! tonic's interceptors are in force on every path.

use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{Running, Way};
use tonic::{Code, Request, Status};

use crate::kinds::{payload, payloads};

pub(crate) async fn an_interceptor_adds_metadata(way: Way) {
    let running = Running::start(way).await;
    let mut client =
        BenchClient::with_interceptor(running.channel().await, |mut request: Request<()>| {
            request
                .metadata_mut()
                .insert("x-echo-added", "yes".parse().unwrap());
            Ok(request)
        });
    let response = client.unary(payload(1, 1)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client
        .server_stream(StreamRequest::default())
        .await
        .unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client.client_stream(payloads(2, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
    let response = client.bidi(payloads(2, 2)).await.unwrap();
    assert_eq!(response.metadata().get("x-echo-added").unwrap(), "yes");
}

pub(crate) async fn an_interceptor_refuses(way: Way) {
    let running = Running::start(way).await;
    let refuse = |_: Request<()>| Err(Status::permission_denied("not you"));
    let mut client = BenchClient::with_interceptor(running.channel().await, refuse);
    let status = client.unary(payload(1, 1)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "not you")
    );
    let status = client.bidi(payloads(1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(running.seen.entered(), 0);
}
