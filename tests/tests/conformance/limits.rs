//! How many calls are handled at once.

use std::sync::Arc;
use std::time::Duration;

use ringway::{Channel, LocalConfig, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{Running, Seen, Way, asking, eventually, ours, payload};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

type Calling = JoinHandle<Result<Response<Payload>, Status>>;

/// A server that `limit` limits, and a client of it.
struct Limited {
    _running: Running,
    client: BenchClient<Channel>,
    seen: Arc<Seen>,
}

impl Limited {
    async fn start(way: Way, limit: impl FnOnce(Server) -> Server) -> Self {
        let handler = ours::Handler::default();
        let seen = Arc::clone(&handler.seen);
        let add = |builder| limit(builder).add_service(BenchServer::new(handler));
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
    let limit = |builder: Server| builder.load_shed(true).concurrency_limit_per_connection(2);
    let limited = Limited::start(way, limit).await;
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
    let limit = |builder: Server| builder.concurrency_limit_per_connection(2);
    let limited = Limited::start(way, limit).await;
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
