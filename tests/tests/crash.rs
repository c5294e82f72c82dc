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
    ChildServer, alone, client_of, descriptors, eventually, mapped_regions, serve_as_child,
};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

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

fn endpoint(directory: &Path) -> Endpoint {
    Endpoint::new(format!("shm://{NAME}"))
        .unwrap()
        .directory(directory)
}

fn payload(sequence: u64) -> Payload {
    let data = vec![5; 100].into();
    Payload { sequence, data }
}

fn hanging<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-do", "hang".parse().unwrap());
    request
}

fn lines(executions: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(executions).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// How long after the kill the last of the calls ended, and with what.
async fn killed_during<F>(server: ChildServer, calls: Vec<F>) -> Duration
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    // Until each of them waits.
    tokio::time::sleep(Duration::from_millis(50)).await;
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
    }
    took
}

#[test]
fn unary_calls_in_flight_end_unavailable_and_are_executed_once() {
    alone(async {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUNDS {
            let directory = tempfile::tempdir().unwrap();
            let executions = directory.path().join("executions");
            let server = ChildServer::start_counting(directory.path(), NAME, &executions);
            let client = client_of(&endpoint(directory.path())).await;
            let calls = (0..64).map(|sequence| {
                let mut client = client.clone();
                async move { client.unary(hanging(payload(sequence))).await.map(drop) }
            });
            let took = killed_during(server, calls.collect()).await;
            shortest = shortest.min(took);
            let mut executed = lines(&executions);
            executed.sort_unstable();
            assert_eq!(executed, (0..64).collect::<Vec<_>>());
        }
        assert!(shortest < LIMIT, "{shortest:?}");
    });
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
            let mut stream = client.server_stream(hanging(request)).await?.into_inner();
            while stream.message().await?.is_some() {}
        }
        1 => {
            let requests =
                tokio_stream::iter((0..10).map(payload)).chain(ReceiverStream::new(receiver));
            client.client_stream(requests).await?;
        }
        _ => {
            let response = client.bidi(ReceiverStream::new(receiver)).await?;
            let mut replies = response.into_inner();
            sender.send(payload(1)).await.unwrap();
            while replies.message().await?.is_some() {}
        }
    }
    drop(sender);
    Ok(())
}

#[test]
fn streams_end_unavailable() {
    alone(async {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUNDS {
            let directory = tempfile::tempdir().unwrap();
            let server = ChildServer::start(directory.path(), NAME);
            let client = client_of(&endpoint(directory.path())).await;
            let calls = (0..12).map(|kind| stream_all_ways(client.clone(), kind));
            shortest = shortest.min(killed_during(server, calls.collect()).await);
        }
        assert!(shortest < LIMIT, "{shortest:?}");
    });
}

#[test]
fn descriptors_and_mappings_go_away() {
    alone(async {
        // The first connection opens what the process keeps.
        connect_use_and_kill().await;
        let before = descriptors();
        for _ in 0..3 {
            connect_use_and_kill().await;
        }
        eventually("the descriptors are closed", || descriptors() <= before).await;
        eventually("the regions are unmapped", || mapped_regions() == 0).await;
    });
}

async fn connect_use_and_kill() {
    let directory = tempfile::tempdir().unwrap();
    let server = ChildServer::start(directory.path(), NAME);
    let mut client = client_of(&endpoint(directory.path())).await;
    let data = vec![1; 1 << 20].into();
    client.unary(Payload { sequence: 1, data }).await.unwrap();
    assert!(mapped_regions() > 0);
    let mut hung = client.clone();
    let hung = tokio::spawn(async move { hung.unary(hanging(payload(1))).await });
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
        match client.unary(payload(sequence)).await {
            Ok(_) => answered.push(sequence),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    answered
}
