//! A message over the limit of its receiver takes no more than 1 MiB of memory there on a local path, where its first
//! piece tells its length; over gRPC no more than one of the limit does, and 1 MiB. In both directions, alone and in a
//! stream.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use ringway::{Channel, Child, Endpoint, Server, ServerBuilder};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    ChildServer, LargeHandler, PeakMemory, Way, free_address, in_a_process_of_its_own_with,
    payload, payloads, serve_as_child_with, within,
};
use tonic::{Code, Response, Status};

const MIB: usize = 1 << 20;
const NAME: &str = "limited:50051";
const PLUGIN: &str = "RINGWAY_TEST_LIMITED_PLUGIN";
/// Has the server take messages of any length: then it is the client that has a limit.
const UNLIMITED: &str = "RINGWAY_TEST_UNLIMITED";
/// tonic's default.
const LIMIT_BYTES: usize = 4 * MIB;
/// Far above it.
const SENT_BYTES: usize = 100 * MIB;
/// Buffers of the path itself.
const BEYOND_BYTES: usize = MIB;
/// Has glibc give large buffers back at once, and keep no heap for each thread: what it keeps for later use is not
/// what a message takes.
const GIVES_BACK: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_ARENA_MAX", "1"),
];

fn add(builder: ServerBuilder) -> ServerBuilder {
    let service = BenchServer::new(LargeHandler);
    builder.add_service(match std::env::var_os(UNLIMITED) {
        Some(_) => service.max_decoding_message_size(usize::MAX),
        None => service,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    if std::env::var_os(PLUGIN).is_some() {
        add(Server::builder()).serve_pipe().await.unwrap();
    }
    serve_as_child_with(add).await;
}

/// What the server's process took since it was last asked to begin anew.
async fn ask(client: &mut BenchClient<Channel>, question: u64) -> usize {
    let answer = client.unary(payload(question, 0)).await.unwrap();
    usize::try_from(answer.into_inner().sequence).unwrap()
}

fn assert_refused<T>(what: &str, ended: Result<Response<T>, Status>) {
    let status = ended.err().unwrap();
    assert_eq!(status.code(), Code::OutOfRange, "{what}: {status:?}");
}

fn assert_little(what: &str, taken: usize, allowed: usize) {
    println!("{what}: {} KiB of {} KiB", taken >> 10, allowed >> 10);
    let allowed = allowed + BEYOND_BYTES;
    assert!(taken <= allowed, "{what}: {taken} bytes, not {allowed}");
}

/// Returns the bytes that a message may take before it is refused. A gRPC message is read up to the limit, a local one
/// is judged by the length in its first piece.
fn allowed(way: Way) -> usize {
    match way {
        Way::GrpcTcp | Way::GrpcUnix => LIMIT_BYTES,
        _ => 0,
    }
}

/// The server's limit, which its own process holds.
async fn requests(mut client: BenchClient<Channel>, allowed: usize) {
    // Threads, stubs and first buffers are no messages.
    for _ in 0..3 {
        client.unary(payload(1, 100_000)).await.unwrap();
        client.client_stream(payloads(3, 100_000)).await.unwrap();
    }
    ask(&mut client, PeakMemory::BEGIN).await;
    let ended = client.unary(payload(1, SENT_BYTES)).await;
    assert_refused("request", ended);
    let taken = ask(&mut client, PeakMemory::GROWTH).await;
    assert_little("request", taken, allowed);
    let ended = client.client_stream(payloads(1, SENT_BYTES)).await;
    assert_refused("client stream", ended);
    let taken = ask(&mut client, PeakMemory::GROWTH).await;
    assert_little("client stream", taken, allowed);
    // It is refused where its first answer is, or where that would be.
    match client.bidi(payloads(1, SENT_BYTES)).await {
        Ok(replies) => {
            let status = replies.into_inner().message().await.unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        }
        ended @ Err(_) => assert_refused("exchange", ended),
    }
    let taken = ask(&mut client, PeakMemory::GROWTH).await;
    assert_little("exchange", taken, allowed);
}

/// The client's limit, in this process.
async fn answers(mut client: BenchClient<Channel>, allowed: usize) {
    let asked = |bytes: usize| payload(bytes as u64, 0);
    let streamed = |bytes: usize| StreamRequest {
        count: 1,
        size_bytes: u32::try_from(bytes).unwrap(),
    };
    for _ in 0..3 {
        client.unary(asked(100_000)).await.unwrap();
        let mut stream = client.server_stream(streamed(100_000)).await.unwrap();
        stream.get_mut().message().await.unwrap();
    }
    PeakMemory::begin();
    assert_refused("answer", client.unary(asked(SENT_BYTES)).await);
    assert_little("answer", PeakMemory::growth(), allowed);
    match client.server_stream(streamed(SENT_BYTES)).await {
        Ok(stream) => {
            let status = stream.into_inner().message().await.unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        }
        ended @ Err(_) => assert_refused("server stream", ended),
    }
    assert_little("server stream", PeakMemory::growth(), allowed);
}

/// A server in a process of its own, and a channel to it.
struct Served {
    channel: Channel,
    _server: Option<ChildServer>,
    _child: Option<Child>,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start(way: Way) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (mut server, mut child) = (None, None);
        let channel = match way {
            Way::Pipe => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command
                    .args(["--exact", "server_process", "--nocapture"])
                    .env(PLUGIN, "yes")
                    .stdout(Stdio::null());
                child.insert(Child::spawn(command).await.unwrap()).channel()
            }
            Way::GrpcTcp | Way::GrpcUnix => {
                let (listens, called) = if way == Way::GrpcTcp {
                    let address = free_address().to_string();
                    (address.clone(), format!("grpc://{address}"))
                } else {
                    let address = format!("unix:{}/grpc.sock", directory.path().display());
                    (address.clone(), address)
                };
                let executions = directory.path().join("executions");
                let root = directory.path().join("ringway");
                server = Some(ChildServer::start_listening(&root, &listens, &executions));
                Endpoint::new(called).unwrap().connect().await.unwrap()
            }
            _ => {
                server = Some(ChildServer::start(directory.path(), NAME));
                let address = match way {
                    Way::SocketEpoll => format!("socket+epoll://{NAME}"),
                    _ => format!("{}://{NAME}", way.path()),
                };
                let endpoint = Endpoint::new(address).unwrap().directory(directory.path());
                endpoint.connect().await.unwrap()
            }
        };
        Self {
            channel,
            _server: server,
            _child: child,
            _directory: directory,
        }
    }
}

/// Runs `test` in a process of its own, whose server takes messages of any length if `unlimited`.
fn measured(name: &str, way: Way, is_unlimited: bool) {
    let mut environment = GIVES_BACK.to_vec();
    environment.extend(is_unlimited.then_some((UNLIMITED, "yes")));
    if !in_a_process_of_its_own_with(name, &environment) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(within(async {
        let served = Served::start(way).await;
        let client = BenchClient::new(served.channel.clone());
        if is_unlimited {
            answers(client, allowed(way)).await;
        } else {
            requests(client, allowed(way)).await;
        }
    }));
}

#[test]
fn requests_over_shm() {
    measured("requests_over_shm", Way::Shm, false);
}

#[test]
fn answers_over_shm() {
    measured("answers_over_shm", Way::Shm, true);
}

#[test]
fn requests_over_socket() {
    measured("requests_over_socket", Way::Socket, false);
}

#[test]
fn answers_over_socket() {
    measured("answers_over_socket", Way::Socket, true);
}

#[test]
fn requests_over_socket_epoll() {
    measured("requests_over_socket_epoll", Way::SocketEpoll, false);
}

#[test]
fn answers_over_socket_epoll() {
    measured("answers_over_socket_epoll", Way::SocketEpoll, true);
}

#[test]
fn requests_over_pipe() {
    measured("requests_over_pipe", Way::Pipe, false);
}

#[test]
fn answers_over_pipe() {
    measured("answers_over_pipe", Way::Pipe, true);
}

#[test]
fn requests_over_grpc_tcp() {
    measured("requests_over_grpc_tcp", Way::GrpcTcp, false);
}

#[test]
fn answers_over_grpc_tcp() {
    measured("answers_over_grpc_tcp", Way::GrpcTcp, true);
}

#[test]
fn requests_over_grpc_unix() {
    measured("requests_over_grpc_unix", Way::GrpcUnix, false);
}

#[test]
fn answers_over_grpc_unix() {
    measured("answers_over_grpc_unix", Way::GrpcUnix, true);
}
