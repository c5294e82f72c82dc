//! Code of a user's that blocks or computes where the transport polls it: handlers, response streams,
//! request streams, destructors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway_proto::bench::StreamRequest;
use ringway_tests::{Seen, Way, payload};
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tonic::Status;

use crate::scripted::{BlocksWhenDropped, Scripted};
use crate::stage::{Client, PingKind, Pings, Stage};
use crate::stopwatch::{Stopwatch, best_of_several, soon, until};

const SLEEP: Duration = Duration::from_millis(200);
const SLEEPERS: u64 = 4;
/// One after the other they take 800 ms; side by side 200.
const ALL_LONGEST: Duration = Duration::from_millis(600);
/// Less than any handler here blocks for. `ringway compare` holds the figure; this tells stuck from not.
const PING_LONGEST: Duration = Duration::from_millis(150);
/// How long a loop computes.
const LOOP: Duration = Duration::from_millis(700);

/// Makes `count` calls of `client` at once, each in a task, and returns how long they take together.
async fn all_at_once(client: &Client, count: u64) -> Duration {
    let watch = Stopwatch::start();
    let calls: Vec<_> = (1..=count)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(payload(number, 64)).await })
        })
        .collect();
    for answer in soon("all answers", join_all(calls)).await {
        answer.unwrap().unwrap();
    }
    watch.elapsed()
}

/// Judges the worst ping. With tonic one may wait in a worker's slot for the task that runs next, which no
/// other worker takes from it, for as long as that worker blocks.
fn judge(way: Way, worst: Duration) -> Result<(), String> {
    if worst < PING_LONGEST || way.path() == ringway::Path::Grpc {
        return Ok(());
    }
    Err(format!("a ping took {worst:?}"))
}

/// Calls that block, and how long they may take together.
#[derive(Clone, Copy)]
struct Blocking {
    count: u64,
    longest: Duration,
}

const FOUR_SLEEPERS: Blocking = Blocking {
    count: SLEEPERS,
    longest: ALL_LONGEST,
};
const ONE_LOOP: Blocking = Blocking {
    count: 1,
    longest: Duration::from_secs(3),
};

/// Makes `calls` at once on one connection while pings go on there and on another one.
fn beside_pings(way: Way, kind: PingKind, calls: Blocking, stage: impl Fn() -> Stage) {
    best_of_several(|| {
        let stage = stage();
        stage.act(async {
            let (client, other) = (stage.client().await, stage.client().await);
            let pings = Pings::start(kind, [client.clone(), other]).await;
            let took = all_at_once(&client, calls.count).await;
            let worst = pings.worst().await;
            if took >= calls.longest {
                return Err(format!("all together took {took:?}, a ping {worst:?}"));
            }
            judge(way, worst)
        })
    });
}

fn sleeping() -> Scripted {
    Scripted::unary(|request| async {
        std::thread::sleep(SLEEP);
        Ok(request.into_inner())
    })
}

pub(crate) fn sleeping_handlers_run_side_by_side(way: Way) {
    let stage = || Stage::new(way, sleeping());
    beside_pings(way, PingKind::Stream, FOUR_SLEEPERS, stage);
}

/// What has answered in microseconds so far is trusted with the driver.
pub(crate) fn sleeping_handlers_of_a_quick_method_run_side_by_side(way: Way) {
    let stage = || Stage::new(way, sleeping());
    beside_pings(way, PingKind::Unary, FOUR_SLEEPERS, stage);
}

pub(crate) fn sleeping_handlers_in_the_runtime_of_their_callers(way: Way) {
    let stage = || Stage::new(way, sleeping()).in_one_runtime();
    beside_pings(way, PingKind::Unary, FOUR_SLEEPERS, stage);
}

/// It awaits what never waits, so it is one poll.
pub(crate) fn an_always_ready_loop_stops_itself_alone(way: Way) {
    let scripted = Scripted::unary(|request| async {
        let start = Instant::now();
        while start.elapsed() < LOOP {
            std::future::ready(()).await;
        }
        Ok(request.into_inner())
    });
    let stage = || Stage::new(way, scripted.clone());
    beside_pings(way, PingKind::Unary, ONE_LOOP, stage);
}

/// tokio's cooperative budget ends the poll of a task that awaits what tokio has, even on one worker.
pub(crate) fn an_always_ready_loop_yields_on_one_worker(way: Way) {
    let scripted = Scripted::unary(|request| async {
        let start = Instant::now();
        let semaphore = Semaphore::new(1);
        while start.elapsed() < LOOP {
            drop(semaphore.acquire().await.unwrap());
        }
        Ok(request.into_inner())
    });
    let stage = || {
        let stage = Stage::with(way, 1, scripted.clone(), |builder| builder);
        // The first call shows its method to be slow.
        stage.act(async {
            let mut client = stage.client().await;
            let call = client.unary(payload(1, 64));
            soon("the first answer", call).await.unwrap();
        });
        stage
    };
    beside_pings(way, PingKind::Stream, ONE_LOOP, stage);
}

/// A response stream is polled where its messages are sent.
pub(crate) fn a_blocking_response_stream_stops_itself_alone(way: Way) {
    let blocking = || {
        let sequences = tokio_stream::iter(0..4);
        let blocking = sequences.map(|sequence| {
            std::thread::sleep(SLEEP);
            Ok::<_, Status>(payload(sequence, 64))
        });
        Box::pin(blocking) as crate::scripted::Payloads
    };
    let scripted = Scripted::echo().download(blocking);
    best_of_several(|| {
        let stage = Stage::new(way, scripted.clone());
        stage.act(async {
            let (mut client, other) = (stage.client().await, stage.client().await);
            let pings = Pings::start(PingKind::Unary, [client.clone(), other]).await;
            let request = StreamRequest {
                count: 4,
                size_bytes: 64,
            };
            let stream = soon("the stream", client.server_stream(request)).await;
            let messages: Vec<_> =
                soon("its messages", stream.unwrap().into_inner().collect()).await;
            assert_eq!(messages.len(), 4);
            judge(way, pings.worst().await)
        })
    });
}

/// A request stream is polled in the task of its call, or where the connection has room for it: other
/// calls of the channel go on.
pub(crate) fn a_blocking_request_stream_stops_itself_alone(way: Way) {
    best_of_several(|| {
        let stage = Stage::new(way, Scripted::echo());
        stage.act(async {
            let client = stage.client().await;
            let other = stage.client().await;
            let pings = Pings::start(PingKind::Unary, [client.clone(), other]).await;
            let uploads: Vec<_> = (0..2)
                .map(|_| {
                    let mut client = client.clone();
                    let blocking = tokio_stream::iter(0..4).map(|sequence| {
                        std::thread::sleep(SLEEP);
                        payload(sequence, 64)
                    });
                    tokio::spawn(async move { client.client_stream(blocking).await })
                })
                .collect();
            for upload in soon("the uploads", join_all(uploads)).await {
                assert_eq!(upload.unwrap().unwrap().into_inner().messages, 4);
            }
            judge(way, pings.worst().await)
        })
    });
}

/// What a handler owns is dropped when its caller has gone, by code of the user's.
pub(crate) fn a_blocking_drop_stops_itself_alone(way: Way) {
    let guards = Arc::new(Seen::default());
    let entered = Arc::clone(&guards);
    let guarded = Scripted::unary(move |request| {
        let guard = BlocksWhenDropped {
            sleep: SLEEP,
            _inside: entered.enter(request.get_ref().sequence),
        };
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    best_of_several(|| {
        let stage = Stage::new(way, guarded.clone());
        stage.act(async {
            let (client, other) = (stage.client().await, stage.client().await);
            let pings = Pings::start(PingKind::Unary, [client.clone(), other]).await;
            let calls: Vec<_> = (1..=SLEEPERS)
                .map(|number| {
                    let mut client = client.clone();
                    tokio::spawn(async move { client.unary(payload(number, 64)).await })
                })
                .collect();
            until("the handlers wait", || guards.inside() == SLEEPERS).await;
            for call in &calls {
                call.abort();
            }
            until("the handlers are dropped", || guards.inside() == 0).await;
            judge(way, pings.worst().await)
        })
    });
}
