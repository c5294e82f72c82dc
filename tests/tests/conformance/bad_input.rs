//! What no stub would send, and what no handler should answer: the codes are those of plain tonic,
//! which is asked the same.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, Response};
use ringway::{Channel, Endpoint};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_proto::grpc_testing::test_service_server::TestServiceServer;
use ringway_tests::raw::{framed, send, send_in_parts, to};
use ringway_tests::{Running, Way, payload, payloads, plain};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

const UNARY: &str = "/ringway.bench.v1.Bench/Unary";
const UPLOAD: &str = "/ringway.bench.v1.Bench/ClientStream";
const LIMIT: usize = 4 << 20;

/// A server in which nothing is ours.
async fn tonics_own() -> Channel {
    let service = PlainServer::new(plain::Handler::default());
    served_by_tonic(tonic::transport::Server::builder().add_service(service)).await
}

async fn served_by_tonic(server: tonic::transport::server::Router) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Endpoint::new(format!("grpc://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// A payload's encoding of exactly `len` bytes.
fn encoded(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let data_len = len - 5;
    // Field 2, bytes, with its length in four bytes.
    bytes[0] = 0x12;
    for (at, byte) in bytes[1..5].iter_mut().enumerate() {
        let more = if at < 3 { 0x80 } else { 0 };
        *byte = u8::try_from(data_len >> (7 * at) & 0x7f).unwrap() | more;
    }
    bytes
}

/// Groups of a field that nobody knows, one within the other.
fn nested(depth: usize) -> Vec<u8> {
    [vec![0x1b; depth], vec![0x1c; depth]].concat()
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("truncated", vec![0x12, 5, 1]),
        (
            "an over-long varint",
            [&[0x08][..], &[0xff; 10], &[1]].concat(),
        ),
        ("groups that do not end", vec![0x1b; 50]),
        ("101 nested groups", nested(101)),
        ("a wire type that is none", vec![0x0e, 0]),
        ("field zero", vec![0x00, 0]),
        ("the wrong wire type", vec![0x0a, 1, 1]),
    ]
}

pub(crate) async fn malformed_messages(way: Way) {
    let running = Running::start(way).await;
    let (ours, tonics) = (running.channel().await, tonics_own().await);
    for (name, message) in malformed() {
        for path in [UNARY, UPLOAD] {
            let body = framed(0, &message);
            let expected = send(&tonics, to(path), body.clone()).await;
            assert_eq!(expected.code(), Code::Internal, "tonic changed: {name}");
            let answer = send(&ours, to(path), body).await;
            assert_eq!(answer.code(), expected.code(), "{name} {path} {answer:?}");
        }
    }
    for path in [UNARY, UPLOAD] {
        let answer = send(&ours, to(path), framed(0, &nested(99))).await;
        assert_eq!(answer.code(), Code::Ok, "{path} {answer:?}");
    }
    assert_fine(&ours).await;
}

/// Our bench has no strings; gRPC's tests have.
pub(crate) async fn strings_that_are_no_utf8(way: Way) {
    let running = Running::with(way, ringway_interop::add_to).await;
    let service = TestServiceServer::new(ringway_interop::TestService::default());
    let tonics = served_by_tonic(tonic::transport::Server::builder().add_service(service)).await;
    let ours = running.channel().await;
    // The text of the status to answer with.
    let bad = framed(0, &[0x3a, 3, 0x12, 1, 0xff]);
    for method in ["UnaryCall", "StreamingOutputCall", "FullDuplexCall"] {
        let path = format!("/grpc.testing.TestService/{method}");
        let expected = send(&tonics, to(&path), bad.clone()).await;
        assert_eq!(expected.code(), Code::Internal, "tonic changed: {method}");
        let answer = send(&ours, to(&path), bad.clone()).await;
        assert_eq!(answer.code(), Code::Internal, "{method} {answer:?}");
        let good = framed(0, &[0x3a, 3, 0x12, 1, b'!']);
        let answer = send(&ours, to(&path), good).await;
        assert_eq!(answer.code(), Code::Ok, "{method} {answer:?}");
    }
}

async fn assert_fine(channel: &Channel) {
    let answer = send(channel, to(UNARY), framed(0, &[8, 7])).await;
    assert_eq!(answer.code(), Code::Ok, "{answer:?}");
    assert_eq!(answer.messages, [[8, 7].as_slice()]);
}

pub(crate) async fn malformed_bodies(way: Way) {
    let running = Running::start(way).await;
    let (ours, tonics) = (running.channel().await, tonics_own().await);
    let two = [framed(0, &[8, 1]), framed(0, &[8, 2])];
    let bodies: Vec<(&str, Bytes)> = vec![
        ("no message", Bytes::new()),
        ("an empty message", framed(0, &[])),
        ("half a prefix", Bytes::from_static(&[0, 0])),
        ("half a message", framed(0, &[8, 7]).slice(..6)),
        ("two messages", two.concat().into()),
        ("no such flag", framed(7, &[8, 7])),
        ("compressed, nobody says how", framed(1, &[8, 7])),
        ("exactly the limit", framed(0, &encoded(LIMIT))),
        ("one byte more", framed(0, &encoded(LIMIT + 1))),
    ];
    for (name, body) in bodies {
        let expected = send(&tonics, to(UNARY), body.clone()).await;
        let answer = send(&ours, to(UNARY), body).await;
        assert_eq!(answer.code(), expected.code(), "{name} {answer:?}");
    }
    let late = send_in_parts(&ours, to(UNARY), two.to_vec()).await;
    assert_eq!(late.messages, [[8, 1].as_slice()]);
    assert_fine(&ours).await;
}

/// Makes a request, but for its body.
type Make = Box<dyn Fn() -> Builder>;

pub(crate) async fn odd_paths_and_headers(way: Way) {
    let running = Running::start(way).await;
    let (ours, tonics) = (running.channel().await, tonics_own().await);
    let with = |name: &str, value: &str| to(UNARY).header(name, value);
    let requests: Vec<(&str, Make)> = vec![
        (
            "no such method",
            Box::new(|| to("/ringway.bench.v1.Bench/No")),
        ),
        (
            "no such service",
            Box::new(|| to("/ringway.bench.v1.No/Unary")),
        ),
        ("no method", Box::new(|| to("/ringway.bench.v1.Bench"))),
        (
            "no method but a slash",
            Box::new(|| to("/ringway.bench.v1.Bench/")),
        ),
        ("nothing", Box::new(|| to("/"))),
        ("two slashes", Box::new(|| to("//Unary"))),
        (
            "more than a method",
            Box::new(|| to("/ringway.bench.v1.Bench/Unary/x")),
        ),
        (
            "other case",
            Box::new(|| to("/ringway.bench.v1.bench/unary")),
        ),
        (
            "an escaped NUL",
            Box::new(|| to("/ringway.bench.v1.Bench/Unary%00")),
        ),
        ("no base64", Box::new(move || with("x-echo-bin", "*"))),
        (
            "an unknown encoding",
            Box::new(move || with("grpc-encoding", "snappy")),
        ),
        (
            "no encoding",
            Box::new(move || with("grpc-encoding", "identity")),
        ),
    ];
    for (name, request) in requests {
        let body = framed(0, &[8, 7]);
        let expected = send(&tonics, request(), body.clone()).await;
        let answer = send(&ours, request(), body).await;
        assert_eq!(answer.code(), expected.code(), "{name} {answer:?}");
    }
    for timeout in [
        "123456789S",
        "-1S",
        "+1S",
        "5x",
        "S",
        "",
        "1.5S",
        "99999999H",
    ] {
        let request = || with("grpc-timeout", timeout);
        let expected = send(&tonics, request(), framed(0, &[8, 7])).await;
        assert_eq!(expected.code(), Code::Ok, "tonic changed: {timeout}");
        let answer = send(&ours, request(), framed(0, &[8, 7])).await;
        assert_eq!(answer.code(), Code::Ok, "{timeout} {answer:?}");
    }
    let entered = running.seen.entered();
    let answer = send(&ours, with("grpc-timeout", "0S"), framed(0, &[8, 7])).await;
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(running.seen.entered(), entered);
    assert_fine(&ours).await;
}

/// Whatever is too much ends with a status, and ends nothing else.
pub(crate) async fn too_much_of_anything(way: Way) {
    let running = Running::start(way).await;
    let (ours, mut client) = (running.channel().await, running.client().await);
    let long_path = format!("/ringway.bench.v1.Bench/{}", "x".repeat(60_000));
    let large = to(UNARY).header("x-large", "x".repeat(200_000));
    let many = (0..20_000).fold(to(UNARY), |request, number| {
        request.header(format!("x-{number}"), "1")
    });
    for (name, request) in [
        ("path", to(&long_path)),
        ("value", large),
        ("entries", many),
    ] {
        let answer = send(&ours, request, framed(0, &[8, 7])).await;
        assert_ne!(answer.code(), Code::Ok, "{name}");
        // Over the network a long path may have cost the connection.
        client.unary(payload(1, 1)).await.unwrap();
    }
    let fits = to(UNARY).header("x-echo", "x".repeat(63 * 1024));
    let answer = send(&ours, fits, framed(0, &[8, 7])).await;
    assert_eq!(answer.code(), Code::Ok, "{answer:?}");
}

/// A service that ends each call with headers of the test's choice.
#[derive(Clone)]
struct Odd {
    ending: HeaderMap,
    /// Whether a message comes before.
    late: bool,
}

impl NamedService for Odd {
    const NAME: &'static str = "ringway.bench.v1.Bench";
}

impl Service<Request<Body>> for Odd {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        let mut response = match self.late {
            false => {
                let mut response = Response::new(Body::default());
                *response.headers_mut() = self.ending.clone();
                response
            }
            true => {
                let frames = [
                    http_body::Frame::data(framed(0, &[8, 7])),
                    http_body::Frame::trailers(self.ending.clone()),
                ];
                let frames = frames.map(Ok::<_, Status>);
                let body = http_body_util::StreamBody::new(tokio_stream::iter(frames));
                Response::new(Body::new(body))
            }
        };
        let grpc = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", grpc);
        std::future::ready(Ok(response))
    }
}

async fn status_of(way: Way, late: bool, ending: &[(&'static str, &str)]) -> Status {
    let mut headers = HeaderMap::new();
    for (name, value) in ending {
        headers.insert(*name, value.parse().unwrap());
    }
    let odd = Odd {
        ending: headers,
        late,
    };
    let running = Running::with(way, |builder| builder.add_service(odd)).await;
    let mut client = running.client().await;
    let unary = client.unary(payload(1, 1)).await.unwrap_err();
    let upload = client.client_stream(payloads(1, 1)).await.unwrap_err();
    assert_eq!(unary.code(), upload.code());
    let stream = match client.server_stream(StreamRequest::default()).await {
        Err(status) => status,
        Ok(response) => {
            let mut stream = response.into_inner();
            assert!(late && stream.message().await.unwrap().is_some());
            stream.message().await.unwrap_err()
        }
    };
    assert_eq!(unary.code(), stream.code());
    unary
}

pub(crate) async fn statuses_that_are_none(way: Way) {
    for late in [false, true] {
        for code in ["99", "-1", "five", ""] {
            let status = status_of(way, late, &[("grpc-status", code)]).await;
            assert_eq!(status.code(), Code::Unknown, "{code}");
        }
        let text = "a%09b%0Ac%20%F0%9F%98%88%zz";
        let ending = [("grpc-status", "5"), ("grpc-message", text)];
        let status = status_of(way, late, &ending).await;
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "a\tb\nc 😈%zz");
        let ending = [
            ("grpc-status", "5"),
            ("grpc-status-details-bin", "*** no base64 ***"),
        ];
        let status = status_of(way, late, &ending).await;
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.details().is_empty());
    }
}
