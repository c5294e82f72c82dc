//! Many calls at once, and none that stands in another's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use ringway_net::NetOptions;
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{Running, Way, asking, eventually, payload, payloads};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) async fn many_calls_in_flight(way: Way) {
    let running = Running::start(way).await;
    let client = running.client().await;
    let tasks = (0..8).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let calls = (0..32).map(|number| {
                    let mut client = client.clone();
                    let sent = payload(task << 20 | round << 10 | number, 16 << (number % 12));
                    async move {
                        let answer = client.unary(sent.clone()).await?;
                        assert_eq!(answer.into_inner(), sent);
                        Ok::<_, tonic::Status>(())
                    }
                });
                try_join_all(calls).await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(running.seen.entered(), 8 * 10 * 32);
}

/// More than the connection's credit, the arena or a socket takes at once, both ways: whoever lacks one
/// of them is told when it comes.
pub(crate) async fn many_large_calls_in_flight(way: Way) {
    let running = Running::start(way).await;
    let client = running.client().await;
    let tasks = (0..64).map(|task| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for round in 0..3 {
                let sent = payload(task << 20 | round, 1 << 20);
                let answer = client.unary(sent.clone()).await.unwrap();
                assert_eq!(answer.into_inner(), sent);
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
}

/// Whoever looks at the ring by itself has its next message as soon as it was sent: it must not keep the
/// worker from those that it woke.
pub(crate) async fn exchanges_in_lockstep_take_turns(way: Way) {
    // Fewer than a task may take in one turn of tokio's budget: 128.
    const MESSAGES: u64 = 100;
    const LANES: usize = 64;
    let running = Running::start(way).await;
    let client = running.client().await;
    let talking = Arc::new(AtomicU64::new(0));
    let done: Arc<[AtomicU64]> = (0..LANES).map(|_| AtomicU64::new(0)).collect();
    let lanes = (0..LANES).map(|lane| {
        let (mut client, done) = (client.clone(), Arc::clone(&done));
        let talking = Arc::clone(&talking);
        tokio::spawn(async move {
            let (sender, receiver) = mpsc::channel(4);
            let replies = client.bidi(ReceiverStream::new(receiver)).await.unwrap();
            let mut replies = replies.into_inner();
            for sequence in 0.. {
                let sent = payload(sequence, 64);
                sender.send(sent.clone()).await.unwrap();
                assert_eq!(replies.message().await.unwrap(), Some(sent));
                talking.fetch_add(u64::from(sequence == 0), Ordering::Relaxed);
                // Counted once all do: whoever starts them may be held up for longer than a few take.
                if talking.load(Ordering::Relaxed) == LANES as u64
                    && done[lane].fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES
                {
                    break;
                }
            }
            let begun = done
                .iter()
                .filter(|done| done.load(Ordering::Relaxed) > MESSAGES / 10);
            begun.count()
        })
    });
    let begun = join_all(lanes).await.into_iter().map(Result::unwrap);
    let when_the_first_ended = begun.min().unwrap();
    assert!(when_the_first_ended >= 8, "{when_the_first_ended}");
}

/// The handlers wait for each other: a caller that waited before it had sent all would wait for ever.
pub(crate) async fn eight_calls_are_sent_before_the_first_is_waited_for(way: Way) {
    let running = Running::start(way).await;
    let client = running.client().await;
    for _ in 0..20 {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] =
            std::array::from_fn(|_| client.clone());
        let meet = || asking("meet", payload(1, 64));
        let met = tokio::try_join!(
            a.unary(meet()),
            b.unary(meet()),
            c.unary(meet()),
            d.unary(meet()),
            e.unary(meet()),
            f.unary(meet()),
            g.unary(meet()),
            h.unary(meet()),
        );
        met.unwrap();
    }
}

/// Whoever looks for one answer of several finds the others' too. Each is taken in the end, also by one whose
/// turn in this poll of the task was over: `join!` begins with another call each time.
pub(crate) async fn answers_found_for_the_calls_beside_are_taken(way: Way) {
    let running = Running::start(way).await;
    let client = running.client().await;
    for round in 0..2_000 {
        let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| client.clone());
        let sent = [64, 1, 20_000, 256].map(|len| payload(round, len));
        let [to_a, to_b, to_c, to_d] = sent.clone();
        let answers =
            async { tokio::try_join!(a.unary(to_a), b.unary(to_b), c.unary(to_c), d.unary(to_d)) };
        // Of each round, since a machine that is busy may take long for all of them.
        let answers = tokio::time::timeout(Duration::from_secs(20), answers).await;
        let (a, b, c, d) = answers.expect("an answer was never taken").unwrap();
        assert_eq!([a, b, c, d].map(tonic::Response::into_inner), sent);
    }
}

pub(crate) async fn a_slow_reader_stalls_its_own_stream_only(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let count = 10_000;
    let request = StreamRequest {
        count,
        size_bytes: 4096,
    };
    let mut stalled = client.server_stream(request).await.unwrap().into_inner();
    // Longer than it takes to fill every window.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for sequence in 0..50 {
        let sent = payload(sequence, 10_000);
        assert_eq!(client.unary(sent.clone()).await.unwrap().into_inner(), sent);
    }
    let other = StreamRequest {
        count: 1000,
        size_bytes: 4096,
    };
    let other = client.server_stream(other).await.unwrap().into_inner();
    assert_eq!(other.collect::<Vec<_>>().await.len(), 1000);
    assert_eq!(
        running.seen.inside(),
        1,
        "the stalled stream was read by nobody"
    );
    for sequence in 0..count {
        let payload = stalled.message().await.unwrap().unwrap();
        assert_eq!(payload.sequence, sequence);
    }
    assert_eq!(stalled.message().await.unwrap(), None);
}

/// A thousand streams that nobody reads take no credit from the calls beside them, nor much memory.
pub(crate) async fn a_thousand_unread_streams_stall_themselves_only(way: Way) {
    let running = Running::start(way).await;
    // HTTP/2 has no shares: there the connection's window has to be as large as all of its streams'.
    let net = NetOptions {
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 72 << 20,
        ..NetOptions::default()
    };
    let channel = running.endpoint().net_options(net).connect().await;
    let mut client = BenchClient::new(channel.unwrap());
    let stream = |count| StreamRequest {
        count,
        size_bytes: 4096,
    };
    let mut unread = Vec::new();
    for _ in 0..1000 {
        unread.push(client.server_stream(stream(100_000)).await.unwrap());
    }
    let mut produced = 0;
    eventually("all have stalled", || {
        let before = std::mem::replace(&mut produced, running.seen.produced());
        before == produced && produced > 1000
    })
    .await;
    for size in [1, 10_000, 1 << 20] {
        let sent = payload(1, size);
        assert_eq!(client.unary(sent.clone()).await.unwrap().into_inner(), sent);
    }
    let read = client
        .server_stream(stream(2000))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(read.collect::<Vec<_>>().await.len(), 2000);
    client.client_stream(payloads(2000, 4096)).await.unwrap();
    // What the streams made and could not send stays with them: one batch of messages for each.
    let held = (running.seen.produced() - 2000) * 4096;
    assert!(held < 200 << 20, "{held} bytes are held");
    // Read at last, one goes on.
    let stalled = unread.swap_remove(500).into_inner();
    assert_eq!(stalled.take(1000).collect::<Vec<_>>().await.len(), 1000);
}

pub(crate) async fn a_slow_handler_stalls_its_own_upload_only(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut uploader = client.clone();
    let endless = tokio_stream::iter(0..).map(|sequence| payload(sequence, 4096));
    let upload = tokio::spawn(async move { uploader.client_stream(asking("hang", endless)).await });
    eventually("the handler hangs", || running.seen.inside() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for sequence in 0..50 {
        let sent = payload(sequence, 10_000);
        assert_eq!(client.unary(sent.clone()).await.unwrap().into_inner(), sent);
    }
    client.client_stream(payloads(1000, 4096)).await.unwrap();
    upload.abort();
    eventually("the handler is dropped", || running.seen.inside() == 0).await;
}

pub(crate) async fn calls_in_flight_finish_while_the_server_stops(way: Way) {
    let running = Running::start(way).await;
    let client = running.client().await;
    let calls: Vec<_> = (0..7)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(asking("meet", payload(number, 64))).await })
        })
        .collect();
    let seen = std::sync::Arc::clone(&running.seen);
    eventually("seven wait for the eighth", || seen.inside() == 7).await;
    let stopping = tokio::spawn(running.stop());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!stopping.is_finished());
    seen.meeting.wait().await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    stopping.await.unwrap();
}
