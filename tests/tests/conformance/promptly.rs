//! How long a handler goes on after its caller has gone. What is asserted is that it ends soon; the
//! median is printed, since other tests run meanwhile. On an idle machine: `cargo test -p ringway-tests
//! --test conformance -- stops_its_handler stops_the_calls --nocapture --test-threads 1`. The handler itself
//! notes when it ends: a test that looked for it without a pause would hold the core that it needs.

use std::time::{Duration, Instant};

use ringway_tests::{Running, Seen, Way, asking, eventually, payload};

use crate::context::{Chain, chain, three};

const DROPS: usize = 100;
/// Far more than it takes, far less than any timeout: nobody may find out by one.
const SOON: Duration = Duration::from_secs(1);

/// From `dropped` until no call was handled any more.
async fn until_none_inside(seen: &Seen, dropped: Instant) -> Duration {
    eventually("the handler is dropped", || seen.inside() == 0).await;
    let took = seen.last_left().unwrap().duration_since(dropped);
    assert!(took < SOON, "the handler goes on: {took:?}");
    took
}

fn report(what: &str, way: Way, mut took: Vec<Duration>) {
    assert_eq!(took.len(), DROPS);
    took.sort_unstable();
    let (median, last) = (took[DROPS / 2], took[DROPS - 1]);
    println!("{way:?}, {what}: median {median:.1?}, slowest {last:.1?}");
}

/// Drops unary calls to `called` that hang; how long their last handlers, which `seen` sees, went on.
async fn dropped_calls(called: &Running, seen: &Seen) -> Vec<Duration> {
    let mut client = called.client().await;
    let mut took = Vec::new();
    for _ in 0..DROPS {
        let mut call = Box::pin(client.unary(asking("hang", payload(1, 1))));
        tokio::select! {
            answered = &mut call => panic!("{answered:?}"),
            () = eventually("the handler runs", || seen.inside() == 1) => {}
        }
        let dropped = Instant::now();
        drop(call);
        took.push(until_none_inside(seen, dropped).await);
    }
    took
}

pub(crate) async fn a_dropped_call_stops_its_handler(way: Way) {
    let running = Running::start(way).await;
    let took = dropped_calls(&running, &running.seen).await;
    report("a dropped call", way, took);
}

pub(crate) async fn a_dropped_call_stops_the_calls_of_its_handler(way: Way) {
    let Chain { front, back, .. } = chain(way).await;
    let took = dropped_calls(&front, &back.seen).await;
    report("the call of a dropped call", way, took);
}

pub(crate) async fn a_dropped_stream_stops_its_handler(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut took = Vec::new();
    for _ in 0..DROPS {
        let response = client.server_stream(asking("hang", three())).await;
        let mut stream = response.unwrap().into_inner();
        for _ in 0..3 {
            stream.message().await.unwrap().unwrap();
        }
        assert_eq!(running.seen.inside(), 1);
        let dropped = Instant::now();
        drop(stream);
        took.push(until_none_inside(&running.seen, dropped).await);
    }
    report("a dropped stream", way, took);
}
