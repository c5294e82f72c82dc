//! Calls of all kinds at once, one after the other in each task, and how each of them ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway::Channel;
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{asking, payload, payloads};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In a record of its own.
    Small,
    /// In a block of the arena, or many reads of a socket.
    Large,
    /// Waits at the server for some milliseconds.
    Nap,
    Download,
    Upload,
    Exchange,
    /// Is never answered.
    Hang,
}

const ENDING: [Kind; 8] = [
    Kind::Small,
    Kind::Small,
    Kind::Large,
    Kind::Large,
    Kind::Nap,
    Kind::Download,
    Kind::Upload,
    Kind::Exchange,
];
/// A call that lasts longer is noted, however it ends.
const LONG: Duration = Duration::from_millis(10);
const LARGE_BYTES: usize = 100_000;
/// Later than any bar: a call that lasts so long is without an end.
const NO_END: Duration = Duration::from_secs(10);

/// The end of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) code: Code,
    /// Its number in the journal; streams have none.
    pub(crate) sequence: u64,
}

/// Counts the ends of all calls.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) calls: u64,
    pub(crate) answered: Vec<u64>,
    /// The last call of each task, and all that failed or lasted long.
    pub(crate) noted: Vec<End>,
    /// Calls that lasted longer than any bar allows.
    pub(crate) endless: Vec<Kind>,
}

#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    tasks: Vec<(Kind, JoinHandle<Ends>)>,
}

impl Load {
    /// Starts a task for each kind; with `hanging`, also calls that only the server's death ends.
    pub(crate) fn start(channel: &Channel, hanging: bool) -> Self {
        let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let hang = [Kind::Hang; 2];
        let kinds = ENDING
            .iter()
            .chain(hanging.then_some(&hang).into_iter().flatten());
        let tasks = (1..).zip(kinds).map(|(number, kind)| {
            let caller = Caller {
                client: BenchClient::new(channel.clone()),
                kind: *kind,
                first_sequence: number << 32,
                stop: Arc::clone(&stop),
                ended: Arc::clone(&ended),
            };
            (*kind, tokio::spawn(caller.run()))
        });
        let tasks = tasks.collect();
        Self { stop, ended, tasks }
    }

    /// Waits until so many calls have ended.
    pub(crate) async fn until(&self, calls: u64) {
        let began = Instant::now();
        while self.ended.load(Ordering::Relaxed) < calls && began.elapsed() < NO_END {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Has each task end with the call that it makes.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn ends(self) -> Ends {
        let mut all = Ends::default();
        let limit = tokio::time::Instant::now() + NO_END;
        for (kind, mut task) in self.tasks {
            let Ok(ends) = tokio::time::timeout_at(limit, &mut task).await else {
                task.abort();
                all.endless.push(kind);
                continue;
            };
            let ends = ends.unwrap();
            all.calls += ends.calls;
            all.answered.extend(ends.answered);
            all.noted.extend(ends.noted);
        }
        all
    }
}

struct Caller {
    client: BenchClient<Channel>,
    kind: Kind,
    first_sequence: u64,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
}

impl Caller {
    async fn run(mut self) -> Ends {
        let mut ends = Ends::default();
        for sequence in self.first_sequence.. {
            let began = Instant::now();
            let code = match self.call(sequence).await {
                Ok(()) => Code::Ok,
                Err(status) => status.code(),
            };
            let stopped = self.stop.load(Ordering::Relaxed);
            let is_unary = matches!(self.kind, Kind::Small | Kind::Large | Kind::Nap);
            if code == Code::Ok && is_unary {
                ends.answered.push(sequence);
            }
            if code != Code::Ok || stopped || began.elapsed() > LONG {
                ends.noted.push(End {
                    kind: self.kind,
                    began,
                    ended: Instant::now(),
                    code,
                    sequence: if is_unary { sequence } else { 0 },
                });
            }
            ends.calls += 1;
            self.ended.fetch_add(1, Ordering::Relaxed);
            if stopped {
                break;
            }
            if code != Code::Ok {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        ends
    }

    async fn call(&mut self, sequence: u64) -> Result<(), Status> {
        let client = &mut self.client;
        match self.kind {
            Kind::Small => client.unary(payload(sequence, 100)).await.map(drop),
            Kind::Large => client.unary(payload(sequence, LARGE_BYTES)).await.map(drop),
            Kind::Nap => client
                .unary(asking("nap", payload(sequence, 100)))
                .await
                .map(drop),
            Kind::Hang => client
                .unary(asking("hang", payload(0, 100)))
                .await
                .map(drop),
            Kind::Download => {
                let request = StreamRequest {
                    count: 20,
                    size_bytes: 3_000,
                };
                let mut stream = client.server_stream(request).await?.into_inner();
                while stream.message().await?.is_some() {}
                Ok(())
            }
            Kind::Upload => client.client_stream(payloads(20, 3_000)).await.map(drop),
            Kind::Exchange => {
                let requests = tokio_stream::iter((0..5).map(|sequence| payload(sequence, 100)));
                let mut replies = client.bidi(requests).await?.into_inner();
                while replies.next().await.transpose()?.is_some() {}
                Ok(())
            }
        }
    }
}
