//! Servers that die at a step, and what their clients see.

use std::path::Path as FilePath;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{Channel, Child, Endpoint, WaitPolicy};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_ring::failpoint::Step;
use ringway_tests::{
    ChildServer, EXECUTIONS_VARIABLE, FAILPOINT, Manner, WAIT, alone_for, asking, death_of,
    eventually, mapped_regions, payload, plugin,
};
use tonic::{Code, Request};

use crate::{End, Kind, LIMIT, NAME, WORST, call_until_it_fails, executed, named};

const SHM: &str = "shm://";
const PIPE: &str = "pipe";
const ALL_WAYS: &[&str] = &[SHM, "socket://", "socket+epoll://", PIPE];
/// Callers beside each other get sequences of their own.
const APART: u64 = 1 << 32;

/// A step, and the calls by which a server comes to it.
struct Case {
    step: Step,
    ways: &'static [&'static str],
    kinds: &'static [Kind],
    size: usize,
    callers: u64,
    /// When to die, by kinds in turn: at the first time, and at a later one.
    times: [u32; 2],
    parks: bool,
}

impl Case {
    const fn of(step: Step, ways: &'static [&'static str]) -> Self {
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
}

/// A server that dies, by whatever way it is reached.
struct Fragile {
    channel: Channel,
    death: JoinHandle<Instant>,
    /// It is killed, if it lives after all, when this is dropped.
    held: Held,
}

#[expect(dead_code, reason = "held to be dropped")]
enum Held {
    Server(ChildServer),
    Plugin(Box<Child>),
}

impl Fragile {
    async fn start(
        case: &Case,
        way: &str,
        times: u32,
        directory: &FilePath,
        executions: &FilePath,
    ) -> Self {
        let named = named(case.step, times);
        // A busy machine comes to these by itself: it keeps a driver's thread waiting, or has a new connection sleep
        // before its first call.
        let failpoint = match case.step {
            Step::HandingOver => format!("{named}:block"),
            Step::Asleep => format!("{named}:call"),
            _ => named,
        };
        if way == PIPE {
            let mut command = plugin(Manner::Talkative);
            command
                .env(FAILPOINT, failpoint)
                .env(EXECUTIONS_VARIABLE, executions);
            if case.parks {
                command.env(WAIT, "park");
            }
            let child = Child::spawn(command).await.unwrap();
            return Self {
                death: death_of(child.id()),
                channel: child.channel(),
                held: Held::Plugin(Box::new(child)),
            };
        }
        let server = ChildServer::start_dying(directory, NAME, executions, &failpoint, case.parks);
        Self {
            death: death_of(server.id()),
            // It may die in the handshake.
            channel: endpoint(way, directory, case.parks).connect_lazy(),
            held: Held::Server(server),
        }
    }
}

fn endpoint(way: &str, directory: &FilePath, parks: bool) -> Endpoint {
    let endpoint = Endpoint::new(format!("{way}{NAME}")).unwrap();
    let endpoint = endpoint.directory(directory);
    if parks {
        endpoint.wait_policy(WaitPolicy::Park)
    } else {
        endpoint
    }
}

/// Lets servers die at a step, by each way, in each kind of call.
fn die(case: &Case) {
    alone_for(Duration::from_secs(120), async {
        for way in case.ways {
            let mut shortest = Duration::MAX;
            for (kind, times) in case.kinds.iter().zip(case.times.iter().cycle()) {
                let took = die_once(case, way, *kind, *times).await;
                assert!(took < WORST, "{:?} {way} {kind:?}: {took:?}", case.step);
                shortest = shortest.min(took);
            }
            assert!(shortest < LIMIT, "{:?} {way}: {shortest:?}", case.step);
        }
        eventually("the regions are unmapped", || mapped_regions() == 0).await;
    });
}

/// How long after the death the last call ended.
async fn die_once(case: &Case, way: &str, kind: Kind, times: u32) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let executions = directory.path().join("executions");
    let fragile = Fragile::start(case, way, times, directory.path(), &executions).await;
    let callers = (0..case.callers).map(|caller| {
        let channel = fragile.channel.clone();
        tokio::spawn(call_until_it_fails(
            channel,
            kind,
            caller * APART + 1,
            case.size,
        ))
    });
    let ends: Vec<End> = join_all(callers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let death = tokio::task::spawn_blocking(move || fragile.death.join().unwrap());
    let death = death.await.unwrap();
    let what = format!("{:?} {way} {kind:?} {times}", case.step);
    if let Held::Server(server) = fragile.held {
        assert_eq!(server.ended_by(), Some(9), "{what} was not reached");
    }
    for end in &ends {
        assert_eq!(end.status.code(), Code::Unavailable, "{what}: {end:?}");
        // To die is no offence, with any step half done.
        let told_off = end.status.message().contains("broke the protocol");
        assert!(!told_off, "{what}: {end:?}");
    }
    if kind == Kind::Unary {
        assert_executed(case.step, &ends, &executions, &what);
    }
    if way != PIPE && kind == case.kinds[0] {
        assert_goes_on(&fragile.channel, directory.path(), &executions).await;
    }
    let last = ends.iter().map(|end| end.at).max().unwrap();
    last.saturating_duration_since(death)
}

/// Checks that what was answered was executed, all of it once at most.
fn assert_executed(step: Step, ends: &[End], executions: &FilePath, what: &str) {
    let executed = executed(executions);
    assert!(
        executed.values().all(|times| *times == 1),
        "{what}: {executed:?}"
    );
    for end in ends {
        let is_executed = |sequence| executed.contains_key(sequence);
        assert!(end.answered.iter().all(is_executed), "{what}: {executed:?}");
        match step {
            // The handler has done its work, and nothing of that is seen: neither is it done again.
            Step::Handled | Step::Written | Step::PartlySent => {
                assert!(is_executed(&end.failed), "{what}: {executed:?}");
            }
            // An answer that was published counts, though its client was not rung for.
            Step::Published => assert!(!is_executed(&end.failed), "{what}: {executed:?}"),
            // Nobody has looked at it.
            Step::Copied | Step::Taken => assert!(!is_executed(&end.failed), "{what}"),
            _ => {}
        }
    }
}

/// Checks that the channel goes on with the server that comes after.
async fn assert_goes_on(channel: &Channel, directory: &FilePath, executions: &FilePath) {
    let server = ChildServer::start_counting(directory, NAME, executions);
    let mut client = BenchClient::new(channel.clone());
    client.unary(payload(0, 100)).await.unwrap();
    drop(server);
}

#[test]
fn between_payload_and_publish() {
    die(&Case::of(Step::Written, ALL_WAYS));
}

/// The client sleeps and is not rung for: it hears of the end.
#[test]
fn between_publish_and_wake() {
    die(&Case {
        parks: true,
        ..Case::of(Step::Published, &[SHM])
    });
}

/// A frame of which the kernel took only a part is none.
#[test]
fn within_a_frame() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ServerStream, Kind::Bidi],
        size: 1_000_000,
        times: [1, 2],
        ..Case::of(Step::PartlySent, &["socket+epoll://", PIPE])
    });
}

/// Behind its first call.
#[test]
fn going_to_sleep() {
    die(&Case {
        parks: true,
        ..Case::of(Step::Asleep, ALL_WAYS)
    });
}

/// The requests were copied, and count as not seen: there is none to send them to.
#[test]
fn between_copy_and_cursor() {
    die(&Case::of(Step::Copied, &[SHM]));
}

#[test]
fn between_cursor_and_handler() {
    die(&Case::of(Step::Taken, &[SHM]));
}

#[test]
fn within_a_release() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ClientStream, Kind::Bidi],
        size: 100_000,
        ..Case::of(Step::Releasing, &[SHM])
    });
}

/// The client waits for room in its ring, and is not rung for.
#[test]
fn between_release_and_notice() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::Unary],
        size: 10_000,
        callers: 32,
        parks: true,
        ..Case::of(Step::Released, &[SHM])
    });
}

#[test]
fn between_a_segment_and_its_note() {
    die(&Case {
        kinds: &[Kind::Unary, Kind::ServerStream, Kind::Bidi],
        size: 100_000,
        times: [1, 1],
        ..Case::of(Step::Growing, &[SHM])
    });
}

/// A call that the dying server has not taken is made at another server; one that it has taken is not.
#[test]
fn only_calls_that_were_not_taken_are_made_elsewhere() {
    const MOST: u64 = 1000;
    alone_for(Duration::from_secs(60), async {
        for (step, is_taken) in [
            (Step::Copied, false),
            (Step::Taken, true),
            (Step::Handled, true),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let executions = directory.path().join("executions");
            let case = Case::of(step, &[SHM]);
            let fragile = Fragile::start(&case, SHM, 10, directory.path(), &executions).await;
            let mut client = BenchClient::new(fragile.channel.clone());
            client.unary(payload(1, 100)).await.unwrap();
            let other = ChildServer::start_counting(directory.path(), NAME, &executions);
            let mut failed = Vec::new();
            let mut sequence = 1;
            while !fragile.death.is_finished() {
                sequence += 1;
                assert!(sequence < MOST, "{step:?} was not reached");
                if let Err(status) = client.unary(payload(sequence, 100)).await {
                    assert_eq!(status.code(), Code::Unavailable, "{step:?}: {status:?}");
                    failed.push(sequence);
                }
            }
            // The other server answers.
            client.unary(payload(sequence + 1, 100)).await.unwrap();
            let executed = executed(&executions);
            assert_eq!(failed.len(), usize::from(is_taken), "{step:?}: {failed:?}");
            for sequence in 1..=sequence + 1 {
                let times = executed.get(&sequence).copied().unwrap_or_default();
                let is_lost = failed.contains(&sequence) && step == Step::Taken;
                assert_eq!(times, usize::from(!is_lost), "{step:?}: {sequence}");
            }
            drop(other);
        }
    });
}

#[test]
fn between_the_handler_s_end_and_its_answer() {
    die(&Case::of(Step::Handled, ALL_WAYS));
}

/// A quick method blocks its driver; the watchdog has taken its role from it, and no other task drives yet.
#[test]
fn amid_a_hand_over() {
    const QUICK: u64 = 500;
    alone_for(Duration::from_secs(60), async {
        for way in ALL_WAYS {
            let directory = tempfile::tempdir().unwrap();
            let executions = directory.path().join("executions");
            let case = Case::of(Step::HandingOver, ALL_WAYS);
            let fragile = Fragile::start(&case, way, 1, directory.path(), &executions).await;
            let mut client = BenchClient::new(fragile.channel.clone());
            for sequence in 1..QUICK {
                client.unary(payload(sequence, 100)).await.unwrap();
            }
            let streams = [Kind::ServerStream, Kind::ClientStream, Kind::Bidi].map(|kind| {
                let channel = fragile.channel.clone();
                tokio::spawn(call_until_it_fails(channel, kind, 1, 100))
            });
            // Until the driver runs one that blocks in place.
            let mut sequence = QUICK;
            let status = loop {
                let request = match sequence % 100 {
                    0 => asking("block", payload(sequence, 100)),
                    _ => Request::new(payload(sequence, 100)),
                };
                match client.unary(request).await {
                    Ok(_) => sequence += 1,
                    Err(status) => break status,
                }
            };
            let at = Instant::now();
            assert_eq!(status.code(), Code::Unavailable, "{way}: {status:?}");
            for stream in streams {
                let end = stream.await.unwrap();
                assert_eq!(end.status.code(), Code::Unavailable, "{way}: {end:?}");
            }
            let death = tokio::task::spawn_blocking(move || fragile.death.join().unwrap());
            let took = at.saturating_duration_since(death.await.unwrap());
            assert!(took < WORST, "{way}: {took:?}");
            // The streams have the sequence 0.
            let executed = executed(&executions);
            let twice: Vec<_> = executed
                .iter()
                .filter(|(id, times)| **id > 0 && **times > 1)
                .collect();
            assert!(twice.is_empty(), "{way}: {twice:?}");
        }
    });
}
