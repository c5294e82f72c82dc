//! Clients that die at a step, and what their server sees.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway::{Endpoint, HandlerPolicy, WaitPolicy};
use ringway_proto::bench::bench_server::BenchServer;
use ringway_ring::failpoint::Step;
use ringway_tests::{
    FAILPOINT, Running, Seen, WAIT, Way, alone_for, client_of, death_of, descriptors, eventually,
    mapped_regions, ours, payload,
};

use crate::{Kind, LIMIT, WORST, call_until_it_fails, named};

const ADDRESS: &str = "RINGWAY_TEST_CALLED";
const DIRECTORY: &str = "RINGWAY_TEST_CALLED_IN";
const KIND: &str = "RINGWAY_TEST_KIND";
const SIZE: &str = "RINGWAY_TEST_SIZE";
const CALLERS: &str = "RINGWAY_TEST_CALLERS";

/// Calls until it dies, if this process was started for it; else returns at once.
pub(crate) async fn call_until_killed() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let said = |name| std::env::var(name).unwrap();
    let endpoint = Endpoint::new(address).unwrap().directory(said(DIRECTORY));
    let channel = endpoint.connect().await.unwrap();
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| format!("{kind:?}") == said(KIND));
    let size = said(SIZE).parse().unwrap();
    let callers = (0..said(CALLERS).parse::<u64>().unwrap())
        .map(|_| call_until_it_fails(channel.clone(), kind.unwrap(), 1, size));
    let ends = futures_util::future::join_all(callers).await;
    let failed = ends.iter().map(|end| &end.status).collect::<Vec<_>>();
    panic!("it should have died: {failed:?}");
}

/// A step, and the calls by which a client comes to it.
struct Case {
    step: Step,
    ways: &'static [Way],
    kinds: &'static [Kind],
    size: usize,
    callers: u64,
    times: [u32; 2],
    parks: bool,
}

impl Case {
    const fn of(step: Step, ways: &'static [Way]) -> Self {
        Self {
            step,
            ways,
            kinds: &Kind::ALL,
            size: 100,
            callers: 1,
            times: [1, 4],
            parks: false,
        }
    }

    fn start(&self, running: &Running, kind: Kind, times: u32) -> Child {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", "client_process", "--nocapture"])
            .env(ADDRESS, running.called())
            .env(DIRECTORY, running.root())
            .env(KIND, format!("{kind:?}"))
            .env(SIZE, self.size.to_string())
            .env(CALLERS, self.callers.to_string())
            .env(FAILPOINT, named(self.step, times))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.parks {
            command.env(WAIT, "park");
        }
        command.spawn().unwrap()
    }
}

const LOCAL: &[Way] = &[Way::Shm, Way::Socket, Way::SocketEpoll];

/// Lets clients die at a step, by each way, in each kind of call, beside one that goes on.
fn die(case: &Case) {
    alone_for(Duration::from_secs(120), async {
        for way in case.ways {
            let handler = ours::Handler::default();
            let seen = Arc::clone(&handler.seen);
            let running = Running::with(*way, |builder| {
                let builder = builder.add_service(BenchServer::new(handler));
                if case.parks {
                    builder.wait_policy(WaitPolicy::Park)
                } else {
                    builder
                }
            })
            .await;
            let honest = Honest::begin(&running).await;
            let mut shortest = Duration::MAX;
            for (kind, times) in case.kinds.iter().zip(case.times.iter().cycle()) {
                let took = die_once(case, &running, &seen, *kind, *times).await;
                assert!(took < WORST, "{:?} {way:?} {kind:?}: {took:?}", case.step);
                shortest = shortest.min(took);
            }
            assert!(shortest < LIMIT, "{:?} {way:?}: {shortest:?}", case.step);
            honest.end().await;
        }
    });
}

/// How long after the death the last handler was gone.
async fn die_once(case: &Case, running: &Running, seen: &Seen, kind: Kind, times: u32) -> Duration {
    let before = (descriptors(), mapped_regions());
    let mut client = case.start(running, kind, times);
    let death = death_of(client.id());
    let (died, status) =
        tokio::task::spawn_blocking(move || (death.join().unwrap(), client.wait().unwrap()))
            .await
            .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{:?} {kind:?} was not reached: {status}",
        case.step
    );
    // The honest client's call is one.
    eventually("no handler is left", || seen.inside() <= 1).await;
    let left = || (descriptors(), mapped_regions()) <= before;
    eventually("descriptors and mappings go away", left).await;
    died.elapsed()
}

/// A client beside those that die, of whose calls none fails.
struct Honest {
    stop: Arc<AtomicBool>,
    calling: tokio::task::JoinHandle<()>,
}

impl Honest {
    async fn begin(running: &Running) -> Self {
        let mut client = client_of(&running.endpoint()).await;
        client.unary(payload(0, 100)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let calling = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                client.unary(payload(0, 100)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { stop, calling }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.calling.await.unwrap();
    }
}

/// The first request dies with its client: no handler hears of it.
#[test]
fn between_payload_and_publish() {
    die(&Case::of(Step::Written, LOCAL));
    alone_for(Duration::from_secs(30), async {
        for way in LOCAL {
            let handler = ours::Handler::default();
            let seen = Arc::clone(&handler.seen);
            let running = Running::with(*way, |builder| {
                // A handler that is a task might be given up before it is polled.
                let builder = builder.handler_policy(HandlerPolicy::Inline);
                builder.add_service(BenchServer::new(handler))
            })
            .await;
            let case = Case::of(Step::Written, LOCAL);
            for kind in Kind::ALL {
                die_once(&case, &running, &seen, kind, 1).await;
            }
            assert_eq!(seen.entered(), 0, "{way:?}");
        }
    });
}

/// The server sleeps and is not rung for: it hears of the end, and what was published before still counts.
#[test]
fn between_publish_and_wake() {
    die(&Case {
        parks: true,
        ..Case::of(Step::Published, &[Way::Shm])
    });
}

#[test]
fn within_a_frame() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ClientStream, Kind::Bidi],
        size: 1_000_000,
        times: [1, 2],
        ..Case::of(Step::PartlySent, &[Way::SocketEpoll])
    });
}

#[test]
fn going_to_sleep() {
    die(&Case {
        parks: true,
        ..Case::of(Step::Asleep, LOCAL)
    });
}

#[test]
fn between_copy_and_cursor() {
    die(&Case::of(Step::Copied, &[Way::Shm]));
}

#[test]
fn between_cursor_and_caller() {
    die(&Case::of(Step::Taken, &[Way::Shm]));
}

#[test]
fn within_a_release() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ServerStream, Kind::Bidi],
        size: 100_000,
        ..Case::of(Step::Releasing, &[Way::Shm])
    });
}

#[test]
fn between_release_and_notice() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::Unary],
        size: 10_000,
        callers: 32,
        parks: true,
        ..Case::of(Step::Released, &[Way::Shm])
    });
}

#[test]
fn between_a_segment_and_its_note() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ClientStream, Kind::Bidi],
        size: 100_000,
        times: [1, 1],
        ..Case::of(Step::Growing, &[Way::Shm])
    });
}
