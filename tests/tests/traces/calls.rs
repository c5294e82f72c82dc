//! A call's two spans: where they stand, what they say, and when its steps were.

use ringway::Context;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_proto::bench_tonic;
use ringway_tests::{Running, Span, Way, ours, within};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info_span};

use crate::{one, spans_of};

pub(crate) const WAYS: [Way; 7] = [
    Way::Shm,
    Way::Socket,
    Way::SocketEpoll,
    Way::Pipe,
    Way::Inproc,
    Way::GrpcTcp,
    Way::GrpcUnix,
];

fn transport(way: Way) -> &'static str {
    match way {
        Way::Shm => "shm",
        Way::Pipe => "pipe",
        Way::Inproc => "inproc",
        Way::GrpcTcp => "tcp",
        Way::Socket | Way::SocketEpoll | Way::GrpcUnix => "unix",
    }
}

pub(crate) fn payload(sequence: u64) -> Payload {
    Payload {
        sequence,
        data: vec![7; 100].into(),
    }
}

/// Checks a call's two spans, and returns them: the client's, the server's.
fn both<'a>(spans: &'a [Span], way: Way, method: &str, code: i32) -> (&'a Span, &'a Span) {
    let client = one(spans, |span| span.is_client());
    let server = one(spans, |span| span.is_server());
    assert!(server.is_child_of(client), "{way:?}: {spans:#?}");
    for span in [client, server] {
        let says = |name: &str| span.attribute(name).unwrap_or_default();
        assert_eq!(span.service, "tests");
        assert_eq!(
            span.name(),
            format!("ringway.bench.v1.Bench/{method}"),
            "{way:?}"
        );
        assert_eq!(says("rpc.system"), "grpc");
        assert_eq!(says("rpc.service"), "ringway.bench.v1.Bench");
        assert_eq!(says("rpc.method"), method);
        assert_eq!(says("rpc.grpc.status_code"), code.to_string(), "{way:?}");
        assert_eq!(says("ringway.path"), way.path().name());
        assert_eq!(says("network.transport"), transport(way), "{way:?}");
    }
    (client, server)
}

fn assert_in_order(what: &str, times: &[u64]) {
    assert!(times.is_sorted(), "{what}: {times:?}");
}

/// Checks that steps follow one another, and lie within their span.
fn assert_steps(span: &Span, steps: &[&str]) {
    let names: Vec<_> = span.events().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, steps);
    let (start, end) = span.times();
    let mut times = vec![start];
    times.extend(span.events().iter().map(|(_, at)| *at));
    times.push(end);
    assert_in_order(span.name(), &times);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_on_every_path() {
    for way in WAYS {
        let server = Running::start(way).await;
        let mut client = server.client().await;
        // The first call is not over a connection at hand, the second is.
        for sequence in 0..2 {
            let call = within(client.unary(payload(sequence)));
            let (trace, spans, answered) = spans_of(call, 2).await;
            answered.unwrap();
            let (client, server) = both(&spans, way, "Unary", 0);
            assert!(client.is_child_of_context(&trace), "{way:?}");
            assert!(!client.is_error() && !server.is_error());
            assert_steps(client, &["encoded", "published", "answer seen", "decoded"]);
            assert_steps(
                server,
                &["seen", "handler started", "handler ended", "published"],
            );
            let across = [
                client.at("published"),
                server.at("seen"),
                server.at("handler started"),
                server.at("published"),
                client.at("answer seen"),
            ];
            if way.path().is_local() {
                assert_in_order("one clock, one host", &across);
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_on_every_path() {
    for way in WAYS {
        let server = Running::start(way).await;
        let mut client = server.client().await;
        let large = Payload {
            sequence: 1,
            data: vec![7; 1 << 20].into(),
        };
        let (_, spans, answered) = spans_of(within(client.unary(large)), 2).await;
        answered.unwrap();
        let (client, server) = both(&spans, way, "Unary", 0);
        assert_steps(client, &["encoded", "published", "answer seen", "decoded"]);
        assert_steps(
            server,
            &["seen", "handler started", "handler ended", "published"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_on_every_path() {
    for way in WAYS {
        let server = Running::start(way).await;
        let mut client = server.client().await;
        let asked = StreamRequest {
            count: 5,
            size_bytes: 10,
        };
        let call = async {
            let mut answers = client.server_stream(asked).await.unwrap().into_inner();
            let mut count = 0;
            while let Some(answer) = answers.next().await {
                answer.unwrap();
                count += 1;
            }
            count
        };
        let (_, spans, count) = spans_of(within(call), 2).await;
        assert_eq!(count, 5);
        let (of_client, of_server) = both(&spans, way, "ServerStream", 0);
        let read_to_its_end = of_client.times().1 >= of_server.at("handler ended");
        assert!(read_to_its_end, "{way:?}: {spans:#?}");
        assert!(of_client.at("encoded") <= of_client.at("published"));
        assert_steps(
            of_server,
            &["seen", "handler started", "handler ended", "published"],
        );

        let requests = tokio_stream::iter((0..5).map(payload));
        let (_, spans, answered) = spans_of(within(client.client_stream(requests)), 2).await;
        answered.unwrap();
        let (_, of_server) = both(&spans, way, "ClientStream", 0);
        assert_steps(
            of_server,
            &["seen", "handler started", "handler ended", "published"],
        );

        let requests = tokio_stream::iter((0..5).map(payload));
        let call = async {
            let answers = client.bidi(requests).await.unwrap().into_inner();
            answers.collect::<Vec<_>>().await.len()
        };
        let (_, spans, count) = spans_of(within(call), 2).await;
        assert_eq!(count, 5);
        both(&spans, way, "Bidi", 0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_says_so() {
    for way in WAYS {
        let server = Running::start(way).await;
        server.seen.fail_from_now_on(true);
        let mut client = server.client().await;
        let (_, spans, answered) = spans_of(within(client.unary(payload(1))), 2).await;
        answered.unwrap_err();
        let unavailable = 14;
        let (client, server) = both(&spans, way, "Unary", unavailable);
        assert!(client.is_error() && server.is_error(), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic_s_own_stubs_over_our_channel() {
    for way in WAYS {
        let server = Running::start(way).await;
        let channel = server.channel().await;
        let mut client = bench_tonic::bench_client::BenchClient::new(channel);
        let request = bench_tonic::Payload {
            sequence: 1,
            data: vec![7; 100].into(),
        };
        let (_, spans, answered) = spans_of(within(client.unary(request)), 2).await;
        answered.unwrap();
        let (client, _) = both(&spans, way, "Unary", 0);
        assert!(client.at("published") <= client.at("answer seen"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_s_own_spans_and_calls_are_children() {
    for way in WAYS {
        let back = Running::start(way).await;
        let front = Front::before(&back, way).await;
        let mut client = front.client().await;
        let (_, spans, answered) = spans_of(within(client.unary(payload(1))), 8).await;
        answered.unwrap();
        let called = |caller: &Span| {
            let of_client = one(&spans, |span| span.is_client() && span.is_child_of(caller));
            one(&spans, |span| {
                span.is_server() && span.is_child_of(of_client)
            })
            .clone()
        };
        let first = one(&spans, |span| {
            span.is_client() && !spans.iter().any(|it| span.is_child_of(it))
        });
        let handling = one(&spans, |span| span.is_server() && span.is_child_of(first));
        for name in ["beside", "within"] {
            let own = one(&spans, |span| span.name() == name);
            assert!(own.is_child_of(handling), "{way:?} {name}: {spans:#?}");
            assert_eq!(
                called(own).attribute("ringway.path").unwrap(),
                way.path().name()
            );
        }
    }
}

/// A handler with spans of its own, within which it calls the next server: in a task beside it, and
/// by itself.
pub(crate) struct Front {
    next: BenchClient<ringway::Channel>,
    other: ours::Handler,
}

impl Front {
    pub(crate) async fn before(back: &Running, way: Way) -> Running {
        let front = Self {
            next: back.client().await,
            other: ours::Handler::default(),
        };
        Running::with(way, |server| server.add_service(BenchServer::new(front))).await
    }
}

#[tonic::async_trait]
impl Bench for Front {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let mut next = self.next.clone();
        let payload = request.into_inner();
        let sequence = payload.sequence;
        let context = Context::current();
        let beside = {
            let (mut next, payload) = (next.clone(), payload.clone());
            let span = info_span!("beside", sequence);
            let work = async move { next.unary(payload).await }.instrument(span);
            tokio::spawn(async move { context.scope(work).await })
        };
        beside.await.unwrap()?;
        next.unary(payload)
            .instrument(info_span!("within", sequence))
            .await
    }

    type ServerStreamStream = <ours::Handler as Bench>::ServerStreamStream;

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        self.other.server_stream(request).await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        self.other.client_stream(request).await
    }

    type BidiStream = <ours::Handler as Bench>::BidiStream;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        self.other.bidi(request).await
    }
}
