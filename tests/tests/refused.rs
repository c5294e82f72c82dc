//! Kernels that refuse: doorbells, sleep, memory.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Endpoint, Path};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{
    ChildServer, MemoryGroup, Refused, alone, client_of, death_of, in_a_process_of_its_own,
    payload, refuse_from_now_on, serve_as_child,
};
use tonic::Code;

const NAME: &str = "refused:50051";

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

fn at(scheme: &str, directory: &FilePath) -> Endpoint {
    let endpoint = Endpoint::new(format!("{scheme}://{NAME}")).unwrap();
    endpoint.directory(directory)
}

/// The runtime has what it needs by then; Ringway has its doorbells to do without, and takes a socket.
#[test]
fn eventfds_that_are_refused_lead_to_a_socket() {
    const TEST: &str = "eventfds_that_are_refused_lead_to_a_socket";
    let refused = [Refused::EventFd];
    if !in_a_process_of_its_own(TEST) {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let server = ChildServer::start_refused_later(directory.path(), NAME, &refused);
        assert_takes_a_socket(directory.path()).await;
        drop(server);
        // And the other end.
        let directory = tempfile::tempdir().unwrap();
        let server = ChildServer::start(directory.path(), NAME);
        refuse_from_now_on(&refused);
        assert_takes_a_socket(directory.path()).await;
        drop(server);
    });
}

async fn assert_takes_a_socket(directory: &FilePath) {
    let endpoint = Endpoint::new(NAME).unwrap().directory(directory);
    let mut client = client_of(&endpoint).await;
    for size in [100, 100_000] {
        let answer = client.unary(payload(1, size)).await.unwrap();
        assert_eq!(Path::of(&answer), Some(Path::Socket));
        assert_eq!(answer.into_inner(), payload(1, size));
    }
    let error = at("shm", directory).connect().await.unwrap_err();
    assert!(!error.to_string().is_empty());
}

/// No thread of either end can sleep on a futex, so all look again and again: slow, but no call fails.
#[test]
fn futexes_that_let_nobody_sleep_only_cost_cpu() {
    const TEST: &str = "futexes_that_let_nobody_sleep_only_cost_cpu";
    if !in_a_process_of_its_own(TEST) {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let refused = [Refused::FutexWait];
        let server = ChildServer::start_refused_later(directory.path(), NAME, &refused);
        refuse_from_now_on(&refused);
        for scheme in ["shm", "socket", "socket+epoll"] {
            let client = client_of(&at(scheme, directory.path())).await;
            let calls = (0..8).map(|sequence| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary(payload(sequence, 1000)).await })
            });
            for answer in join_all(calls).await {
                answer.unwrap().unwrap();
            }
        }
        drop(server);
    });
}

/// A container's memory ends while a server makes segments for its answers. The kernel refuses them, or ends the
/// server: either way calls end in words, and what comes after is served.
#[test]
fn memory_that_a_container_does_not_have() {
    const LIMIT_BYTES: u64 = 24 << 20;
    const STREAMS: u64 = 24;
    alone(async {
        let Some(group) = MemoryGroup::create(LIMIT_BYTES) else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let server = ChildServer::start(directory.path(), NAME);
        let client = client_of(&at("shm", directory.path())).await;
        group.add(server.id());
        let death = death_of(server.id());
        let endless = StreamRequest {
            count: u64::MAX,
            size_bytes: 3_000_000,
        };
        // Each on a connection of its own, and none is read: what was sent stays in the segments.
        let mut unread = Vec::new();
        let mut refused = None;
        for _ in 0..STREAMS {
            let Ok(channel) = at("shm", directory.path()).connect().await else {
                break;
            };
            let mut client = BenchClient::new(channel);
            match client.server_stream(endless).await {
                Ok(stream) => unread.push(stream.into_inner()),
                Err(status) => {
                    refused = Some(status);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ends = unread.into_iter().map(async |mut stream| {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a clean end of an endless stream"),
                    Err(status) => return (status, Instant::now()),
                }
            }
        });
        let ends = async {
            let ends = join_all(ends).await;
            let death = tokio::task::spawn_blocking(move || death.join().unwrap());
            (ends, death.await.unwrap())
        };
        let codes = [Code::Unavailable, Code::ResourceExhausted];
        if let Ok((ends, died)) = tokio::time::timeout(Duration::from_secs(10), ends).await {
            println!("the server was ended");
            for (status, at) in &ends {
                assert!(codes.contains(&status.code()), "{status:?}");
                let took = at.saturating_duration_since(died);
                assert!(took < Duration::from_secs(1), "{took:?}");
            }
        } else {
            println!("the server lives");
            client.clone().unary(payload(1, 100)).await.unwrap();
        }
        if let Some(status) = refused {
            assert!(codes.contains(&status.code()), "{status:?}");
        }
        drop(server);
        let _server = ChildServer::start(directory.path(), NAME);
        client.clone().unary(payload(2, 100_000)).await.unwrap();
    });
}
