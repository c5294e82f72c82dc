//! What a handler lives through is one and the same wherever it runs: in the pass that read its request,
//! or as a task of the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway_proto::bench::Summary;
use ringway_tests::{Seen, Way, payload, payloads};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::scripted::{PING, Scripted};
use crate::stage::{Client, PingKind, Stage, ping};
use crate::stopwatch::{Stopwatch, best_of_several, soon, until};

/// Calls that teach a server what a method is like.
const QUICK_CALLS: u64 = 1000;
const SLOW_CALLS: u64 = 20;
/// Longer than any handler that a pass has room for.
const SLOW: Duration = Duration::from_millis(10);
/// The sequence number of messages whose handlers block for [`SLOW`].
const DELAY: u64 = 999_999;
/// What a cancellation takes at most, in the median. Handlers end within a millisecond; this machine may
/// be busy.
const CANCELLED_WITHIN: Duration = Duration::from_millis(30);

/// What a method is known for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Quick,
    Slow,
}

const BOTH: [Known; 2] = [Known::Quick, Known::Slow];

/// Makes unary calls and uploads until the server knows what they are like.
async fn teach(client: &mut Client, known: Known) {
    match known {
        Known::Quick => {
            for _ in 0..QUICK_CALLS {
                ping(PingKind::Unary, client).await;
            }
            for _ in 0..QUICK_CALLS / 10 {
                client.client_stream(payloads(1, 1)).await.unwrap();
            }
        }
        Known::Slow => {
            for _ in 0..SLOW_CALLS {
                client.unary(payload(DELAY, 1)).await.unwrap();
                let delayed = tokio_stream::once(payload(DELAY, 1));
                client.client_stream(delayed).await.unwrap();
            }
        }
    }
}

/// Runs `script` for unary calls, unless they are delays; uploads are counted as committed once they end.
fn living<A>(
    script: impl Fn(Request<ringway_proto::bench::Payload>) -> A + Send + Sync + 'static,
) -> Scripted
where
    A: Future<Output = Result<ringway_proto::bench::Payload, Status>> + Send + 'static,
{
    let scripted = Scripted::unary(move |request| {
        let is_delay = request.get_ref().sequence == DELAY;
        let answer = (!is_delay).then(|| script(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => {
                    std::thread::sleep(SLOW);
                    Ok(payload(DELAY, 1))
                }
            }
        }
    });
    let seen = Arc::clone(&scripted.seen);
    scripted.upload(move |request| commit(request.into_inner(), Arc::clone(&seen)))
}

/// Commits an upload at its end. Its messages say how long the handler blocks after each.
async fn commit(
    mut requests: tonic::Streaming<ringway_proto::bench::Payload>,
    seen: Arc<Seen>,
) -> Result<Summary, Status> {
    let mut summary = Summary::default();
    while let Some(payload) = requests.message().await? {
        if payload.sequence == DELAY {
            std::thread::sleep(SLOW);
        }
        if payload.sequence == BLOCK {
            seen.note_received();
            std::thread::sleep(Duration::from_millis(100));
        }
        summary.messages += 1;
    }
    seen.note_committed();
    Ok(summary)
}

/// The sequence number of messages after which an upload's handler blocks, while it is killed.
const BLOCK: u64 = 888_888;

/// Time left, who calls, and a task that hears of the end.
pub(crate) fn a_context_is_there(way: Way) {
    let told = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&told);
    let stage = Stage::new(
        way,
        living(move |request| {
            let told = Arc::clone(&told);
            async move {
                let look = || ringway::Context::current();
                let (first, peer) = (look().time_left(), look().peer().is_some());
                tokio::time::sleep(Duration::from_millis(5)).await;
                let second = look().time_left();
                let falls = first.is_some_and(|first| second.is_some_and(|second| second < first));
                let context = look();
                tokio::spawn(async move {
                    assert!(
                        context
                            .until_over(std::future::pending::<()>())
                            .await
                            .is_none()
                    );
                    told.store(true, Ordering::SeqCst);
                });
                let words = format!("{falls} {peer}");
                Ok(ringway_proto::bench::Payload {
                    data: words.into(),
                    ..request.into_inner()
                })
            }
        }),
    );
    stage.act(async {
        let mut client = stage.client().await;
        for known in BOTH {
            heard.store(false, Ordering::SeqCst);
            teach(&mut client, known).await;
            let mut request = Request::new(payload(1, 1));
            request.set_timeout(Duration::from_secs(20));
            let answer = soon("the answer", client.unary(request)).await.unwrap();
            let words = String::from_utf8(answer.into_inner().data.to_vec()).unwrap();
            assert!(words.starts_with("true "), "{known:?}: {words}");
            // Nothing tells who is at the other end of a pipe.
            let has_peer = matches!(
                way,
                Way::Shm | Way::Socket | Way::SocketEpoll | Way::GrpcTcp
            );
            assert!(words == "true true" || !has_peer, "{known:?}: {words}");
            until("its task hears of the end", || heard.load(Ordering::SeqCst)).await;
        }
    });
}

pub(crate) fn a_panic_is_a_status(way: Way) {
    let stage = Stage::new(
        way,
        living(|request| async move {
            if request.get_ref().sequence == 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            panic!("asked to panic")
        }),
    );
    stage.act(async {
        let mut client = stage.client().await;
        for known in BOTH {
            teach(&mut client, known).await;
            for sequence in [1, 2] {
                let call = client.unary(payload(sequence, 1));
                let status = soon("the status", call).await.unwrap_err();
                assert_eq!(status.code(), Code::Internal, "{known:?}: {status:?}");
                assert!(!status.message().contains("asked to panic"), "{status:?}");
            }
            ping(PingKind::Unary, &mut client).await;
            assert_eq!(stage.seen.inside(), 0);
        }
    });
}

/// Drops twenty calls one after the other and returns how long their handlers went on, sorted.
async fn dropped(client: &Client, seen: &Seen, timeout: Option<Duration>) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 1..=20 {
        let mut client = client.clone();
        let mut request = Request::new(payload(number, 64));
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let call = tokio::spawn(async move { client.unary(request).await });
        until("the handler runs", || seen.inside() == 1).await;
        if timeout.is_none() {
            call.abort();
        }
        let ended = soon("the call's end", call).await;
        if timeout.is_some() {
            let status = ended.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        }
        let watch = Stopwatch::start();
        until("the handler is dropped", || seen.inside() == 0).await;
        took.push(watch.elapsed());
    }
    took.sort_unstable();
    took
}

fn end_of_handlers_that_wait(way: Way, timeout: Option<Duration>) {
    let stage = Stage::new(way, living(|_| std::future::pending()));
    let mut client = stage.act(stage.client());
    for known in BOTH {
        stage.act(teach(&mut client, known));
        best_of_several(|| {
            stage.act(async {
                let took = dropped(&client, &stage.seen, timeout).await;
                let median = took[took.len() / 2];
                if median < CANCELLED_WITHIN {
                    return Ok(());
                }
                Err(format!("{known:?}: {took:?}"))
            })
        });
    }
}

pub(crate) fn a_dropped_call_ends_a_handler_that_waits(way: Way) {
    end_of_handlers_that_wait(way, None);
}

/// Its caller's clock and the server's own both tell it.
pub(crate) fn a_deadline_ends_a_handler_that_waits(way: Way) {
    end_of_handlers_that_wait(way, Some(Duration::from_millis(50)));
}

pub(crate) fn a_killed_upload_is_never_committed(way: Way) {
    kill_uploads(way, PING + 1);
}

/// The handler's thread is inside its poll when the call is killed: the end that it finds afterwards is
/// not the upload's.
pub(crate) fn an_upload_killed_while_its_handler_blocks_is_never_committed(way: Way) {
    kill_uploads(way, BLOCK);
}

fn kill_uploads(way: Way, part: u64) {
    let stage = Stage::new(way, living(|request| async { Ok(request.into_inner()) }));
    stage.act(async {
        let mut client = stage.client().await;
        for known in BOTH {
            teach(&mut client, known).await;
            let seen = &stage.seen;
            let before = seen.committed();
            for round in 0..5 {
                let (sender, receiver) = mpsc::channel(4);
                let mut uploader = client.clone();
                let upload = tokio::spawn(async move {
                    uploader.client_stream(ReceiverStream::new(receiver)).await
                });
                let received = seen.received();
                sender.send(payload(part, 100)).await.unwrap();
                until("the handler runs", || seen.inside() == 1).await;
                if part == BLOCK {
                    until("the handler blocks", || seen.received() > received).await;
                } else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                upload.abort();
                assert!(upload.await.unwrap_err().is_cancelled());
                // The source outlives the call: its end, too, must not look like the upload's.
                drop(sender);
                until("the handler is dropped", || seen.inside() == 0).await;
                let committed = seen.committed() - before;
                assert_eq!(committed, 0, "{known:?}: committed in round {round}");
            }
            client.client_stream(payloads(3, 100)).await.unwrap();
            assert_eq!(seen.committed() - before, 1, "{known:?}");
        }
    });
}

/// Its answers arrive, whether its handlers wait or block.
pub(crate) fn a_server_that_stops_waits_for_its_handlers(way: Way) {
    for known in BOTH {
        let scripted = living(|request| async move {
            if request.get_ref().sequence.is_multiple_of(2) {
                std::thread::sleep(Duration::from_millis(150));
            } else {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            Ok(request.into_inner())
        });
        let stage = Stage::new(way, scripted);
        let calls = stage.act(async {
            let mut client = stage.client().await;
            teach(&mut client, known).await;
            let before = stage.seen.entered();
            let calls: Vec<_> = (1..=4)
                .map(|number| {
                    let mut client = client.clone();
                    tokio::spawn(async move { client.unary(payload(number, 64)).await })
                })
                .collect();
            until("all handlers run", || stage.seen.entered() == before + 4).await;
            calls
        });
        stage.stop_and(async {
            for call in calls {
                soon("an answer", call).await.unwrap().unwrap();
            }
        });
    }
}
