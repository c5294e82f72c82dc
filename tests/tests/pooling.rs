//! Several connections of a channel to one instance: calls spread over them, limits hold for all together, and
//! nobody notices but by the speed.
//!
//! `RINGWAY_CONNECTIONS` fixes their number, which is otherwise learnt where many CPUs idle.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use ringway::{Channel, Endpoint, Server, ServerBuilder};
use ringway_local::{Connection, ConnectionRole, LocalConfig, connections};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{
    Running, Way, asking, eventually, in_a_process_of_its_own_with, is_intact, payload, within,
};
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Status};

const FOUR: [(&str, &str); 1] = [("RINGWAY_CONNECTIONS", "4")];

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(4).enable_all();
    builder.build().unwrap()
}

/// Connections of this process as a client that are open.
fn held() -> Vec<Arc<Connection>> {
    let mut held = connections();
    held.retain(|one| one.stats().role == ConnectionRole::Client && one.is_open());
    held
}

async fn call(mut client: BenchClient<Channel>, calls: u64) -> Result<(), Status> {
    for sequence in 0..calls {
        let size = if sequence % 16 == 0 { 100_000 } else { 64 };
        let answer = client.unary(payload(sequence, size)).await?.into_inner();
        assert!(is_intact(&answer) && answer.sequence == sequence);
    }
    Ok(())
}

async fn call_from_many(client: &BenchClient<Channel>, calls: u64) {
    let callers = (0..16).map(|_| tokio::spawn(call(client.clone(), calls)));
    for called in within(join_all(callers)).await {
        called.unwrap().unwrap();
    }
}

#[test]
fn calls_spread_over_the_connections_of_a_channel() {
    const NAME: &str = "calls_spread_over_the_connections_of_a_channel";
    if !in_a_process_of_its_own_with(NAME, &FOUR) {
        return;
    }
    for way in [Way::Shm, Way::Socket, Way::SocketEpoll] {
        runtime().block_on(async {
            let running = Running::start(way).await;
            let client = running.client().await;
            eventually("four connections", || held().len() == 4).await;
            call_from_many(&client, 200).await;
            let calls: Vec<_> = held().iter().map(|one| one.calls()).collect();
            assert_eq!(calls.iter().sum::<u64>(), 16 * 200, "{way:?}: {calls:?}");
            assert!(
                calls.iter().all(|calls| *calls >= 400),
                "{way:?}: {calls:?}"
            );
            drop(client);
            eventually("all are let go", || held().is_empty()).await;
            running.stop().await;
        });
    }
}

#[test]
fn other_paths_and_whoever_says_so_have_one() {
    const NAME: &str = "other_paths_and_whoever_says_so_have_one";
    if !in_a_process_of_its_own_with(NAME, &FOUR) {
        return;
    }
    runtime().block_on(async {
        for way in [Way::Pipe, Way::Inproc] {
            let running = Running::start(way).await;
            let client = running.client().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            call_from_many(&client, 20).await;
            assert_eq!(held().len(), 1, "{way:?}");
            drop(client);
            running.stop().await;
        }
        let running = Running::start(Way::Shm).await;
        let endpoint = running.endpoint().max_connections(1);
        let client = BenchClient::new(endpoint.connect().await.unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
        call_from_many(&client, 20).await;
        assert_eq!(held().len(), 1);
        drop(client);
        eventually("it is let go", || held().is_empty()).await;
        let endpoint = running.endpoint().max_connections(2);
        let client = BenchClient::new(endpoint.connect().await.unwrap());
        eventually("two connections", || held().len() == 2).await;
        call_from_many(&client, 20).await;
        running.stop().await;
    });
}

/// Starts the usual handler over shared memory, on a server with further settings.
async fn start(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Running {
    let handler = Handler::default();
    let seen = Arc::clone(&handler.seen);
    let add = |builder| configure(builder).add_service(BenchServer::new(handler));
    let mut running = Running::with(Way::Shm, add).await;
    running.seen = seen;
    running
}

/// Makes `calls` calls of some milliseconds at once; returns how many were handled together, at most, and those that
/// were refused.
async fn call_at_once(
    running: &Running,
    client: &BenchClient<Channel>,
    calls: usize,
) -> (u64, Vec<Status>) {
    let most = Arc::new(AtomicU64::new(0));
    let (seen, noted) = (Arc::clone(&running.seen), Arc::clone(&most));
    let watching = tokio::spawn(async move {
        loop {
            noted.fetch_max(seen.inside(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    let napping = (0..calls).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(asking("nap", payload(1, 64))).await })
    });
    let called = within(try_join_all(napping)).await.unwrap();
    watching.abort();
    let refused = called.into_iter().filter_map(Result::err).collect();
    (most.load(Ordering::Relaxed), refused)
}

#[test]
fn all_connections_together_have_the_slots_of_one() {
    const NAME: &str = "all_connections_together_have_the_slots_of_one";
    if !in_a_process_of_its_own_with(NAME, &FOUR) {
        return;
    }
    runtime().block_on(async {
        let local = LocalConfig {
            wire: ringway_wire::Config {
                call_slots: 16,
                max_concurrent_calls: 16,
                ..ringway_wire::Config::default()
            },
            ..LocalConfig::default()
        };
        let running = start(|builder| builder.local_config(local)).await;
        let client = running.client().await;
        eventually("four connections", || held().len() == 4).await;
        for round in 0..20 {
            let (most, refused) = call_at_once(&running, &client, 16).await;
            assert!(
                most <= 16 && refused.is_empty(),
                "{round}: {most} {refused:?}"
            );
            let (most, refused) = call_at_once(&running, &client, 64).await;
            assert!(most <= 16, "{round}: {most} calls were handled at once");
            for status in refused {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().starts_with("16 calls"), "{status}");
            }
        }
        running.stop().await;
    });
}

#[test]
fn a_server_with_a_limit_for_each_connection_is_given_one() {
    const NAME: &str = "a_server_with_a_limit_for_each_connection_is_given_one";
    if !in_a_process_of_its_own_with(NAME, &FOUR) {
        return;
    }
    runtime().block_on(async {
        let running = start(|builder| builder.concurrency_limit_per_connection(3)).await;
        let client = running.client().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (most, refused) = call_at_once(&running, &client, 24).await;
        assert!(most <= 3 && refused.is_empty(), "{most} {refused:?}");
        assert_eq!(held().len(), 1);
        running.stop().await;
    });
}

#[test]
fn a_server_that_comes_back_has_all_connections_again() {
    const NAME: &str = "a_server_that_comes_back_has_all_connections_again";
    if !in_a_process_of_its_own_with(NAME, &FOUR) {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let bind = async || {
            let server = Server::builder()
                .directory(directory.path())
                .name("back:1")
                .add_service(BenchServer::new(Handler::default()));
            server.bind().await.unwrap()
        };
        let first = tokio::spawn(bind().await.serve());
        let endpoint = Endpoint::new("shm://back:1").unwrap();
        let channel = endpoint
            .directory(directory.path())
            .connect()
            .await
            .unwrap();
        let mut client = BenchClient::new(channel);
        eventually("four connections", || held().len() == 4).await;
        call_from_many(&client, 20).await;
        first.abort();
        let _ = first.await;
        eventually("all have ended", || held().is_empty()).await;
        // A second instance beside the one that came back: two instances are two connections.
        let _second = tokio::spawn(bind().await.serve());
        within(async { while client.unary(payload(1, 64)).await.is_err() {} }).await;
        eventually("four connections", || held().len() == 4).await;
        call_from_many(&client, 20).await;
        let _third = tokio::spawn(bind().await.serve());
        let mut calling = client.clone();
        let calling = tokio::spawn(async move {
            loop {
                calling.unary(payload(1, 64)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        eventually("one connection for each", || held().len() == 2).await;
        call_from_many(&client, 20).await;
        calling.abort();
    });
}
