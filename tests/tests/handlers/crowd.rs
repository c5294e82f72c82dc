//! Many handlers at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ringway_tests::{Way, payload};
use tokio::sync::Semaphore;

use crate::scripted::Scripted;
use crate::stage::{PingKind, Stage, WORKERS, ping};
use crate::stopwatch::{Stopwatch, best_of_several, soon, until};

const SLEEPERS: u64 = 200;
const SLEEP: Duration = Duration::from_millis(40);

/// More than the server has workers: they take turns, a worker each. One after the other they take 8 s.
pub(crate) fn two_hundred_handlers_sleep_their_threads(way: Way) {
    let stage = Stage::new(
        way,
        Scripted::unary(|request| async {
            std::thread::sleep(SLEEP);
            Ok(request.into_inner())
        }),
    );
    best_of_several(|| {
        stage.act(async {
            let client = stage.client().await;
            for _ in 0..100 {
                ping(PingKind::Unary, &mut client.clone()).await;
            }
            let watch = Stopwatch::start();
            let calls: Vec<_> = (1..=SLEEPERS)
                .map(|number| {
                    let mut client = client.clone();
                    tokio::spawn(async move { client.unary(payload(number, 64)).await })
                })
                .collect();
            let all = join_all(calls.into_iter().map(|call| soon("an answer", call)));
            for answer in all.await {
                answer.unwrap().unwrap();
            }
            let took = watch.elapsed();
            soon(
                "a ping afterwards",
                ping(PingKind::Unary, &mut client.clone()),
            )
            .await;
            let ideal = SLEEP * u32::try_from(SLEEPERS).unwrap() / u32::try_from(WORKERS).unwrap();
            if took < 3 * ideal {
                return Ok(());
            }
            Err(format!("all together took {took:?}, {ideal:?} at best"))
        })
    });
}

/// How many connections a test can have to one server.
fn connections(way: Way) -> u64 {
    match way {
        // One for the ping, of eight.
        Way::Pipe => 7,
        _ => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            // Two ends, some descriptors each, beside those of other tests.
            let descriptors = limit.current.unwrap_or(u64::MAX).saturating_sub(500);
            (descriptors / 16).clamp(10, 2000)
        }
    }
}

/// Each waits for an event that comes for all at once, and answers.
pub(crate) fn two_thousand_connections_have_handlers_that_wait(way: Way) {
    let event = Arc::new(Semaphore::new(0));
    let comes = Arc::clone(&event);
    let scripted = Scripted::unary(move |request| {
        let event = Arc::clone(&comes);
        async move {
            drop(event.acquire().await.unwrap());
            Ok(request.into_inner())
        }
    });
    let more = |builder: ringway::ServerBuilder| {
        // With few segments each, so that the mappings of a process are enough for all.
        let mut config = ringway::LocalConfig::default();
        config.memory.segment_limits.max_segments = 4;
        builder
            .local_config(config)
            .max_connections(4096)
            .max_connections_per_uid(4096)
    };
    let stage = Stage::with(way, WORKERS, scripted, more);
    let count = connections(way);
    stage.act(async {
        let mut calls = Vec::new();
        for number in 1..=count {
            let mut client = stage.client().await;
            calls.push(tokio::spawn(async move {
                client.unary(payload(number, 64)).await
            }));
        }
        until("all handlers wait", || stage.seen.inside() == count).await;
        let mut newcomer = stage.client().await;
        for _ in 0..100 {
            soon("a ping", ping(PingKind::Unary, &mut newcomer)).await;
        }
        event.add_permits(1);
        let all = join_all(calls.into_iter().map(|call| soon("an answer", call)));
        for (answer, number) in all.await.into_iter().zip(1..) {
            assert_eq!(answer.unwrap().unwrap().into_inner(), payload(number, 64));
        }
        assert_eq!(stage.seen.inside(), 0);
    });
}
