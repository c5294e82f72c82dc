//! A server and its clients, each on a runtime of its own, as in two processes; and pings between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway::{Channel, ServerBuilder};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{Running, Seen, Way, payload};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::scripted::{PING, Scripted};
use crate::stopwatch::{Stopwatch, soon, until};

/// Workers of a server, unless a test says otherwise.
pub(crate) const WORKERS: usize = 8;
const CLIENT_WORKERS: usize = 4;

/// A client of the scripted service.
pub(crate) type Client = BenchClient<Channel>;

/// Runtimes of a test, and the server on one of them.
pub(crate) struct Stage {
    running: Option<Running>,
    pub(crate) seen: Arc<Seen>,
    server: Option<Runtime>,
    clients: Option<Runtime>,
}

impl Stage {
    /// Serves `scripted` on a runtime of [`WORKERS`] workers.
    pub(crate) fn new(way: Way, scripted: Scripted) -> Self {
        Self::with(way, WORKERS, scripted, |builder| builder)
    }

    /// Serves `scripted` on a runtime of `workers`, configured as a test wants.
    pub(crate) fn with(
        way: Way,
        workers: usize,
        scripted: Scripted,
        configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let server = runtime("server", workers);
        let seen = Arc::clone(&scripted.seen);
        let running = server.block_on(Running::with(way, |builder| {
            configure(builder).add_service(BenchServer::new(scripted))
        }));
        Self {
            running: Some(running),
            seen,
            server: Some(server),
            clients: Some(runtime("clients", CLIENT_WORKERS)),
        }
    }

    /// Has clients share the server's runtime from now on, as in a program that calls itself.
    pub(crate) fn in_one_runtime(mut self) -> Self {
        if let Some(unused) = self.clients.take() {
            unused.shutdown_background();
        }
        self
    }

    /// Runs a test's own part on the clients' runtime.
    pub(crate) fn act<F: Future>(&self, part: F) -> F::Output {
        let clients = self.clients.as_ref().or(self.server.as_ref());
        clients.unwrap().block_on(part)
    }

    /// Returns the runtime that handlers run on.
    pub(crate) fn server_runtime(&self) -> &Handle {
        self.server.as_ref().unwrap().handle()
    }

    /// Connects anew.
    pub(crate) async fn client(&self) -> Client {
        let running = self.running.as_ref().unwrap();
        soon("a connection", running.client()).await
    }

    /// Asks the server to stop, runs `part` meanwhile, and waits until the server has stopped.
    pub(crate) fn stop_and(mut self, part: impl Future<Output = ()>) {
        let running = self.running.take().unwrap();
        let stopping = self.server_runtime().spawn(running.try_stop());
        self.act(async {
            part.await;
            soon("the server's end", stopping).await.unwrap().unwrap();
        });
    }

    /// Ends the server's runtime at once, whatever its threads are at.
    pub(crate) fn end_server_runtime(&mut self) {
        self.server.take().unwrap().shutdown_background();
    }

    /// Ends the clients' runtime at once.
    pub(crate) fn end_client_runtime(&mut self) {
        self.clients.take().unwrap().shutdown_background();
    }

    /// Gives clients a new runtime in place of one that ended.
    pub(crate) fn start_client_runtime(&mut self) {
        self.clients = Some(runtime("clients", CLIENT_WORKERS));
    }
}

impl Drop for Stage {
    /// Threads that are stuck must not hold up the test that found them.
    fn drop(&mut self) {
        let runtimes = [self.clients.take(), self.server.take()];
        for runtime in runtimes.into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(name: &str, workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .thread_name(name)
        .enable_all();
    builder.build().unwrap()
}

/// Which calls stand beside those that block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingKind {
    /// Unary, as those that block: their method is known to be quick by then.
    Unary,
    /// A stream of one message: the method of those that block has not been called yet.
    Stream,
}

/// Pings that go on beside what a test does, one after the other on each of several clients.
pub(crate) struct Pings {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<Duration>>,
}

impl Pings {
    /// Pings that a method has answered before it counts as quick.
    const WARM: u64 = 100;

    /// Starts them on the runtime of this task.
    pub(crate) async fn start(kind: PingKind, clients: impl IntoIterator<Item = Client>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut answered, mut tasks) = (Vec::new(), Vec::new());
        for mut client in clients {
            for _ in 0..Self::WARM {
                soon("a ping that warms up", ping(kind, &mut client)).await;
            }
            let count = Arc::new(AtomicU64::new(0));
            answered.push(Arc::clone(&count));
            tasks.push(tokio::spawn(go_on(kind, client, Arc::clone(&stop), count)));
        }
        Self {
            stop,
            answered,
            tasks,
        }
    }

    /// Waits until each client has had so many more answers.
    pub(crate) async fn are_answered(&self, more: u64) {
        let wanted: Vec<_> = self
            .answered
            .iter()
            .map(|count| count.load(Ordering::SeqCst) + more)
            .collect();
        until("pings are answered", || {
            let mut counts = self.answered.iter().zip(&wanted);
            counts.all(|(count, wanted)| count.load(Ordering::SeqCst) >= *wanted)
        })
        .await;
    }

    /// Ends them and returns the longest that one took.
    pub(crate) async fn worst(self) -> Duration {
        self.are_answered(3).await;
        self.stop.store(true, Ordering::SeqCst);
        let mut worst = Duration::ZERO;
        for task in self.tasks {
            worst = worst.max(soon("the last ping", task).await.unwrap());
        }
        worst
    }
}

async fn go_on(
    kind: PingKind,
    mut client: Client,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Duration {
    let mut worst = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let watch = Stopwatch::start();
        ping(kind, &mut client).await;
        worst = worst.max(watch.elapsed());
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    worst
}

/// One call that its handler answers at once.
pub(crate) async fn ping(kind: PingKind, client: &mut Client) {
    match kind {
        PingKind::Unary => drop(client.unary(payload(PING, 64)).await.unwrap()),
        PingKind::Stream => {
            let request = StreamRequest {
                count: 1,
                size_bytes: 64,
            };
            let mut stream = client.server_stream(request).await.unwrap().into_inner();
            assert!(stream.message().await.unwrap().is_some());
            assert!(stream.message().await.unwrap().is_none());
        }
    }
}
