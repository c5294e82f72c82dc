//! Processes that fork without exec while they have channels: the child's calls end in words, the parent's go on, and
//! when the parent dies its peer hears of it although the child lives.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_sys::fork::run_in_child;
use ringway_tests::{
    ChildServer, Running, Way, alone, asking, eventually, payload, serve_as_child,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::runtime::{Builder, Runtime};
use tonic::Code;

const NAME: &str = "forked:50051";
const LIMIT: Duration = Duration::from_millis(100);
const ROUNDS: usize = 4;
const ADDRESS: &str = "RINGWAY_TEST_FORKING_AT";
const DIRECTORY: &str = "RINGWAY_TEST_FORKING_IN";
const WAYS: [Way; 3] = [Way::Shm, Way::Socket, Way::SocketEpoll];

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

fn fork(work: impl FnOnce() -> i32) -> Pid {
    Pid::from_raw(run_in_child(work).unwrap()).unwrap()
}

/// What a child exited with; `None` if a signal ended it.
fn exit_of(child: Pid) -> Option<i32> {
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Calls that the parent of a fork makes, in a process of their own.
struct Parent {
    runtime: Runtime,
    channel: Channel,
}

impl Parent {
    /// A process whose address of a server is in its environment.
    fn of_environment() -> Option<Self> {
        let address = std::env::var(ADDRESS).ok()?;
        let directory = std::env::var(DIRECTORY).unwrap();
        let endpoint = Endpoint::new(address).unwrap().directory(directory);
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        let mut client = BenchClient::new(channel.clone());
        runtime.block_on(client.unary(payload(1, 100_000))).unwrap();
        Some(Self { runtime, channel })
    }

    /// Starts one that runs the test `name`.
    fn start(name: &str, address: &str, directory: &FilePath) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--nocapture"])
            .env(ADDRESS, address)
            .env(DIRECTORY, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// What the child of a fork finds: 0 if all is as it should be.
fn call_as_child_of_fork(channel: Channel, unfinished: impl Future + Unpin) -> i32 {
    let runtime = one_thread();
    let mut client = BenchClient::new(channel.clone());
    let status = runtime.block_on(async {
        // A call of the parent's that the child goes on with ends somehow, or not at all, but never in a crash.
        let _ = tokio::time::timeout(Duration::from_millis(50), unfinished).await;
        client.unary(payload(1, 100)).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("after the fork"), "{status:?}");
    // And takes leave of all that it has of the parent's.
    ringway_local::connections()
        .iter()
        .for_each(|connection| connection.close());
    drop((client, channel, runtime));
    0
}

/// Not a test by itself: what a process runs that forks while it calls.
#[test]
fn a_child_that_calls_is_told_and_the_parent_goes_on() {
    let name = "a_child_that_calls_is_told_and_the_parent_goes_on";
    let Some(Parent { runtime, channel }) = Parent::of_environment() else {
        return alone(async {
            for scheme in ["shm", "socket", "socket+epoll"] {
                let directory = tempfile::tempdir().unwrap();
                let server = ChildServer::start(directory.path(), NAME);
                let address = format!("{scheme}://{NAME}");
                let parent = Parent::start(name, &address, directory.path());
                let ended = parent.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&ended.stdout);
                assert!(ended.status.success(), "{scheme}: {}: {said}", ended.status);
                drop(server);
            }
        });
    };
    let mut client = BenchClient::new(channel.clone());
    let before = ringway_local::connections()[0].id();
    for _ in 0..3 {
        let mut hung = client.clone();
        let unfinished = async move { hung.unary(asking("hang", payload(2, 100))).await };
        let mut unfinished = Box::pin(unfinished);
        runtime.block_on(async {
            let begun = tokio::time::timeout(Duration::from_millis(20), &mut unfinished);
            begun.await.unwrap_err();
        });
        let for_child = channel.clone();
        let child = fork(|| call_as_child_of_fork(for_child, unfinished));
        assert_eq!(exit_of(child), Some(0));
        for size in [100, 100_000] {
            let answer = runtime.block_on(client.unary(payload(3, size))).unwrap();
            assert_eq!(answer.into_inner(), payload(3, size));
        }
    }
    let connections = ringway_local::connections();
    assert_eq!(
        connections[0].id(),
        before,
        "it is the same connection still"
    );
    assert!(connections[0].is_open() && connections.len() == 1);
}

/// Not a test by itself: what a process runs that forks, and is killed while its child lives on.
#[test]
fn a_parent_that_dies_is_noticed_though_its_child_lives() {
    let name = "a_parent_that_dies_is_noticed_though_its_child_lives";
    if let Some(Parent { runtime, channel }) = Parent::of_environment() {
        let child = fork(|| {
            std::thread::sleep(Duration::from_secs(50));
            0
        });
        println!("\n{}", child.as_raw_pid());
        let mut client = BenchClient::new(channel);
        let status = runtime.block_on(client.unary(asking("hang", payload(2, 100))));
        panic!("it should have been killed: {status:?}");
    }
    alone(async {
        for way in WAYS {
            let mut shortest = Duration::MAX;
            for _ in 0..ROUNDS {
                let running = Running::start(way).await;
                let mut parent = Parent::start(name, running.called(), &running.root());
                let mut said = BufReader::new(parent.stdout.take().unwrap()).lines();
                let child = said.find_map(|line| line.unwrap().parse().ok()).unwrap();
                eventually("the call hangs", || running.seen.inside() == 1).await;
                let killed = Instant::now();
                parent.kill().unwrap();
                eventually(&format!("{way:?}: no handler is left"), || {
                    running.seen.inside() == 0
                })
                .await;
                let left = running.seen.last_left().unwrap();
                shortest = shortest.min(left.saturating_duration_since(killed));
                parent.wait().unwrap();
                let child = Pid::from_raw(child).unwrap();
                kill_process(child, Signal::KILL).expect("the child lives");
            }
            assert!(shortest < LIMIT, "{way:?}: {shortest:?}");
        }
    });
}
