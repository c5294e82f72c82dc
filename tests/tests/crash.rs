//! A server that is killed: what its clients see, and what is left behind.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Channel, Endpoint};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{
    ChildServer, alone, asking, client_of, descriptors, eventually, free_address, mapped_regions,
    payload, payloads, serve_as_child,
};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

const NAME: &str = "crash:50051";
/// What an ended call may take from the server's death.
const LIMIT: Duration = Duration::from_millis(100);
/// Kills, of which one has to be within the limit: the machine may have been busy at the others.
const ROUNDS: usize = 4;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// How clients reach a server process that may be killed.
const ADDRESSES: [&str; 5] = ["shm://", "socket://", "socket+epoll://", "grpc://", "unix:"];

/// A server in `directory` that is reached in one of these ways, and notes what it executes.
fn start(way: &str, directory: &Path, executions: &Path) -> (ChildServer, Endpoint) {
    let (server, address) = match way {
        "grpc://" => {
            let address = free_address().to_string();
            let server = ChildServer::start_listening(directory, &address, executions);
            (server, format!("{way}{address}"))
        }
        "unix:" => {
            let address = format!("{way}{}", directory.join("grpc.sock").display());
            let server = ChildServer::start_listening(directory, &address, executions);
            (server, address)
        }
        _ => {
            let server = ChildServer::start_counting(directory, NAME, executions);
            (server, format!("{way}{NAME}"))
        }
    };
    let endpoint = Endpoint::new(address).unwrap().directory(directory);
    (server, endpoint)
}

fn endpoint(directory: &Path) -> Endpoint {
    Endpoint::new(format!("shm://{NAME}"))
        .unwrap()
        .directory(directory)
}

fn lines(executions: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(executions).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// How long after the kill, which comes when all are `waiting`, the last of the calls ended, and with what.
async fn killed_during<F>(
    server: ChildServer,
    calls: Vec<F>,
    waiting: impl Future<Output = ()>,
) -> Duration
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    waiting.await;
    let (killed, kill) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        server.kill();
        killed.send(Instant::now()).unwrap();
    });
    let ended = join_all(calls).await;
    let took = Instant::now().saturating_duration_since(kill.await.unwrap());
    for end in ended {
        let status = end.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(io_error_in(&status).is_some(), "{status:?}");
    }
    took
}

/// The connection's end among what a status comes from, as applications look for it.
fn io_error_in(status: &Status) -> Option<&std::io::Error> {
    let mut error = std::error::Error::source(status)?;
    loop {
        match error.downcast_ref() {
            Some(found) => return Some(found),
            None => error = error.source()?,
        }
    }
}

#[test]
fn unary_calls_in_flight_end_unavailable_and_are_executed_once() {
    alone(async {
        for way in ADDRESSES {
            let mut shortest = Duration::MAX;
            for _ in 0..ROUNDS {
                shortest = shortest.min(killed_during_unary_calls(way).await);
            }
            assert!(shortest < LIMIT, "{way}: {shortest:?}");
        }
    });
}

async fn killed_during_unary_calls(way: &str) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let executions = directory.path().join("executions");
    let (server, endpoint) = start(way, directory.path(), &executions);
    let client = client_of(&endpoint).await;
    let calls = (0..64).map(|sequence| {
        let mut client = client.clone();
        let request = asking("hang", payload(sequence, 100));
        async move { client.unary(request).await.map(drop) }
    });
    let waiting = eventually("all calls hang", || lines(&executions).len() == 64);
    let took = killed_during(server, calls.collect(), waiting).await;
    let mut executed = lines(&executions);
    executed.sort_unstable();
    assert_eq!(executed, (0..64).collect::<Vec<_>>(), "{way}");
    took
}

/// All three kinds of stream at once.
async fn stream_all_ways(mut client: BenchClient<Channel>, kind: u64) -> Result<(), Status> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    match kind % 3 {
        0 => {
            let request = StreamRequest {
                count: 10,
                size_bytes: 100,
            };
            let mut stream = client
                .server_stream(asking("hang", request))
                .await?
                .into_inner();
            while stream.message().await?.is_some() {}
        }
        1 => {
            let requests = payloads(10, 100).chain(ReceiverStream::new(receiver));
            client.client_stream(requests).await?;
        }
        _ => {
            let response = client.bidi(ReceiverStream::new(receiver)).await?;
            let mut replies = response.into_inner();
            sender.send(payload(1, 100)).await.unwrap();
            while replies.message().await?.is_some() {}
        }
    }
    drop(sender);
    Ok(())
}

#[test]
fn streams_end_unavailable() {
    alone(async {
        for way in ADDRESSES {
            let mut shortest = Duration::MAX;
            for _ in 0..ROUNDS {
                let directory = tempfile::tempdir().unwrap();
                let executions = directory.path().join("executions");
                let (server, endpoint) = start(way, directory.path(), &executions);
                let client = client_of(&endpoint).await;
                let calls = (0..12).map(|kind| stream_all_ways(client.clone(), kind));
                let waiting = tokio::time::sleep(Duration::from_millis(50));
                shortest = shortest.min(killed_during(server, calls.collect(), waiting).await);
            }
            assert!(shortest < LIMIT, "{way}: {shortest:?}");
        }
    });
}

#[test]
fn descriptors_and_mappings_go_away() {
    alone(async {
        for way in ["shm://", "socket://", "socket+epoll://"] {
            // The first connection opens what the process keeps.
            connect_use_and_kill(way).await;
            let before = descriptors();
            for _ in 0..3 {
                connect_use_and_kill(way).await;
            }
            let closed = format!("the descriptors of {way} are closed");
            eventually(&closed, || descriptors() <= before).await;
            eventually("the regions are unmapped", || mapped_regions() == 0).await;
        }
    });
}

async fn connect_use_and_kill(way: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = ChildServer::start(directory.path(), NAME);
    let endpoint = Endpoint::new(format!("{way}{NAME}")).unwrap();
    let mut client = client_of(&endpoint.directory(directory.path())).await;
    let data = vec![1; 1 << 20].into();
    client.unary(Payload { sequence: 1, data }).await.unwrap();
    assert_eq!(mapped_regions() > 0, way == "shm://");
    let mut hung = client.clone();
    let hung = tokio::spawn(async move { hung.unary(asking("hang", payload(1, 100))).await });
    let request = StreamRequest {
        count: u64::MAX,
        size_bytes: 100,
    };
    let mut unread = client.server_stream(request).await.unwrap().into_inner();
    unread.message().await.unwrap();
    server.kill();
    assert_eq!(hung.await.unwrap().unwrap_err().code(), Code::Unavailable);
    // What has arrived may still be read; then comes the end.
    let end = loop {
        match unread.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a clean end of a stream without one"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
}

/// Killed and restarted under load: callers may see `UNAVAILABLE`, never a second execution.
#[test]
fn no_call_is_executed_twice() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let executions = directory.path().join("executions");
        let start = || ChildServer::start_counting(directory.path(), NAME, &executions);
        let mut server = start();
        let channel = endpoint(directory.path()).connect().await.unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let callers: Vec<_> = (0..8)
            .map(|caller| tokio::spawn(call_until(stopped.clone(), channel.clone(), caller << 32)))
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.kill();
            server = start();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(true).unwrap();
        let mut answered = Vec::new();
        for caller in callers {
            answered.extend(caller.await.unwrap());
        }
        let mut times = HashMap::<u64, usize>::new();
        for sequence in lines(&executions) {
            *times.entry(sequence).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "executed more than once: {twice:?}");
        assert!(answered.iter().all(|sequence| times.contains_key(sequence)));
        assert!(
            answered.len() > 100,
            "only {} calls went through",
            answered.len()
        );
        drop(server);
    });
}

/// Calls one after the other; the sequences that were answered.
async fn call_until(
    stopped: tokio::sync::watch::Receiver<bool>,
    channel: Channel,
    first: u64,
) -> Vec<u64> {
    let mut client = BenchClient::new(channel);
    let mut answered = Vec::new();
    for sequence in first.. {
        if *stopped.borrow() {
            break;
        }
        match client.unary(payload(sequence, 100)).await {
            Ok(_) => answered.push(sequence),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    answered
}
