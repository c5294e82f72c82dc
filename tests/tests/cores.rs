//! Several drivers of one runtime: connections move between them, and nobody notices but by the speed.
//!
//! `RINGWAY_DRIVERS=restless` hands connections round every millisecond, so that a test meets each moment of a move.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use ringway::{Channel, Endpoint, HandlerPolicy, Server};
use ringway_local::{ConnectionRole, connections};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_sys::schedule::idle_time;
use ringway_tests::{
    Running, Way, in_a_process_of_its_own_with, is_intact, payload, payloads, within,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};

type Client = BenchClient<Channel>;

const LOCAL: [Way; 5] = [
    Way::Shm,
    Way::Socket,
    Way::SocketEpoll,
    Way::Pipe,
    Way::Inproc,
];

fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    builder.build().unwrap()
}

/// The drivers at work for connections of this process that have this role.
fn drivers(role: ConnectionRole) -> HashSet<usize> {
    let stats = connections().into_iter().map(|one| one.stats());
    let stats = stats.filter(|stats| stats.role == role);
    stats.map(|stats| stats.driver).collect()
}

/// One call of each kind, whose messages all come, in order and whole.
async fn call_all_kinds(client: &mut Client, number: u64) -> Result<(), Status> {
    let large = if number.is_multiple_of(8) {
        300_000
    } else {
        64
    };
    let answer = client.unary(payload(number, large)).await?.into_inner();
    assert!(is_intact(&answer) && answer.sequence == number);
    let request = StreamRequest {
        count: 40,
        size_bytes: 64,
    };
    let mut stream = client.server_stream(request).await?.into_inner();
    for sequence in 0..40 {
        assert_eq!(stream.message().await?.unwrap().sequence, sequence);
    }
    assert!(stream.message().await?.is_none());
    let summary = client.client_stream(payloads(40, 64)).await?;
    assert_eq!(summary.get_ref().messages, 40);
    let mut echoes = client.bidi(payloads(40, 64)).await?.into_inner();
    let mut next = 0;
    while let Some(echo) = echoes.next().await {
        assert_eq!(echo?.sequence, next);
        next += 1;
    }
    assert_eq!(next, 40);
    Ok(())
}

#[test]
fn calls_of_all_kinds_while_connections_move() {
    const NAME: &str = "calls_of_all_kinds_while_connections_move";
    if !in_a_process_of_its_own_with(NAME, &[("RINGWAY_DRIVERS", "restless")]) {
        return;
    }
    for way in LOCAL {
        let (server, clients) = (runtime(4), runtime(4));
        let running = server.block_on(Running::start(way));
        clients.block_on(async {
            let callers: Vec<_> = within(join_all((0..4).map(|_| running.client()))).await;
            let calling = callers.into_iter().map(|mut client| async move {
                for number in 1..=60 {
                    within(call_all_kinds(&mut client, number)).await?;
                }
                Ok::<_, Status>(())
            });
            let (mut server, mut client) = (HashSet::new(), HashSet::new());
            let watching = async {
                loop {
                    server.extend(drivers(ConnectionRole::Server));
                    client.extend(drivers(ConnectionRole::Client));
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            };
            let calling = try_join_all(calling.map(tokio::spawn));
            tokio::select! {
                () = watching => {}
                done = calling => done.unwrap().into_iter().for_each(|done| done.unwrap()),
            }
            println!("{way:?}: served by drivers {server:?}, called by {client:?}");
            assert!(server.len() > 1, "{way:?}: {server:?}");
        });
        server.block_on(running.stop());
    }
}

#[test]
fn a_fixed_number_of_drivers_has_connections_dealt_out() {
    const NAME: &str = "a_fixed_number_of_drivers_has_connections_dealt_out";
    if !in_a_process_of_its_own_with(NAME, &[("RINGWAY_DRIVERS", "3")]) {
        return;
    }
    for way in LOCAL {
        let (server, clients) = (runtime(3), runtime(3));
        let running = server.block_on(Running::start(way));
        clients.block_on(async {
            let mut callers: Vec<_> = within(join_all((0..6).map(|_| running.client()))).await;
            let calls = callers
                .iter_mut()
                .map(|client| within(call_all_kinds(client, 1)));
            try_join_all(calls).await.unwrap();
            for role in [ConnectionRole::Server, ConnectionRole::Client] {
                assert_eq!(drivers(role), HashSet::from([0, 1, 2]), "{way:?} {role:?}");
            }
        });
        server.block_on(running.stop());
    }
}

#[test]
fn all_drivers_of_a_runtime_end_with_it_and_connections_do_not() {
    const NAME: &str = "all_drivers_of_a_runtime_end_with_it_and_connections_do_not";
    if !in_a_process_of_its_own_with(NAME, &[("RINGWAY_DRIVERS", "3")]) {
        return;
    }
    for way in [Way::Shm, Way::Socket, Way::SocketEpoll, Way::Inproc] {
        let (server, first, second) = (runtime(3), runtime(3), runtime(3));
        let running = server.block_on(Running::start(way));
        let mut callers = first.block_on(async {
            let mut callers: Vec<_> = within(join_all((0..6).map(|_| running.client()))).await;
            for client in &mut callers {
                within(call_all_kinds(client, 1)).await.unwrap();
            }
            callers
        });
        assert_eq!(drivers(ConnectionRole::Client).len(), 3, "{way:?}");
        first.shutdown_background();
        let calls: Vec<_> = second.block_on(async {
            for number in 2..10 {
                for client in &mut callers {
                    within(call_all_kinds(client, number)).await.unwrap();
                }
            }
            let hanging = callers.iter().cloned().map(|mut client| {
                let mut request = Request::new(payload(1, 64));
                request
                    .metadata_mut()
                    .insert("x-do", "hang".parse().unwrap());
                tokio::spawn(async move { client.unary(request).await })
            });
            hanging.collect()
        });
        second.block_on(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.shutdown_background();
            for call in calls {
                let ended = within(call).await.unwrap().unwrap_err();
                // Its handler was dropped first, or its connection.
                let codes = [Code::Cancelled, Code::Unavailable];
                assert!(codes.contains(&ended.code()), "{way:?}: {ended}");
            }
        });
    }
}

/// What a server process reads.
const DIRECTORY: &str = "RINGWAY_TEST_CORES_DIRECTORY";
const WORKERS: &str = "RINGWAY_TEST_CORES_WORKERS";
const POLICY: &str = "RINGWAY_TEST_CORES_POLICY";
const NAME: &str = "cores:1";
/// Asks how many drivers serve.
const HOW_MANY: u64 = u64::MAX;

/// Computes for as many microseconds of its thread's CPU time as its message has bytes.
struct Computing;

#[tonic::async_trait]
impl Bench for Computing {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let mut message = request.into_inner();
        if message.sequence == HOW_MANY {
            message.sequence = drivers(ConnectionRole::Server).len() as u64;
            return Ok(Response::new(message));
        }
        let time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let end = time() + Duration::from_micros(message.data.len() as u64);
        while time() < end {
            std::hint::spin_loop();
        }
        Ok(Response::new(message))
    }

    type ServerStreamStream = tokio_stream::Empty<Result<Payload, Status>>;

    async fn server_stream(
        &self,
        _: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn client_stream(
        &self,
        _: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type BidiStream = tokio_stream::Empty<Result<Payload, Status>>;

    async fn bidi(
        &self,
        _: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Not a test: what a server process runs, until its standard input ends.
#[test]
fn server_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let workers = std::env::var(WORKERS).unwrap().parse().unwrap();
    let policy = match std::env::var(POLICY).unwrap().as_str() {
        "inline" => HandlerPolicy::Inline,
        _ => HandlerPolicy::Spawn,
    };
    runtime(workers).block_on(async {
        let server = Server::builder()
            .directory(directory)
            .name(NAME)
            .handler_policy(policy)
            .add_service(BenchServer::new(Computing));
        let over = tokio::task::spawn_blocking(|| {
            // However it ends.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        });
        let serving = server.bind().await.unwrap().serve_with_shutdown(async {
            over.await.unwrap();
        });
        serving.await.unwrap();
    });
}

/// A server in a process of its own; ends when dropped.
struct Process(Child);

impl Process {
    fn start(directory: &Path, workers: usize, policy: &str, drivers: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "server_process", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(WORKERS, workers.to_string())
            .env(POLICY, policy)
            .env("RINGWAY_DRIVERS", drivers)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may be dead already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

async fn clients_of(directory: &Path, count: usize) -> Vec<Client> {
    let endpoint = Endpoint::new(format!("shm://{NAME}"))
        .unwrap()
        .directory(directory);
    let begun = Instant::now();
    let mut clients = Vec::new();
    while clients.len() < count {
        match endpoint.connect().await {
            Ok(channel) => clients.push(BenchClient::new(channel)),
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    clients
}

async fn serving_drivers(client: &mut Client) -> u64 {
    let mut question = payload(0, 0);
    question.sequence = HOW_MANY;
    within(client.unary(question))
        .await
        .unwrap()
        .get_ref()
        .sequence
}

/// Calls in bursts of sixteen for each client, for a while; returns calls a second.
async fn in_bursts(clients: &[Client], handler_us: usize, time: Duration) -> f64 {
    let begun = Instant::now();
    let bursts = clients.iter().cloned().map(|client| {
        tokio::spawn(async move {
            let mut calls = 0.0;
            while begun.elapsed() < time {
                let burst = (0..16).map(|number| {
                    let mut client = client.clone();
                    async move { client.unary(payload(number, handler_us)).await }
                });
                for answer in within(join_all(burst)).await {
                    answer.unwrap();
                    calls += 1.0;
                }
            }
            calls
        })
    });
    let calls: f64 = join_all(bursts).await.into_iter().map(Result::unwrap).sum();
    calls / begun.elapsed().as_secs_f64()
}

/// What the CPUs at hand have idled meanwhile, of one.
fn idled(before: Duration, begun: Instant) -> f64 {
    (idle_time().unwrap() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

#[test]
fn a_busy_driver_shares_its_connections_and_has_them_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("ringway");
    let _server = Process::start(&root, 2, "inline", "adaptive");
    runtime(2).block_on(async {
        let mut clients = clients_of(&root, 4).await;
        assert_eq!(serving_drivers(&mut clients[0]).await, 1);
        let (before, begun) = (idle_time().unwrap(), Instant::now());
        let mut most = 1;
        while most == 1 && begun.elapsed() < Duration::from_secs(8) {
            in_bursts(&clients, 200, Duration::from_millis(200)).await;
            most = serving_drivers(&mut clients[0]).await;
        }
        let idled = idled(before, begun);
        if most == 1 {
            println!("not shared: the CPUs idled for {idled:.2} of one");
            assert!(idled < 0.6, "nothing was shared");
            return;
        }
        println!("shared after {:?}", begun.elapsed());
        let begun = Instant::now();
        while serving_drivers(&mut clients[0]).await > 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "kept for ever");
            for client in &mut clients {
                within(client.unary(payload(1, 1))).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("given back after {:?}", begun.elapsed());
    });
}

/// Says what further cores come to. `cargo test --release --test cores figures -- --nocapture` on an idle machine
/// gives figures worth reading.
#[test]
fn figures() {
    let time = Duration::from_millis(500);
    let cases = [
        ("one connection, tasks of 20 us", 1, 20, "spawn", "adaptive"),
        ("four connections, 200 us in passes", 4, 200, "inline", "1"),
        ("four connections, 200 us in passes", 4, 200, "inline", "2"),
        (
            "four connections, 200 us in passes",
            4,
            200,
            "inline",
            "adaptive",
        ),
    ];
    for (name, connections, handler_us, policy, drivers) in cases {
        let mut rates = Vec::new();
        for workers in [1, 2] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("ringway");
            let _server = Process::start(&root, workers, policy, drivers);
            rates.push(runtime(1).block_on(async {
                let clients = clients_of(&root, connections).await;
                in_bursts(&clients, handler_us, time).await;
                in_bursts(&clients, handler_us, time).await
            }));
        }
        println!(
            "{name}, drivers {drivers}: {:.0} calls/s with one worker, {:.0} with two, {:.2} times as many",
            rates[0],
            rates[1],
            rates[1] / rates[0]
        );
        assert!(rates.iter().all(|rate| *rate > 0.0));
    }
}
