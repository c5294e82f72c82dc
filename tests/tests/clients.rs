//! Clients that are too many, or say nothing any more, and servers that do not.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Endpoint, ServerBuilder};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    Addresses, ChildServer, Running, Way, alone, asking, client_of, eventually, free_address, ours,
    payload, serve_as_child, within,
};
use rustix::process::Signal;
use tonic::Code;

const NAME: &str = "clients:50051";
/// How long a peer may be silent before it is asked whether it is there.
const SILENCE: Duration = Duration::from_millis(100);
/// How long its answer may take: longer than a busy host keeps a process from running.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than both: a peer that runs keeps its calls.
const LONGER: Duration = Duration::from_millis(1_500);
/// The paths on which clients connect.
const WAYS: [Way; 5] = [
    Way::Shm,
    Way::Socket,
    Way::SocketEpoll,
    Way::GrpcTcp,
    Way::GrpcUnix,
];

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

async fn one_client_at_most(way: Way, limit: impl FnOnce(ServerBuilder) -> ServerBuilder) {
    let service = BenchServer::new(ours::Handler::default());
    let running = Running::with(way, |builder| limit(builder).add_service(service)).await;
    let mut first = running.client().await;
    first.unary(payload(1, 10)).await.unwrap();
    let mut second = BenchClient::new(running.endpoint().connect_lazy());
    let status = second.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{way:?}: {status:?}");
    first.unary(payload(1, 10)).await.unwrap();
    drop(first);
    // Its place is free when the server has noticed.
    loop {
        let mut next = BenchClient::new(running.endpoint().connect_lazy());
        if next.unary(payload(1, 10)).await.is_ok() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_turned_away() {
    within(async {
        for way in WAYS {
            one_client_at_most(way, |builder| builder.max_connections(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_of_a_user_is_turned_away() {
    within(async {
        for way in [Way::Shm, Way::Socket, Way::SocketEpoll, Way::GrpcUnix] {
            one_client_at_most(way, |builder| builder.max_connections_per_uid(1)).await;
        }
    })
    .await;
}

/// A server that is stopped: its calls in flight end, and so does one that it never saw, which must
/// not be sent again: the server may come to and read it.
async fn a_stopped_server_is_given_up(
    endpoint: Endpoint,
    server: ChildServer,
    directory: &FilePath,
) {
    let endpoint = endpoint
        .directory(directory)
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(PATIENCE);
    let client = client_of(&endpoint).await;
    client.clone().unary(payload(1, 10)).await.unwrap();
    let mut hung = client.clone();
    let hung = tokio::spawn(async move { hung.unary(asking("hang", payload(1, 10))).await });
    tokio::time::sleep(LONGER).await;
    assert!(!hung.is_finished());
    server.signal(Signal::STOP);
    let began = Instant::now();
    let mut unseen = client.clone();
    let (hung, unseen) = tokio::join!(hung, unseen.unary(payload(1, 10)));
    for status in [hung.unwrap().unwrap_err(), unseen.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable, "{endpoint}: {status:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    server.signal(Signal::CONT);
    drop(server);
}

#[test]
fn a_stopped_server_is_given_up_on_local_paths() {
    alone(async {
        join_all(["shm", "socket", "socket+epoll"].map(async |scheme| {
            let directory = tempfile::tempdir().unwrap();
            let server = ChildServer::start(directory.path(), NAME);
            let endpoint = Endpoint::new(format!("{scheme}://{NAME}")).unwrap();
            a_stopped_server_is_given_up(endpoint, server, directory.path()).await;
        }))
        .await;
    });
}

#[test]
fn a_stopped_server_is_given_up_on_the_network_path() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let executions = directory.path().join("executions");
        let server =
            ChildServer::start_listening(directory.path(), &address.to_string(), &executions);
        let endpoint = Addresses::new([address]).endpoint();
        a_stopped_server_is_given_up(endpoint, server, directory.path()).await;
    });
}

/// A client that is stopped: its handler is dropped, although nobody hung up.
#[test]
fn a_stopped_client_is_given_up() {
    alone(async {
        join_all(WAYS.map(async |way| {
            let handler = ours::Handler::default();
            let seen = Arc::clone(&handler.seen);
            let running = Running::with(way, |builder| {
                builder
                    .http2_keepalive_interval(SILENCE)
                    .http2_keepalive_timeout(PATIENCE)
                    .add_service(BenchServer::new(handler))
            })
            .await;
            let client = ringway_tests::ChildClient::hang(&running);
            eventually("the call hangs", || seen.inside() == 1).await;
            tokio::time::sleep(LONGER).await;
            assert_eq!(
                seen.inside(),
                1,
                "{way:?}: a client that runs lost its call"
            );
            client.signal(Signal::STOP);
            eventually("the handler is dropped", || seen.inside() == 0).await;
            client.signal(Signal::CONT);
            drop(client);
        }))
        .await;
    });
}

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_process() {
    ringway_tests::hang_as_child().await;
}
