//! Large messages take memory in proportion, at each side: as much as they are long, not a multiple.
//!
//! Lengths of up to a gigabyte go as well, and take their time: `RINGWAY_TEST_LARGE_MIB` names another one.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringway::{Channel, Child, Endpoint, Server, ServerBuilder};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    ChildServer, LargeHandler, PeakMemory, Running, Way, in_a_process_of_its_own_with, payload,
    payloads, serve_as_child_with,
};
use tokio_stream::StreamExt;
use tonic::Code;

const MIB: usize = 1 << 20;
const NAME: &str = "large:50051";
/// Names another length than those that are always tried.
const LENGTH_MIB: &str = "RINGWAY_TEST_LARGE_MIB";
const PLUGIN: &str = "RINGWAY_TEST_LARGE_PLUGIN";
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

fn add(builder: ServerBuilder) -> ServerBuilder {
    builder.add_service(BenchServer::new(LargeHandler).max_decoding_message_size(usize::MAX))
}

/// One side of a conversation: the client, and the process that serves it if that is another.
struct Sides {
    client: BenchClient<Channel>,
    /// Both are one process, so that what it takes is for both.
    are_one: bool,
}

impl Sides {
    fn new(channel: Channel, are_one: bool) -> Self {
        let client = BenchClient::new(channel).max_decoding_message_size(usize::MAX);
        Self { client, are_one }
    }

    /// Does `work`, and checks what each side takes for it.
    async fn measure(
        &mut self,
        what: &str,
        bound: usize,
        work: impl AsyncFnOnce(&mut BenchClient<Channel>),
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
        println!(
            "{what}: {} MiB here, {} MiB there, {took_ms} ms",
            own / MIB,
            other / MIB
        );
        let bound = if self.are_one { 2 * bound } else { bound };
        assert!(
            own < bound && other < bound,
            "{what}: over {} MiB",
            bound / MIB
        );
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
    let mut sides = Sides::new(channel.clone(), are_one);
    // Threads, stubs and first buffers are no messages.
    sides.client.unary(payload(1, 1)).await.unwrap();
    for size in sizes() {
        sides.one_message_each_way(size).await;
    }
    sides.streams().await;
    if !are_one {
        refused(channel).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    if std::env::var_os(PLUGIN).is_some() {
        add(Server::builder()).serve_pipe().await.unwrap();
    }
    serve_as_child_with(add).await;
}

macro_rules! measured {
    ($($path:ident = $way:expr;)*) => {$(
        #[test]
        fn $path() {
            if in_a_process_of_its_own_with(stringify!($path), &[GIVES_BACK]) {
                run($way);
            }
        }
    )*};
}

measured! {
    shm = Way::Shm;
    socket = Way::Socket;
    socket_epoll = Way::SocketEpoll;
    pipe = Way::Pipe;
    inproc = Way::Inproc;
}
