//! What connections and channels count of what they do.
#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use ringway::stats::{self, ChannelStats, ConnectionRole, ConnectionStats, LinkKind};
use ringway::{Endpoint, Path};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{ChildServer, Running, Way, alone, asking, eventually, serve_as_child};
use tokio_stream::StreamExt;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// Both ends of the one connection that there is.
fn ends() -> Option<(ConnectionStats, ConnectionStats)> {
    let connections = stats::connections();
    let end = |role| connections.iter().find(|end| end.role == role).cloned();
    Some((end(ConnectionRole::Client)?, end(ConnectionRole::Server)?))
}

/// What one end has sent, the other has received.
fn agree(client: &ConnectionStats, server: &ConnectionStats) -> bool {
    (client.messages_sent, client.bytes_sent) == (server.messages_received, server.bytes_received)
        && (server.messages_sent, server.bytes_sent)
            == (client.messages_received, client.bytes_received)
}

#[test]
fn calls_messages_and_bytes_are_counted_at_both_ends() {
    for (way, kind) in [
        (Way::Shm, LinkKind::Shm),
        (Way::Socket, LinkKind::Socket),
        (Way::SocketEpoll, LinkKind::Socket),
        (Way::Pipe, LinkKind::Pipe),
        (Way::Inproc, LinkKind::Inproc),
    ] {
        alone(async {
            let running = Running::start(way).await;
            let mut client = running.client().await;
            let payload = |len| Payload {
                sequence: 1,
                data: vec![7; len].into(),
            };
            for _ in 0..10 {
                client.unary(payload(100)).await.unwrap();
            }
            client.unary(payload(100_000)).await.unwrap();
            let asked = StreamRequest {
                count: 40,
                size_bytes: 64,
            };
            let mut stream = client.server_stream(asked).await.unwrap().into_inner();
            let mut messages = 0;
            while stream.next().await.transpose().unwrap().is_some() {
                messages += 1;
            }
            assert_eq!(messages, 40);
            let (client_end, server_end) = ends().unwrap();
            assert_eq!((client_end.kind, server_end.kind), (kind, kind));
            assert_eq!((client_end.calls, server_end.calls), (12, 12), "{way:?}");
            assert_eq!(client_end.messages_sent, 12, "{way:?}");
            assert_eq!(client_end.messages_received, 11 + 40, "{way:?}");
            assert!(client_end.bytes_sent > 101_000, "{client_end:?}");
            assert!(
                agree(&client_end, &server_end),
                "{client_end:?} {server_end:?}"
            );
            running.stop().await;
        });
    }
}

/// Who sleeps is rung for, and says so.
#[test]
fn sleeps_and_doorbells_are_counted_where_both_sides_sleep() {
    alone(async {
        let running = Running::start(Way::Shm).await;
        let mut client = running.client().await;
        let name = running.called().trim_start_matches("shm://");
        // Both ends fall asleep between calls that are far enough apart.
        while ends().is_none_or(|(client, _)| client.doorbells == 0) {
            client.unary(Payload::default()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (client_end, server_end) = ends().unwrap();
        assert_eq!(client_end.name, name);
        assert!(
            client_end.sleeps > 0 && server_end.sleeps > 0,
            "{client_end:?}"
        );
        assert!(client_end.ring.capacity_bytes > 0, "{client_end:?}");
        let own = std::process::id();
        assert_eq!(server_end.peer.unwrap().pid, Some(own));
        running.stop().await;
    });
}

/// The peer rings once for each sleep: were each caller's a sleep of its own, it would ring for each answer.
#[test]
fn callers_that_wait_together_sleep_once() {
    alone(async {
        let running = Running::start(Way::Shm).await;
        let client = running.client().await;
        // Until nobody looks any more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let calls = (0..64).map(|_| {
            let mut client = client.clone();
            async move { client.unary(asking("hang", Payload::default())).await }
        });
        {
            let mut calls = pin!(join_all(calls));
            let before = ends().unwrap().0;
            assert!(futures_util::poll!(calls.as_mut()).is_pending());
            let after = ends().unwrap().0;
            assert_eq!(after.calls_in_flight, 64);
            assert!(after.sleeps - before.sleeps < 16, "{before:?} {after:?}");
        }
        running.stop().await;
    });
}

/// A stream that nobody reads fills the ring, and its sender waits.
#[test]
fn a_full_ring_shows_and_so_does_who_waits_for_it() {
    alone(async {
        let running = Running::start(Way::Shm).await;
        let mut client = running.client().await;
        let asked = StreamRequest {
            count: 1_000_000,
            size_bytes: 4096,
        };
        let unread = client.server_stream(asked).await.unwrap();
        eventually("somebody waits", || {
            ends().is_some_and(|(_, server)| {
                server.waits_for_credit + server.waits_for_room + server.waits_for_memory > 0
            })
        })
        .await;
        let (_, server_end) = ends().unwrap();
        assert_eq!(server_end.calls_in_flight, 1);
        drop(unread);
        running.stop().await;
    });
}

fn channel(name: &str) -> Option<ChannelStats> {
    stats::channels()
        .into_iter()
        .find(|channel| channel.name == name)
}

#[test]
fn a_move_between_paths_is_counted() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let network = Running::start(Way::GrpcTcp).await;
        let address = network.address().to_string();
        let local = ChildServer::start(directory.path(), &address);
        let endpoint = Endpoint::new(&*address)
            .unwrap()
            .directory(directory.path());
        let mut client = BenchClient::new(endpoint.connect_lazy());
        assert_eq!(channel(&address).unwrap().path, None);
        client.unary(Payload::default()).await.unwrap();
        let before = channel(&address).unwrap();
        assert_eq!((before.path, before.moves), (Some(Path::Shm), 0));
        local.kill();
        // The call that notices may fail.
        while client.unary(Payload::default()).await.is_err() {}
        let after = channel(&address).unwrap();
        assert_eq!((after.path, after.moves), (Some(Path::Grpc), 1));
        drop(client);
        assert_eq!(channel(&address), None);
    });
}

/// A runtime that ends takes what drives its connections with it; they end all the same.
#[test]
fn of_a_runtime_that_has_ended_no_connection_is_left() {
    alone(async {
        let test = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (running, client) = runtime.block_on(async {
                let running = Running::start(Way::Shm).await;
                let mut client = running.client().await;
                client.unary(Payload::default()).await.unwrap();
                (running, client)
            });
            drop(runtime);
            drop((running, client));
            assert_eq!(stats::connections().len(), 0);
        };
        tokio::task::spawn_blocking(test).await.unwrap();
    });
}
