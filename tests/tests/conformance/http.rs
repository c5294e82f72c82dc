//! What services, interceptors and layers see of a call's head is there on every path, and what they answer in HTTP's
//! words means the same.

use http::{HeaderValue, Response, StatusCode};
use ringway::{Channel, ServerBuilder};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_tests::{Running, Way, ours, payload, payloads, plain};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, GrpcMethod, Request};
use tower::layer::layer_fn;
use tower::util::MapRequestLayer;

use crate::context::{Chain, chain_to, three};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Servers whose handlers see of a call what HTTP tells of it.
const SEEING: [fn(ServerBuilder) -> ServerBuilder; 4] = [
    |builder| {
        let layer = MapRequestLayer::new(|request: http::Request<Body>| request);
        builder
            .layer(layer)
            .add_service(BenchServer::new(ours::Handler::default()))
    },
    |builder| builder.add_service(BenchServer::with_interceptor(ours::Handler::default(), Ok)),
    |builder| builder.add_service(PlainServer::new(plain::Handler::default())),
    |builder| {
        builder
            .connect_info(true)
            .add_service(BenchServer::new(ours::Handler::default()))
    },
];

fn asking_what_came<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let wish = HeaderValue::from_static("say what came");
    request.metadata_mut().as_mut().insert("x-do", wish);
    request
}

fn came<'a>(said: &'a MetadataMap, name: &str) -> Option<&'a str> {
    Some(said.get(format!("x-came-{name}"))?.to_str().unwrap())
}

pub(crate) async fn handlers_see_what_the_client_is_called(way: Way) {
    let own = match way {
        Way::GrpcTcp | Way::GrpcUnix => "tonic/",
        _ => "ringway/",
    };
    for add in SEEING {
        let running = Running::with(way, add).await;
        let named = running.endpoint().user_agent("shop/7").unwrap();
        let named = BenchClient::new(named.connect().await.unwrap());
        for (mut client, starts_with) in [
            (running.client().await, own.to_owned()),
            (named, format!("shop/7 {own}")),
        ] {
            let unary = client.unary(asking_what_came(payload(1, 1))).await.unwrap();
            let down = client.server_stream(asking_what_came(three()));
            let down = down.await.unwrap();
            let up = client.client_stream(asking_what_came(payloads(2, 2)));
            let up = up.await.unwrap();
            let both = client.bidi(asking_what_came(payloads(2, 2))).await.unwrap();
            for said in [
                unary.metadata(),
                down.metadata(),
                up.metadata(),
                both.metadata(),
            ] {
                let called = came(said, "user-agent").unwrap();
                assert!(called.starts_with(&starts_with), "{called}");
                assert_eq!(
                    called.matches("shop/7").count(),
                    starts_with.matches("shop/7").count()
                );
            }
        }
    }
}

/// The name that the endpoint asked for which takes a call.
pub(crate) async fn handlers_see_what_one_of_several_endpoints_is_called(way: Way) {
    for add in SEEING {
        let running = Running::with(way, add).await;
        let named = running.endpoint().user_agent("shop/7").unwrap();
        let channel = Channel::balance_list([named].into_iter());
        let mut client = BenchClient::new(channel.clone());
        let unary = client.unary(asking_what_came(payload(1, 1))).await.unwrap();
        let both = client.bidi(asking_what_came(payloads(2, 2))).await.unwrap();
        // Through HTTP types.
        let same = MapRequestLayer::new(|request: http::Request<Body>| request);
        let mut plain = BenchClient::new(tower::Layer::layer(&same, channel));
        let through = plain.unary(asking_what_came(payload(1, 1))).await.unwrap();
        for said in [unary.metadata(), both.metadata(), through.metadata()] {
            let called = came(said, "user-agent").unwrap();
            assert!(called.starts_with("shop/7 "), "{called}");
        }
    }
}

/// A trace that a handler passes on travels beside the metadata on local paths.
pub(crate) async fn handlers_see_the_trace_that_they_belong_to(way: Way) {
    for add in SEEING {
        let back = Running::with(way, add).await;
        let Chain { front, .. } = &chain_to(way, back).await;
        let mut request = asking_what_came(payload(1, 1));
        let parent = HeaderValue::from_static(TRACEPARENT);
        request
            .metadata_mut()
            .as_mut()
            .insert("traceparent", parent);
        let answer = front.client().await.unary(request).await.unwrap();
        let parent = came(answer.metadata(), "traceparent").unwrap();
        assert!(parent.contains(TRACE_ID), "{parent}");
    }
}

pub(crate) async fn a_layer_sees_whom_the_client_dials(way: Way) {
    let host = match way {
        Way::Shm | Way::Socket | Way::SocketEpoll | Way::Inproc => "tested",
        Way::GrpcTcp => "127.0.0.1",
        // Nothing was dialled.
        Way::Pipe | Way::GrpcUnix => return,
    };
    let running = Running::with(way, |builder: ServerBuilder| {
        let layer = MapRequestLayer::new(|mut request: http::Request<Body>| {
            let host = HeaderValue::from_str(request.uri().host().unwrap_or("none")).unwrap();
            request.headers_mut().insert("x-echo-host", host);
            request
        });
        builder
            .layer(layer)
            .add_service(BenchServer::new(ours::Handler::default()))
    })
    .await;
    let answer = running.client().await.unary(payload(1, 1)).await.unwrap();
    assert_eq!(answer.metadata().get("x-echo-host").unwrap(), host);
}

pub(crate) async fn a_layer_of_the_client_sees_the_method(way: Way) {
    let running = Running::start(way).await;
    let naming = MapRequestLayer::new(|mut request: http::Request<Body>| {
        let method = request.extensions().get::<GrpcMethod<'_>>().unwrap();
        let name = format!("{}/{}", method.service(), method.method());
        let name = HeaderValue::from_str(&name).unwrap();
        request.headers_mut().insert("x-echo-method", name);
        request
    });
    let layered = tower::Layer::layer(&naming, running.channel().await);
    let answer = BenchClient::new(layered)
        .unary(payload(1, 1))
        .await
        .unwrap();
    let name = answer.metadata().get("x-echo-method").unwrap();
    assert_eq!(name, "ringway.bench.v1.Bench/Unary");
}

/// As gRPC maps it, and whatever its body says.
pub(crate) async fn a_layers_bare_status_means_the_same(way: Way) {
    for (status, code) in [
        (StatusCode::BAD_REQUEST, Code::Internal),
        (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
        (StatusCode::FORBIDDEN, Code::PermissionDenied),
        (StatusCode::NOT_FOUND, Code::Unimplemented),
        (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable),
        (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        (StatusCode::IM_A_TEAPOT, Code::Unknown),
    ] {
        for body in ["", "come back with a token"] {
            let running = Running::with(way, |builder: ServerBuilder| {
                let layer = layer_fn(move |_inner: ringway::Handler| {
                    tower::service_fn(move |_request: http::Request<Body>| async move {
                        let body = http_body_util::Full::from(body.as_bytes());
                        let mut answer = Response::new(Body::new(body));
                        *answer.status_mut() = status;
                        Ok::<_, std::convert::Infallible>(answer)
                    })
                });
                builder
                    .layer(layer)
                    .add_service(BenchServer::new(ours::Handler::default()))
            })
            .await;
            let mut client = running.client().await;
            let unary = client.unary(payload(1, 1)).await.unwrap_err();
            let stream = client.bidi(payloads(1, 1)).await.unwrap_err();
            for told in [unary, stream] {
                assert_eq!(told.code(), code, "{status} {told:?}");
                let number = status.as_str();
                assert!(told.message().contains(number), "{status} {told:?}");
            }
        }
    }
}
