//! Large messages take memory in proportion, at each side: as much as they are long, not a multiple.
//!
//! Lengths of up to a gigabyte go as well, and take their time: `RINGWAY_TEST_LARGE_MIB` names another one.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringway::codegen::{Client, Method};
use ringway::{Channel, Child, Endpoint, Server, ServerBuilder};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{
    ChildServer, LargeHandler, PeakMemory, Running, Way, in_a_process_of_its_own_with, payload,
    payloads, serve_as_child_with,
};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::server::TcpIncoming;

const MIB: usize = 1 << 20;
const NAME: &str = "large:50051";
/// Names another length than those that are always tried.
const LENGTH_MIB: &str = "RINGWAY_TEST_LARGE_MIB";
const PLUGIN: &str = "RINGWAY_TEST_LARGE_PLUGIN";
const LISTENS: &str = "listens on ";
/// Has a child serve by tonic's own server.
const TONIC: &str = "RINGWAY_TEST_LARGE_TONIC";
/// The bar is 2.5 times the message; this is what a field of `Bytes` takes, with the pieces under way.
const BESIDE_BYTES: usize = 20 * MIB;
/// The parts of a stream that are under way, where it was written and where it was read to.
const STREAM_BYTES: usize = 64 * MIB;
const PARTS: u64 = 80;
/// What a receiver may take for a message that is far above its limit.
const REFUSED_BYTES: usize = 32 * MIB;
const LIMIT_BYTES: usize = 4 * MIB;

/// Has glibc give large buffers back at once: as a rule it keeps what it guesses to be of use again, up to 32 MiB a
/// thread, and that would be measured in place of what is in use.
const GIVES_BACK: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

fn sizes() -> Vec<usize> {
    match std::env::var(LENGTH_MIB) {
        Ok(mib) => vec![mib.parse::<usize>().unwrap() * MIB],
        Err(_) => vec![17 * MIB, 40 * MIB],
    }
}

/// The length beside which small calls are made: long enough on its way for some of them.
fn beside() -> usize {
    sizes()[0].max(200 * MIB)
}

fn add(builder: ServerBuilder) -> ServerBuilder {
    builder.add_service(BenchServer::new(LargeHandler).max_decoding_message_size(usize::MAX))
}

/// One side of a conversation: the client, and the process that serves it if that is another.
struct Sides<C> {
    client: BenchClient<C>,
    bounds: Bounds,
    /// What was measured, and what each side took.
    grown: Vec<(String, usize, usize)>,
}

/// What the sides may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bounds {
    /// Each what it is bound to.
    Each,
    /// Both are one process, so that what it takes is for both.
    Both,
    /// Whatever tonic takes.
    None,
}

impl<C> Sides<C> {
    fn bound(&self, each: usize) -> Option<usize> {
        match self.bounds {
            Bounds::Each => Some(each),
            Bounds::Both => Some(2 * each),
            Bounds::None => None,
        }
    }
}

macro_rules! sides_over {
    ($($channel:ty;)*) => {$(
impl Sides<$channel> {
    fn new(channel: $channel, bounds: Bounds) -> Self {
        let client = BenchClient::new(channel).max_decoding_message_size(usize::MAX);
        Self {
            client,
            bounds,
            grown: Vec::new(),
        }
    }

    /// Calls of few bytes while a message of `size` bytes is on its way over the same connection: each waits for
    /// pieces of it, and none for all.
    async fn beside(&mut self, size: usize) {
        for kind in ["request", "stream"] {
            let mut client = self.client.clone();
            let large = tokio::spawn(async move {
                let began = Instant::now();
                match kind {
                    "request" => drop(client.unary(payload(2, size)).await.unwrap()),
                    _ => drop(client.client_stream(payloads(1, size)).await.unwrap()),
                }
                began.elapsed()
            });
            let mut waits = Vec::new();
            while !large.is_finished() {
                let began = Instant::now();
                self.client.unary(payload(7, 10)).await.unwrap();
                waits.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let took = large.await.unwrap();
            waits.sort_unstable();
            let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
            println!(
                "{} calls beside a {kind} of {} MiB, {took:?}: median {median:?}, worst {worst:?}",
                waits.len(),
                size / MIB
            );
            assert!(
                self.bounds == Bounds::None || waits.len() > 10 && median * 10 < took,
                "they wait for all of it"
            );
        }
    }

    /// Does `work`, and checks what each side takes for it.
    async fn measure(
        &mut self,
        what: &str,
        bound: usize,
        work: impl AsyncFnOnce(&mut BenchClient<$channel>),
    ) {
        let mut asking = self.client.clone();
        let mut ask = async |question| {
            let answer = asking.unary(payload(question, 0)).await.unwrap();
            usize::try_from(answer.into_inner().sequence).unwrap()
        };
        ask(PeakMemory::BEGIN).await;
        PeakMemory::begin();
        let began = Instant::now();
        work(&mut self.client.clone()).await;
        let took_ms = began.elapsed().as_millis();
        let (own, other) = (PeakMemory::growth(), ask(PeakMemory::GROWTH).await);
        self.grown.push((what.to_owned(), own, other));
        println!(
            "{what}: {} MiB here, {} MiB there, {took_ms} ms",
            own / MIB,
            other / MIB
        );
        let Some(bound) = self.bound(bound) else {
            return;
        };
        assert!(
            own < bound && other < bound,
            "{what}: over {} MiB",
            bound / MIB
        );
    }

    async fn measure_all(&mut self) {
        // Threads, stubs and first buffers are no messages.
        self.client.unary(payload(1, 1)).await.unwrap();
        for size in sizes() {
            self.one_message_each_way(size).await;
        }
        self.streams().await;
        self.beside(beside()).await;
    }

    async fn one_message_each_way(&mut self, size: usize) {
        let (mib, bound) = (size / MIB, size + BESIDE_BYTES);
        self.measure(&format!("request of {mib} MiB"), bound, async |client| {
            let answer = client.unary(payload(2, size)).await.unwrap();
            assert_eq!(answer.into_inner().sequence, size as u64);
        })
        .await;
        let asked = payload(size as u64, 0);
        self.measure(&format!("answer of {mib} MiB"), bound, async |client| {
            let answer = client.unary(asked).await.unwrap();
            assert_eq!(answer.into_inner().data.len(), size);
        })
        .await;
        self.measure(
            &format!("client stream of {mib} MiB"),
            bound,
            async |client| {
                let summary = client.client_stream(payloads(1, size)).await.unwrap();
                assert_eq!(summary.into_inner().bytes, size as u64);
            },
        )
        .await;
        let size_bytes = u32::try_from(size).unwrap();
        let asked = StreamRequest {
            count: 1,
            size_bytes,
        };
        self.measure(
            &format!("server stream of {mib} MiB"),
            bound,
            async |client| {
                let mut stream = client.server_stream(asked).await.unwrap().into_inner();
                assert_eq!(stream.message().await.unwrap().unwrap().data.len(), size);
            },
        )
        .await;
        self.measure(
            &format!("exchange of {mib} MiB"),
            2 * size + BESIDE_BYTES,
            async |client| {
                let mut replies = client.bidi(payloads(1, size)).await.unwrap().into_inner();
                assert_eq!(replies.message().await.unwrap().unwrap().data.len(), size);
            },
        )
        .await;
    }

    async fn streams(&mut self) {
        self.measure("client stream of parts", STREAM_BYTES, async |client| {
            let summary = client.client_stream(payloads(PARTS, MIB)).await.unwrap();
            assert_eq!(summary.into_inner().messages, PARTS);
        })
        .await;
        let size_bytes = u32::try_from(MIB).unwrap();
        let asked = StreamRequest {
            count: PARTS,
            size_bytes,
        };
        self.measure("server stream of parts", STREAM_BYTES, async |client| {
            let stream = client.server_stream(asked).await.unwrap().into_inner();
            assert_eq!(
                stream
                    .map(Result::unwrap)
                    .fold(0, |count, _| count + 1)
                    .await,
                PARTS
            );
        })
        .await;
        self.measure("exchange of parts", STREAM_BYTES, async |client| {
            let replies = client
                .bidi(payloads(PARTS, MIB))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(
                replies
                    .map(Result::unwrap)
                    .fold(0, |count, _| count + 1)
                    .await,
                PARTS
            );
        })
        .await;
    }
}
    )*};
}

sides_over! {
    Channel;
    tonic::transport::Channel;
}

/// The bench's payload as prost generates it by default.
#[derive(Clone, PartialEq, prost::Message)]
struct InVec {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

static UNARY: Method = Method::new(
    "ringway.bench.v1.Bench",
    "Unary",
    "/ringway.bench.v1.Bench/Unary",
);

/// A field that is no `Bytes` is copied once more at each side.
async fn in_vec(sides: &mut Sides<Channel>, channel: Channel, size: usize) {
    let (mib, bound) = (size / MIB, 2 * size + BESIDE_BYTES);
    let client = Client::new(channel).max_decoding_message_size(usize::MAX);
    let mut sending = client.clone();
    let what = format!("request of {mib} MiB in a Vec");
    let work = async |_: &mut BenchClient<Channel>| {
        let Payload { sequence, data } = payload(2, size);
        let data = data.into();
        let message = tonic::Request::new(InVec { sequence, data });
        let answer: tonic::Response<Payload> = sending.unary(&UNARY, message).await.unwrap();
        assert_eq!(answer.into_inner().sequence, size as u64);
    };
    sides.measure(&what, bound, work).await;
    let mut asking = client;
    let what = format!("answer of {mib} MiB in a Vec");
    let work = async |_: &mut BenchClient<Channel>| {
        let asked = tonic::Request::new(payload(size as u64, 0));
        let answer: tonic::Response<InVec> = asking.unary(&UNARY, asked).await.unwrap();
        assert_eq!(answer.into_inner().data.len(), size);
    };
    sides.measure(&what, bound, work).await;
}

/// What a side with a low limit takes for a message far above it.
async fn refused(channel: Channel) {
    let mut client = BenchClient::new(channel).max_decoding_message_size(LIMIT_BYTES);
    PeakMemory::begin();
    let status = client
        .unary(payload(200 * MIB as u64, 0))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let grown = PeakMemory::growth();
    assert!(grown < REFUSED_BYTES, "{} MiB", grown / MIB);
}

async fn over(way: Way) {
    if way == Way::Inproc {
        let running = Running::with(way, add).await;
        return measure(running.channel().await, true).await;
    }
    if way == Way::Pipe {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "server_process", "--nocapture"])
            .env(PLUGIN, "yes")
            .stdout(Stdio::null());
        let child = Child::spawn(command).await.unwrap();
        return measure(child.channel(), false).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let _server = ChildServer::start(directory.path(), NAME);
    let address = match way {
        Way::SocketEpoll => format!("socket+epoll://{NAME}"),
        _ => format!("{}://{NAME}", way.path()),
    };
    let endpoint = Endpoint::new(address).unwrap().directory(directory.path());
    measure(endpoint.connect().await.unwrap(), false).await;
}

/// Much is copied, which takes a while on a busy machine.
fn run(way: Way) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(300), over(way)).await };
    runtime.block_on(limited).expect("it hangs");
}

async fn measure(channel: Channel, are_one: bool) {
    let bounds = if are_one { Bounds::Both } else { Bounds::Each };
    let mut sides = Sides::<Channel>::new(channel.clone(), bounds);
    sides.measure_all().await;
    for size in sizes() {
        in_vec(&mut sides, channel.clone(), size).await;
    }
    if !are_one {
        refused(channel).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    if std::env::var_os(PLUGIN).is_some() {
        add(Server::builder()).serve_pipe().await.unwrap();
    }
    if std::env::var_os(TONIC).is_some() {
        return serve_by_tonic().await;
    }
    serve_as_child_with(add).await;
}

macro_rules! measured {
    ($($path:ident = $run:ident($way:expr);)*) => {$(
        #[test]
        fn $path() {
            if in_a_process_of_its_own_with(stringify!($path), &[GIVES_BACK]) {
                $run($way);
            }
        }
    )*};
}

measured! {
    shm = run(Way::Shm);
    socket = run(Way::Socket);
    socket_epoll = run(Way::SocketEpoll);
    pipe = run(Way::Pipe);
    inproc = run(Way::Inproc);
    grpc_tcp = run_grpc(Way::GrpcTcp);
    grpc_unix = run_grpc(Way::GrpcUnix);
}

const GRPC_BESIDE_BYTES: usize = 16 * MIB;

/// A server of tonic's, which says on which port it listens.
async fn serve_by_tonic() {
    let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    println!("\n{LISTENS}{}", listener.local_addr().unwrap());
    let service = BenchServer::new(LargeHandler).max_decoding_message_size(usize::MAX);
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(listener);
    served.await.unwrap();
}

/// The same messages by tonic alone, at both ends.
async fn by_tonic() -> Vec<(String, usize, usize)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "server_process", "--nocapture"])
        .env(TONIC, "yes")
        .stdout(Stdio::piped());
    let mut child = Stopped(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| Some(line.unwrap().strip_prefix(LISTENS)?.to_owned()));
    let address = format!("http://{}", address.unwrap());
    let channel = tonic::transport::Endpoint::new(address).unwrap();
    let channel = channel.connect().await.unwrap();
    println!("by tonic:");
    let mut sides = Sides::<tonic::transport::Channel>::new(channel, Bounds::None);
    sides.measure_all().await;
    sides.grown
}

async fn over_grpc(way: Way) -> Vec<(String, usize, usize)> {
    let directory = tempfile::tempdir().unwrap();
    let executions = tempfile::NamedTempFile::new().unwrap();
    let (listens_on, address) = match way {
        Way::GrpcUnix => {
            let socket = format!("unix:{}", directory.path().join("grpc.sock").display());
            (socket.clone(), socket)
        }
        _ => {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let free = free.local_addr().unwrap();
            (free.to_string(), format!("grpc://{free}"))
        }
    };
    let _server = ChildServer::start_listening(directory.path(), &listens_on, executions.path());
    let channel = Endpoint::new(address).unwrap().connect().await.unwrap();
    println!("{way:?}:");
    let mut sides = Sides::<Channel>::new(channel.clone(), Bounds::None);
    sides.measure_all().await;
    refused(channel).await;
    sides.grown
}

/// Killed when this is dropped.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Over gRPC no side takes more than tonic's.
fn run_grpc(way: Way) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let measured = async { (by_tonic().await, over_grpc(way).await) };
    let limited = async { tokio::time::timeout(Duration::from_secs(300), measured).await };
    let (tonics, ours) = runtime.block_on(limited).expect("it hangs");
    for ((what, own, other), (_, tonics_own, tonics_other)) in ours.iter().zip(&tonics) {
        println!(
            "{what}: {} and {} MiB, tonic {} and {}",
            own / MIB,
            other / MIB,
            tonics_own / MIB,
            tonics_other / MIB
        );
    }
    for ((what, own, other), (_, tonics_own, tonics_other)) in ours.iter().zip(&tonics) {
        let bound = |tonics: usize| tonics + tonics / 10 + GRPC_BESIDE_BYTES;
        assert!(
            *own < bound(*tonics_own) && *other < bound(*tonics_other),
            "{what}: more than tonic takes"
        );
    }
}
