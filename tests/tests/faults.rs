//! Faults that nobody wants to do harm with: processes that die or stop, kernels that refuse, tables that are full.
#![allow(clippy::unwrap_used)]

use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Endpoint, Path, Server};
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    ChildClient, ChildServer, Refused, Running, Way, alone, alone_for, asking, become_filtered,
    client_of, eventually, hang_as_child, in_a_process_of_its_own, ours, payload, serve_as_child,
    within,
};
use rustix::process::Signal;
use tonic::Code;

const NAME: &str = "faulty:50051";
/// What a handler may take from its client's death.
const LIMIT: Duration = Duration::from_millis(100);
/// Deaths, of which one has to be within the limit: the machine may have been busy at the others.
const ROUNDS: usize = 4;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_process() {
    hang_as_child().await;
}

/// Not a test: what a child process runs.
#[test]
fn filtered_process() {
    become_filtered();
}

fn at(scheme: &str, directory: &FilePath) -> Endpoint {
    let endpoint = Endpoint::new(format!("{scheme}://{NAME}")).unwrap();
    endpoint.directory(directory)
}

/// All files below a directory.
fn files(directory: &FilePath) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    };
    paths.flat_map(below).collect()
}

#[test]
fn a_client_killed_in_streams_leaves_no_handler() {
    alone(async {
        for way in [Way::Shm, Way::Socket, Way::SocketEpoll] {
            let mut shortest = Duration::MAX;
            for _ in 0..ROUNDS {
                let running = Running::start(way).await;
                let client = ChildClient::stream(&running);
                eventually("four streams", || running.seen.inside() == 4).await;
                eventually("messages come", || running.seen.received() > 10).await;
                let killed = Instant::now();
                client.signal(Signal::KILL);
                eventually("no handler", || running.seen.inside() == 0).await;
                let left = running.seen.last_left().unwrap();
                shortest = shortest.min(left.saturating_duration_since(killed));
                assert_eq!(running.seen.committed(), 0, "{way:?}");
            }
            assert!(shortest < LIMIT, "{way:?}: {shortest:?}");
        }
    });
}

/// With the settings that everybody has: it is given up much later than that.
#[test]
fn a_server_stopped_for_five_seconds_goes_on() {
    alone(async {
        join_all(["shm", "socket", "socket+epoll"].map(async |scheme| {
            let directory = tempfile::tempdir().unwrap();
            let server = ChildServer::start(directory.path(), NAME);
            let mut client = client_of(&at(scheme, directory.path())).await;
            client.unary(payload(1, 100)).await.unwrap();
            server.signal(Signal::STOP);
            let stopped = Instant::now();
            let mut waiting = client.clone();
            let waiting = tokio::spawn(async move { waiting.unary(payload(2, 100_000)).await });
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(!waiting.is_finished(), "{scheme}");
            server.signal(Signal::CONT);
            let answer = waiting.await.unwrap().unwrap();
            assert_eq!(answer.into_inner(), payload(2, 100_000));
            assert!(stopped.elapsed() < Duration::from_secs(10), "{scheme}");
            client.unary(payload(3, 100)).await.unwrap();
        }))
        .await;
    });
}

#[test]
fn both_ends_killed_leave_the_socket_file_alone() {
    alone(async {
        for scheme in ["shm", "socket"] {
            let directory = tempfile::tempdir().unwrap();
            let executions = tempfile::NamedTempFile::new().unwrap();
            let server = ChildServer::start_counting(directory.path(), NAME, executions.path());
            let address = format!("{scheme}://{NAME}");
            let client = ChildClient::hang_at(&address, directory.path());
            let called = || !std::fs::read(executions.path()).unwrap().is_empty();
            eventually("the call hangs", called).await;
            client.signal(Signal::KILL);
            server.kill();
            drop(client);
            let left = files(directory.path());
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!(left[0].extension().unwrap(), "sock");
            // Which is in nobody's way.
            let server = ChildServer::start(directory.path(), NAME);
            let mut client = client_of(&at(scheme, directory.path())).await;
            client.unary(payload(1, 100)).await.unwrap();
            drop(server);
        }
    });
}

/// Both are instances of the name, however their beginnings meet.
#[test]
fn two_servers_that_race_for_a_name_both_serve() {
    alone(async {
        for _ in 0..10 {
            let directory = tempfile::tempdir().unwrap();
            let bind = || {
                let handler = ours::Handler::default();
                let seen = Arc::clone(&handler.seen);
                let server = Server::builder()
                    .directory(directory.path())
                    .name(NAME)
                    .add_service(BenchServer::new(handler));
                tokio::spawn(async move {
                    let server = server.bind().await.unwrap();
                    (tokio::spawn(server.serve()), seen)
                })
            };
            let (one, other) = tokio::join!(bind(), bind());
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(files(directory.path()).len(), 2);
            let mut client = client_of(&at("shm", directory.path())).await;
            let began = Instant::now();
            while one.1.entered() == 0 || other.1.entered() == 0 {
                client.unary(payload(1, 100)).await.unwrap();
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "one is not found"
                );
            }
            one.0.abort();
            other.0.abort();
        }
    });
}

#[test]
fn memory_that_is_refused_leads_to_a_socket() {
    alone(async {
        for refused in [Refused::SharedMapping, Refused::Memfd] {
            let directory = tempfile::tempdir().unwrap();
            let server = ChildServer::start_refused(directory.path(), NAME, &[refused]);
            let endpoint = Endpoint::new(NAME).unwrap().directory(directory.path());
            let mut client = client_of(&endpoint).await;
            let answer = client.unary(payload(1, 100_000)).await.unwrap();
            assert_eq!(Path::of(&answer), Some(Path::Socket), "{refused:?}");
            let error = at("shm", directory.path()).connect().await.unwrap_err();
            assert!(!error.to_string().is_empty());
            drop(server);
        }
    });
}

/// A program that is started while channels are open gets none of their descriptors.
#[test]
fn a_program_inherits_nothing_of_a_live_channel() {
    alone(async {
        let before = inherited();
        for way in [Way::Shm, Way::Socket, Way::Pipe] {
            let running = Running::start(way).await;
            let mut client = running.client().await;
            client.unary(payload(1, 100_000)).await.unwrap();
            assert_eq!(inherited(), before, "{way:?}");
            client.unary(payload(2, 100)).await.unwrap();
        }
    });
}

/// The numbers of the descriptors that a program has which this process starts.
fn inherited() -> Vec<u32> {
    let mut command = Command::new("ls");
    let command = command.arg("/proc/self/fd").stdin(Stdio::null());
    let listed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut numbers: Vec<_> = listed.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// As in a container of one core with much to do: nobody spins in the way of those who have the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cpu_and_many_spinning_threads() {
    const THREADS: usize = 64;
    if !in_a_process_of_its_own("one_cpu_and_many_spinning_threads") {
        return;
    }
    let running = Running::start(Way::Shm).await;
    let mut client = running.client().await;
    client.unary(payload(1, 100)).await.unwrap();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1024).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let id: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let id = rustix::process::Pid::from_raw(id);
        rustix::thread::sched_setaffinity(id, &one).unwrap();
    }
    let spinning = Arc::new(AtomicBool::new(true));
    for _ in 0..THREADS {
        let spin = Arc::clone(&spinning);
        std::thread::spawn(move || {
            while spin.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    within(async {
        for sequence in 0..5 {
            client.unary(payload(sequence, 100)).await.unwrap();
        }
        let mut late = asking("hang", payload(9, 100));
        late.set_timeout(Duration::from_millis(50));
        let status = client.unary(late).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    })
    .await;
    spinning.store(false, Ordering::Relaxed);
}

/// Marks the process in which no memfd may be executable.
const NO_EXECUTABLES: &str = "RINGWAY_TEST_NO_EXECUTABLE_MEMFDS";

/// `vm.memfd_noexec=2` holds for a namespace of process ids: in one of its own, by root alone.
#[test]
fn memfds_that_may_not_be_executed() {
    if std::env::var_os(NO_EXECUTABLES).is_some() {
        return alone(async {
            let running = Running::start(Way::Shm).await;
            let mut client = running.client().await;
            let answer = client.unary(payload(1, 100_000)).await.unwrap();
            assert_eq!(Path::of(&answer), Some(Path::Shm));
        });
    }
    let in_namespace = |and_then: &str| {
        let set = format!("echo 2 > /proc/sys/vm/memfd_noexec && {and_then}");
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c", &set])
            .arg(std::env::current_exe().unwrap())
            .env(NO_EXECUTABLES, "yes");
        command
    };
    if !in_namespace("true")
        .output()
        .is_ok_and(|tried| tried.status.success())
    {
        println!("skipped: no namespace of process ids, or no vm.memfd_noexec, for this user");
        return;
    }
    let calls = "exec \"$0\" --exact memfds_that_may_not_be_executed --nocapture";
    let status = in_namespace(calls).status().unwrap();
    assert!(status.success(), "{status}");
}

/// A server without its directory goes on with those who have found it, and is found again once it is back.
#[test]
fn a_directory_that_is_removed() {
    alone_for(Duration::from_secs(60), async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("ringway");
        let server = Server::builder()
            .directory(&root)
            .name(NAME)
            .add_service(BenchServer::new(ours::Handler::default()));
        let serving = tokio::spawn(server.bind().await.unwrap().serve());
        let mut client = client_of(&at("shm", &root)).await;
        client.unary(payload(1, 100)).await.unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        client.unary(payload(1, 100)).await.unwrap();
        let began = Instant::now();
        while at("shm", &root).connect().await.is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(40),
                "it is not found again"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        client.unary(payload(1, 100)).await.unwrap();
        serving.abort();
    });
}
