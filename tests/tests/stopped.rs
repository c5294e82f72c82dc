//! A server that is stopped: calls end at their deadlines, wherever they wait, and a peer that takes nothing any
//! more is given up.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Endpoint, LocalConfig};
use ringway_tests::{ChildServer, client_of, payload, serve_as_child, within};
use rustix::process::Signal;
use tonic::{Code, Request};

const NAME: &str = "stopped:50051";
/// Calls, more than any link takes of requests that nobody reads.
const CALLS: u64 = 200;
const LARGE: usize = 10 * 1024;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

fn endpoint(way: &str, directory: &Path) -> Endpoint {
    let endpoint = Endpoint::new(format!("{way}{NAME}")).unwrap();
    endpoint.directory(directory)
}

/// Most of the calls can't even be opened. Their time runs from their first poll on.
async fn deadlines_fire_while_calls_wait(way: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = ChildServer::start(directory.path(), NAME);
    let client = client_of(&endpoint(way, directory.path())).await;
    client.clone().unary(payload(0, 10)).await.unwrap();
    server.signal(Signal::STOP);
    let began = Instant::now();
    let calls = (0..CALLS).map(|number| {
        let mut client = client.clone();
        let mut request = Request::new(payload(number, LARGE));
        request.set_timeout(Duration::from_millis(200));
        async move { client.unary(request).await }
    });
    for ended in within(join_all(calls)).await {
        let status = ended.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{way} {status:?}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{way} {took:?}");
    // Some that are given up before leave nothing behind either.
    let dropped = (0..CALLS).map(|number| {
        let mut client = client.clone();
        let call = async move { client.unary(payload(number, LARGE)).await };
        tokio::time::timeout(Duration::from_millis(20), call)
    });
    assert!(join_all(dropped).await.iter().all(Result::is_err), "{way}");
    server.signal(Signal::CONT);
    for number in 0..20 {
        let answer = within(client.clone().unary(payload(number, LARGE))).await;
        assert_eq!(
            answer.unwrap().into_inner(),
            payload(number, LARGE),
            "{way}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_fire_while_calls_wait_to_be_opened() {
    for way in ["shm://", "socket://", "socket+epoll://"] {
        deadlines_fire_while_calls_wait(way).await;
    }
}

/// Its calls have no deadline. One that goes on in time is not given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_given_up() {
    for way in ["shm://", "socket://", "socket+epoll://"] {
        let directory = tempfile::tempdir().unwrap();
        let server = ChildServer::start(directory.path(), NAME);
        let endpoint = endpoint(way, directory.path()).local_config(LocalConfig {
            stall_timeout: Some(Duration::from_secs(3)),
            ..LocalConfig::default()
        });
        let mut client = client_of(&endpoint).await;
        client.unary(payload(0, 10)).await.unwrap();
        server.signal(Signal::STOP);
        let mut calling = client.clone();
        let call = tokio::spawn(async move { calling.unary(payload(1, 10)).await });
        tokio::time::sleep(Duration::from_millis(1500)).await;
        server.signal(Signal::CONT);
        within(call).await.unwrap().unwrap();
        server.signal(Signal::STOP);
        let began = Instant::now();
        let status = within(client.unary(payload(2, 10))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{way} {status:?}");
        assert!(status.message().contains("stopped"), "{status:?}");
        assert!(began.elapsed() > Duration::from_secs(2), "{way}");
        server.signal(Signal::CONT);
        within(client.unary(payload(3, 10))).await.unwrap();
    }
}
