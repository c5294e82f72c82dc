//! How many calls are handled at once.

use std::sync::Arc;
use std::time::Duration;

use ringway::{Channel, LocalConfig, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_proto::bench_tonic::Payload as PlainPayload;
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_tests::{Running, Seen, Way, asking, eventually, ours, payload, plain};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Response, Status};
use tower::util::MapRequestLayer;

type Calling = JoinHandle<Result<Response<Payload>, Status>>;

/// A server that `limit` limits, and a client of it.
struct Limited {
    _running: Running,
    client: BenchClient<Channel>,
    seen: Arc<Seen>,
}

/// The usual handler as a service of some make, and what it has seen.
type Add = fn(Server) -> (Server, Arc<Seen>);

fn add_ours(server: Server) -> (Server, Arc<Seen>) {
    let handler = ours::Handler::default();
    let seen = Arc::clone(&handler.seen);
    (server.add_service(BenchServer::new(handler)), seen)
}

fn add_intercepted(server: Server) -> (Server, Arc<Seen>) {
    let handler = ours::Handler::default();
    let seen = Arc::clone(&handler.seen);
    let service = BenchServer::with_interceptor(handler, Ok);
    (server.add_service(service), seen)
}

fn add_plain(server: Server) -> (Server, Arc<Seen>) {
    let handler = plain::Handler::default();
    let seen = Arc::clone(&handler.seen);
    (server.add_service(PlainServer::new(handler)), seen)
}

impl Limited {
    async fn start(way: Way, limit: impl FnOnce(Server) -> Server) -> Self {
        Self::of(way, add_ours, limit).await
    }

    async fn of(way: Way, add: Add, limit: impl FnOnce(Server) -> Server) -> Self {
        let mut seen = Arc::default();
        let add = |builder| {
            let (server, sees) = add(limit(builder));
            seen = sees;
            server
        };
        let running = Running::with(way, add).await;
        Self {
            client: running.client().await,
            _running: running,
            seen,
        }
    }

    /// So many calls that end when they are given up.
    async fn hang<const N: usize>(&self) -> [Calling; N] {
        let hanging = [(); N].map(|()| {
            let mut client = self.client.clone();
            tokio::spawn(async move { client.unary(asking("hang", payload(1, 1))).await })
        });
        eventually("they hang", || self.seen.inside() == N as u64).await;
        hanging
    }

    async fn give_up(&self, hanging: impl IntoIterator<Item = Calling>) {
        for call in hanging {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        eventually("the handlers are dropped", || self.seen.inside() == 0).await;
    }

    /// A call of another method than all before it.
    async fn stream(&self, count: u64) -> Result<usize, Status> {
        let request = StreamRequest {
            count,
            size_bytes: 1,
        };
        let stream = self.client.clone().server_stream(request).await?;
        Ok(stream.into_inner().collect::<Vec<_>>().await.len())
    }
}

/// One call too many ends as it does with tonic, and the next one is handled when there is room.
pub(crate) async fn one_call_too_many_at_once_is_shed(way: Way) {
    sheds(way, add_ours).await;
}

/// The same where HTTP types are between.
pub(crate) async fn hold_for_services_of_other_makes(way: Way) {
    for add in [add_intercepted, add_plain] {
        sheds(way, add).await;
        waits(way, add).await;
    }
}

async fn sheds(way: Way, add: Add) {
    let limit = |builder: Server| builder.load_shed(true).concurrency_limit_per_connection(2);
    let limited = Limited::of(way, add, limit).await;
    let hanging = limited.hang::<2>().await;
    let status = limited.stream(1).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(limited.seen.entered(), 2, "its handler ran");
    limited.give_up(hanging).await;
    for _ in 0..10 {
        limited.client.clone().unary(payload(1, 1)).await.unwrap();
        assert_eq!(limited.stream(1).await.unwrap(), 1);
    }
}

/// Without `load_shed` it waits, with its deadline running.
pub(crate) async fn one_call_too_many_at_once_waits(way: Way) {
    waits(way, add_ours).await;
}

async fn waits(way: Way, add: Add) {
    let limit = |builder: Server| builder.concurrency_limit_per_connection(2);
    let limited = Limited::of(way, add, limit).await;
    let hanging = limited.hang::<2>().await;
    let mut late = tonic::Request::new(payload(1, 1));
    late.set_timeout(Duration::from_millis(50));
    let status = limited.client.clone().unary(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let mut client = limited.client.clone();
    let waiting = tokio::spawn(async move { client.unary(payload(2, 1)).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(limited.seen.entered(), 2, "a handler ran");
    let [first, second] = hanging;
    first.abort();
    waiting.await.unwrap().unwrap();
    limited.give_up([second]).await;
}

/// A call counts until its response begins.
pub(crate) async fn streams_that_have_begun_leave_room(way: Way) {
    // The network path's permit may be given back after the client has seen the response begin: so it waits.
    let limit = |builder: Server| builder.concurrency_limit_per_connection(1);
    let limited = Limited::start(way, limit).await;
    let endless = StreamRequest {
        count: 1_000_000,
        size_bytes: 1024,
    };
    let mut streams = Vec::new();
    // Streams that nobody reads fill a network connection's window, and then stop all of its calls.
    let count = match way {
        Way::GrpcTcp | Way::GrpcUnix => 1,
        _ => 3,
    };
    for _ in 0..count {
        streams.push(limited.client.clone().server_stream(endless).await.unwrap());
        limited.client.clone().unary(payload(1, 1)).await.unwrap();
    }
}

/// The first call of a method says which one it is: refused, it has said so all the same.
pub(crate) async fn a_refused_first_call_leaves_its_method_usable(way: Way) {
    if matches!(way, Way::GrpcTcp | Way::GrpcUnix) {
        // Each call names its method there.
        return;
    }
    let mut config = LocalConfig::default();
    config.wire.max_concurrent_calls = 1;
    let limited = Limited::start(way, |builder| builder.local_config(config)).await;
    let hanging = limited.hang::<1>().await;
    let status = limited.stream(1).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    limited.give_up(hanging).await;
    assert_eq!(limited.stream(2).await.unwrap(), 2);
}

/// Of the longest message, both ends' and both directions'.
pub(crate) async fn of_messages_hold_for_other_makes_and_behind_interceptors(way: Way) {
    const LIMIT: usize = 10_000;
    let served: [fn(Server) -> Server; 3] = [
        |server| {
            let service = BenchServer::new(ours::Handler::default());
            let service = service.max_decoding_message_size(LIMIT);
            server.add_service(InterceptedService::new(service, Ok))
        },
        |server| {
            let service = PlainServer::new(plain::Handler::default());
            server.add_service(service.max_decoding_message_size(LIMIT))
        },
        |server| {
            let service = BenchServer::new(ours::Handler::default());
            let service = service.max_decoding_message_size(LIMIT);
            server
                .layer(MapRequestLayer::new(|request: http::Request<Body>| request))
                .add_service(service)
        },
    ];
    for add in served {
        let running = Running::with(way, add).await;
        let mut client = running.client().await;
        client.unary(payload(1, LIMIT - 100)).await.unwrap();
        let status = client.unary(payload(1, LIMIT + 100)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        client.unary(payload(1, 1)).await.unwrap();
    }
    let running = Running::start(way).await;
    let channel = running.channel().await;
    let plain_payload = |len| {
        let data = payload(1, len).data;
        PlainPayload { sequence: 1, data }
    };
    let mut plain = PlainClient::new(channel.clone()).max_decoding_message_size(LIMIT);
    plain.unary(plain_payload(LIMIT - 100)).await.unwrap();
    let answer = plain.unary(plain_payload(LIMIT + 100)).await;
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
    let mut intercepted = BenchClient::with_interceptor(channel, Ok);
    intercepted = intercepted.max_decoding_message_size(LIMIT);
    intercepted.unary(payload(1, LIMIT - 100)).await.unwrap();
    let answer = intercepted.unary(payload(1, LIMIT + 100)).await;
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
    let mut intercepted = intercepted.max_encoding_message_size(LIMIT);
    let refused = intercepted.unary(payload(1, LIMIT + 100)).await;
    assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
}
