//! Two instances of a service, restarted in turn under load: no caller notices.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::time::Duration;

use ringway::{BackoffOptions, Channel, Endpoint};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{
    Addresses, ChildServer, alone, eventually, free_address, payload, serve_as_child,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};
use tokio_stream::StreamExt;
use tonic::{Request, Status};

const NAME: &str = "restart:50051";
const CALLERS: u64 = 8;
/// What an instance writes of its calls between two restarts, at least: some bytes each.
const CALLS_BETWEEN: u64 = 500;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// Calls of every kind, one after the other, until told to stop; the first failure ends it.
async fn call_all_ways(
    mut client: BenchClient<Channel>,
    stopped: watch::Receiver<bool>,
) -> Result<(), Status> {
    for sequence in 0.. {
        if *stopped.borrow() {
            break;
        }
        match sequence % 5 {
            0 => {
                let requests = tokio_stream::iter((0..5).map(|sequence| payload(sequence, 100)));
                let summary = client.client_stream(requests).await?.into_inner();
                assert_eq!(summary.messages, 5);
            }
            1 => {
                let request = StreamRequest {
                    count: 5,
                    size_bytes: 100,
                };
                let stream = client.server_stream(request).await?.into_inner();
                assert_eq!(stream.collect::<Vec<_>>().await.len(), 5);
            }
            2 => {
                let requests = tokio_stream::iter((0..5).map(|sequence| payload(sequence, 100)));
                let mut replies = client.bidi(requests).await?.into_inner();
                for sequence in 0..5 {
                    let reply = replies.message().await?.unwrap();
                    assert_eq!(reply.sequence, sequence);
                }
                assert_eq!(replies.message().await?, None);
            }
            3 => {
                let mut request = Request::new(payload(sequence, 100));
                request
                    .metadata_mut()
                    .insert("x-do", "nap".parse().unwrap());
                client.unary(request).await?;
            }
            _ => {
                client.unary(payload(sequence, 100)).await?;
            }
        }
    }
    Ok(())
}

/// Restarts two servers in turn, twice, while callers call over one channel. `start` gets a server's
/// index, and a file to which it writes each call.
async fn restarted_in_turn(endpoint: Endpoint, start: impl Fn(usize, &FilePath) -> ChildServer) {
    let scratch = tempfile::tempdir().unwrap();
    let executions = |index: usize| scratch.path().join(index.to_string());
    let mut servers: Vec<_> = (0..2)
        .map(|index| start(index, &executions(index)))
        .collect();
    let client = BenchClient::new(endpoint.connect().await.unwrap());
    let (stop, stopped) = watch::channel(false);
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| tokio::spawn(call_all_ways(client.clone(), stopped.clone())))
        .collect();
    let called = async |index: usize| {
        let goal = written(&executions(index)) + CALLS_BETWEEN;
        let gone_on =
            || written(&executions(index)) >= goal || callers.iter().any(JoinHandle::is_finished);
        eventually("an instance is called", gone_on).await;
    };
    for index in [0, 1, 0, 1] {
        called(0).await;
        called(1).await;
        servers.remove(index).terminate().await;
        called(1 - index).await;
        servers.insert(index, start(index, &executions(index)));
    }
    called(0).await;
    called(1).await;
    stop.send(true).unwrap();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
}

/// How much was written to the file of a server.
fn written(executions: &FilePath) -> u64 {
    std::fs::metadata(executions).map_or(0, |found| found.len())
}

fn local(scheme: &str, directory: &FilePath) -> Endpoint {
    let endpoint = Endpoint::new(format!("{scheme}://{NAME}")).unwrap();
    endpoint.directory(directory)
}

#[test]
fn no_call_fails_over_shm() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let start = |_: usize, executions: &FilePath| {
            ChildServer::start_counting(directory.path(), NAME, executions)
        };
        restarted_in_turn(local("shm", directory.path()), start).await;
    });
}

#[test]
fn no_call_fails_over_a_socket() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let start = |_: usize, executions: &FilePath| {
            ChildServer::start_counting(directory.path(), NAME, executions)
        };
        restarted_in_turn(local("socket", directory.path()), start).await;
    });
}

#[test]
fn no_call_fails_over_the_network() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let addresses = [free_address(), free_address()];
        let start = |index: usize, executions: &FilePath| {
            let address = addresses[index].to_string();
            ChildServer::start_listening(directory.path(), &address, executions)
        };
        let endpoint = Addresses::new(addresses)
            .endpoint()
            .backoff(BackoffOptions {
                initial: Duration::from_millis(50),
                ..BackoffOptions::default()
            });
        restarted_in_turn(endpoint, start).await;
    });
}

/// Calls of one each 50 ms that fail once the server is back after `outage`.
async fn failures_after(outage: Duration) -> usize {
    const CALLS_AFTERWARDS: usize = 60;
    let directory = tempfile::tempdir().unwrap();
    let address = free_address().to_string();
    let executions = directory.path().join("executions");
    let start = || ChildServer::start_listening(directory.path(), &address, &executions);
    let server = start();
    let endpoint = Endpoint::new(format!("grpc://{address}")).unwrap();
    let mut client = BenchClient::new(endpoint.connect().await.unwrap());
    client.unary(payload(0, 10)).await.unwrap();
    server.kill();
    let (down, mut each) = (Instant::now(), interval(Duration::from_millis(50)));
    while down.elapsed() < outage {
        each.tick().await;
        client.unary(payload(1, 10)).await.unwrap_err();
    }
    // To start takes its time, meanwhile calls go on.
    let back = tokio::task::spawn_blocking({
        let (directory, address) = (directory.path().to_owned(), address.clone());
        let executions = executions.clone();
        move || ChildServer::start_listening(&directory, &address, &executions)
    });
    while !back.is_finished() {
        each.tick().await;
        // It may be there already, though nothing was heard of it.
        let _ = client.unary(payload(2, 10)).await;
    }
    let _server = back.await.unwrap();
    let mut failures = 0;
    for _ in 0..CALLS_AFTERWARDS {
        each.tick().await;
        failures += usize::from(client.unary(payload(3, 10)).await.is_err());
    }
    failures
}

/// However long a server was away: as long as calls come, it is missed for a second at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_back_is_found_at_once_by_those_that_call() {
    let outages = [1, 5, 20].map(|seconds| failures_after(Duration::from_secs(seconds)));
    let failures = futures_util::future::join_all(outages).await;
    println!("calls that failed after outages of 1, 5 and 20 s: {failures:?}");
    assert!(failures.iter().all(|failed| *failed <= 20), "{failures:?}");
}
