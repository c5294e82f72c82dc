//! Faults that nobody wants to do harm with: processes that die or stop, kernels that refuse, tables that are full.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Channel, Endpoint, Path, Server, ServerBuilder};
use ringway_local::LocalConfig;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{
    ChildClient, ChildServer, LargeHandler, Refused, Running, Way, alone, alone_for, asking,
    become_filtered, client_of, eventually, hang_as_child, in_a_process_of_its_own, ours, payload,
    payloads, serve_as_child, serve_as_child_with, within,
};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tonic::{Code, Request, Response, Status, Streaming};

const NAME: &str = "faulty:50051";
/// What a handler may take from its client's death.
const LIMIT: Duration = Duration::from_millis(100);
/// Deaths, of which one has to be within the limit: the machine may have been busy at the others.
const ROUNDS: usize = 4;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    if std::env::var_os(EXHAUSTED).is_some() {
        let handler = Exhausted::default();
        let add = |builder: ServerBuilder| {
            let service = BenchServer::new(handler).max_decoding_message_size(usize::MAX);
            builder.add_service(service)
        };
        return serve_as_child_with(add).await;
    }
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

/// The kernel closes what no free descriptor is left for; that client is refused, those beside it live, and once
/// there are descriptors again, all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_out_of_descriptors_refuses_and_recovers() {
    if !in_a_process_of_its_own("a_process_out_of_descriptors_refuses_and_recovers") {
        return;
    }
    within(async {
        let running = Running::with(Way::Shm, |builder| {
            builder
                .local_config(impatient())
                .add_service(BenchServer::new(ours::Handler::default()))
        })
        .await;
        let mut before = running.client().await;
        before.unary(payload(1, 100)).await.unwrap();
        let limit = Rlimit {
            current: Some(256),
            maximum: Some(256),
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut full: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            full.push(file);
        }
        assert!(full.len() > 100);
        for _ in 0..14 {
            let attempt = async { client_of_one(&running).await };
            let attempt = tokio::time::timeout(Duration::from_secs(5), attempt).await;
            // A handshake more or less: it ends, with a call or with an error.
            assert!(attempt.is_ok(), "{} descriptors taken", full.len());
            before.unary(payload(1, 100)).await.unwrap();
            full.pop();
        }
        drop(full);
        let answered = client_of_one(&running).await;
        answered.unwrap();
    })
    .await;
}

/// Has a child serve by [`Exhausted`].
const EXHAUSTED: &str = "RINGWAY_TEST_EXHAUSTED";
/// Sequences of empty messages by which it is told to take all descriptors of its process, and to let go of them.
const EXHAUST: u64 = 1;
const RECOVER: u64 = 2;

/// Opens what there is room for in this process's table of descriptors.
fn take_all_descriptors() -> Vec<File> {
    let limit = Rlimit {
        current: Some(256),
        maximum: Some(256),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Tells how long messages are, and takes descriptors when it is told to.
#[derive(Default)]
struct Exhausted {
    taken: Mutex<Vec<File>>,
}

#[tonic::async_trait]
impl Bench for Exhausted {
    type ServerStreamStream = <LargeHandler as Bench>::ServerStreamStream;
    type BidiStream = <LargeHandler as Bench>::BidiStream;

    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let Payload { sequence, data } = request.get_ref();
        match *sequence {
            EXHAUST if data.is_empty() => *self.taken.lock().unwrap() = take_all_descriptors(),
            RECOVER if data.is_empty() => self.taken.lock().unwrap().clear(),
            _ => return LargeHandler.unary(request).await,
        }
        Ok(Response::new(Payload::default()))
    }

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        LargeHandler.server_stream(request).await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        LargeHandler.client_stream(request).await
    }

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        LargeHandler.bidi(request).await
    }
}

/// Calls that need memory of which a descriptor would have to be received.
async fn in_need(client: &mut BenchClient<Channel>, way: usize) -> Result<(), Status> {
    const LONG: usize = 1 << 20;
    match way % 4 {
        0 => client.unary(payload(3, LONG)).await.map(drop),
        1 => client.unary(payload(3, 20 * LONG)).await.map(drop),
        2 => client.client_stream(payloads(2, LONG)).await.map(drop),
        _ => client.client_stream(payloads(1, 20 * LONG)).await.map(drop),
    }
}

/// Answers that do.
async fn in_need_of_answers(client: &mut BenchClient<Channel>, way: usize) -> Result<(), Status> {
    const LONG: u32 = 1 << 20;
    let asked = |size_bytes| StreamRequest {
        count: 2,
        size_bytes,
    };
    match way % 4 {
        0 => client.unary(payload(LONG.into(), 0)).await.map(drop),
        1 => {
            let asked = payload((20 * LONG).into(), 0);
            client.unary(asked).await.map(drop)
        }
        way => {
            let asked = asked(if way == 2 { LONG } else { 20 * LONG });
            let mut stream = client.server_stream(asked).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }
    }
}

/// Its calls end with words, those beside them go on, and the connection that all share is the same to the end.
async fn live_through(
    client: &mut BenchClient<Channel>,
    call: impl AsyncFn(&mut BenchClient<Channel>, usize) -> Result<(), Status>,
    exhaust: impl AsyncFnOnce(&mut BenchClient<Channel>),
    recover: impl AsyncFnOnce(&mut BenchClient<Channel>),
) {
    client.unary(payload(7, 100)).await.unwrap();
    let connections = || -> Vec<u64> {
        let all = ringway_local::connections();
        all.iter().map(|connection| connection.id()).collect()
    };
    let before = connections();
    exhaust(client).await;
    for round in 0..24 {
        let status = call(client, round).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::ResourceExhausted,
            "{round}: {status:?}"
        );
        assert!(status.message().contains("RLIMIT_NOFILE"), "{status:?}");
        client.unary(payload(7, 100)).await.unwrap();
        // Now and then another segment is tried.
        tokio::time::sleep(Duration::from_millis(17)).await;
    }
    recover(client).await;
    let began = Instant::now();
    for round in 0..4 {
        while let Err(status) = call(client, round).await {
            assert!(began.elapsed() < Duration::from_secs(5), "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(connections(), before, "it is another connection");
}

#[test]
fn a_server_out_of_descriptors_refuses_segments_not_its_connections() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start_with(directory.path(), NAME, (EXHAUSTED, "yes"));
        let mut client = client_of(&at("shm", directory.path())).await;
        let tell = async |client: &mut BenchClient<Channel>, what| {
            client.unary(payload(what, 0)).await.unwrap();
        };
        live_through(
            &mut client,
            in_need,
            async |client| tell(client, EXHAUST).await,
            async |client| tell(client, RECOVER).await,
        )
        .await;
    });
}

#[test]
fn a_client_out_of_descriptors_refuses_segments_not_its_connection() {
    if !in_a_process_of_its_own("a_client_out_of_descriptors_refuses_segments_not_its_connection") {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start_with(directory.path(), NAME, (EXHAUSTED, "yes"));
        let client = client_of(&at("shm", directory.path())).await;
        let mut client = client.max_decoding_message_size(usize::MAX);
        let taken = Mutex::new(Vec::new());
        live_through(
            &mut client,
            in_need_of_answers,
            async |_| *taken.lock().unwrap() = take_all_descriptors(),
            async |_| taken.lock().unwrap().clear(),
        )
        .await;
    });
}

fn impatient() -> LocalConfig {
    LocalConfig {
        handshake_timeout: Duration::from_millis(300),
        ..LocalConfig::default()
    }
}

async fn client_of_one(running: &Running) -> Result<(), String> {
    let endpoint = running.endpoint().local_config(impatient());
    let connected = endpoint.connect().await;
    let channel = connected.map_err(|error| error.to_string())?;
    let mut client = ringway_proto::bench::bench_client::BenchClient::new(channel);
    let answered = client.unary(payload(1, 100)).await;
    answered.map(drop).map_err(|status| status.to_string())
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
