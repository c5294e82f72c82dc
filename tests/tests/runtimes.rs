//! Channels and runtimes: several that share one, one that ends, none at all, and clocks that are paused.
//!
//! A channel in a static is called by each test's own runtime; a library may be called from an executor of another
//! make. On every path each call ends, and most end well.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ringway::Channel;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::seen::MEETING_SIZE;
use ringway_tests::{Running, Way, asking, payload, payloads};
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Request, Status, Streaming};

type Client = BenchClient<Channel>;

/// A test that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);
/// What is due at once comes within this, however busy the machine is.
const SOON: Duration = Duration::from_secs(10);

/// Runs a test on a thread of its own, which may hang.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let running = thread::spawn(move || {
        test();
        // Nobody waits any more.
        let _ = done.send(());
    });
    match ended.recv_timeout(LONGEST) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().unwrap(),
    }
}

fn workers(count: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .unwrap()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server on a runtime of its own.
struct Served {
    running: Option<Running>,
    runtime: Runtime,
}

impl Served {
    fn start(way: Way) -> Self {
        let runtime = workers(2);
        let running = runtime.block_on(Running::start(way));
        Self {
            running: Some(running),
            runtime,
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// A client that connects with its first call.
    fn lazy(&self) -> Client {
        BenchClient::new(self.running().endpoint().connect_lazy())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.try_stop()).unwrap();
    }
}

/// Drives a future by parking its thread, with nothing of tokio around it.
fn by_parking<F: Future>(future: F) -> F::Output {
    struct Unparks(Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unparks(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A call of each kind.
async fn every_kind(client: Client) {
    try_every_kind(client).await.unwrap();
}

async fn try_every_kind(mut client: Client) -> Result<(), Status> {
    let answer = client.unary(payload(1, 100)).await?.into_inner();
    assert_eq!(answer, payload(1, 100));
    let large = client.unary(payload(2, 300_000)).await?.into_inner();
    assert_eq!(large, payload(2, 300_000));
    let request = StreamRequest {
        count: 20,
        size_bytes: 64,
    };
    let stream = client.server_stream(request).await?.into_inner();
    assert_eq!(counted(stream).await?, 20);
    let summary = client.client_stream(payloads(20, 64)).await?;
    assert_eq!(summary.into_inner().messages, 20);
    let stream = client.bidi(payloads(20, 64)).await?.into_inner();
    assert_eq!(counted(stream).await?, 20);
    Ok(())
}

async fn counted(mut stream: Streaming<Payload>) -> Result<u64, Status> {
    let mut received = 0;
    while stream.message().await?.is_some() {
        received += 1;
    }
    Ok(received)
}

fn hanging(timeout: Duration) -> Request<Payload> {
    let mut request = asking("hang", payload(1, 10));
    request.set_timeout(timeout);
    request
}

/// As tests do that keep a channel in a static: the first one connects, and its runtime ends.
fn runtimes_share_a_channel_in_turn(way: Way) {
    let server = Served::start(way);
    let client = server.lazy();
    for runtime in [one_thread(), workers(2), one_thread(), workers(1)] {
        runtime.block_on(every_kind(client.clone()));
    }
}

/// As tests do that run side by side. Over gRPC a connection ends with the runtime that has made it, and its calls
/// with it: `UNAVAILABLE`, which is worth another try.
fn runtimes_share_a_channel_at_once(way: Way) {
    let server = Served::start(way);
    let client = server.lazy();
    let worth_another_try = move |status: &Status| {
        let over_grpc = matches!(way, Way::GrpcTcp | Way::GrpcUnix);
        over_grpc && status.code() == Code::Unavailable
    };
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || {
                let runtime = match number % 2 {
                    0 => one_thread(),
                    _ => workers(2),
                };
                while let Err(status) = runtime.block_on(try_every_kind(client.clone())) {
                    assert!(worth_another_try(&status), "{status:?}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|each| each.join().unwrap());
}

/// The runtime that has connected ends while another one's calls wait for their answers.
fn a_call_outlives_the_runtime_that_connected(way: Way) {
    let server = Served::start(way);
    let client = server.lazy();
    let first = one_thread();
    first.block_on(every_kind(client.clone()));
    let other = workers(2);
    let calls = [(); MEETING_SIZE].map(|()| {
        let mut client = client.clone();
        other.spawn(async move { client.unary(asking("meet", payload(3, 30))).await })
    });
    // Some are on their way at least: they answer when all are there.
    thread::sleep(Duration::from_millis(30));
    drop(first);
    for call in calls {
        let answer = other.block_on(call).unwrap().unwrap().into_inner();
        assert_eq!(answer, payload(3, 30));
    }
    other.block_on(every_kind(client));
}

/// The same where no answer ever comes: the deadline does.
fn a_deadline_outlives_the_runtime_that_connected(way: Way) {
    let server = Served::start(way);
    let client = server.lazy();
    let first = workers(2);
    first.block_on(every_kind(client.clone()));
    let other = one_thread();
    let mut calling = client.clone();
    let call = other.spawn(async move { calling.unary(hanging(Duration::from_millis(300))).await });
    other.block_on(async { tokio::time::sleep(Duration::from_millis(30)).await });
    first.shutdown_background();
    let began = Instant::now();
    let status = other.block_on(call).unwrap().unwrap_err();
    // Over gRPC the connection ends with the runtime that has made it.
    let told = [
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
    ];
    let expected = match way {
        Way::GrpcTcp | Way::GrpcUnix => &told[..],
        _ => &told[..1],
    };
    assert!(expected.contains(&status.code()), "{status:?}");
    assert!(began.elapsed() < SOON);
    other.block_on(every_kind(client));
}

/// What a runtime polled for a call ends with it, and the handler learns of it.
fn a_request_stream_ends_with_its_runtime(way: Way) {
    let server = Served::start(way);
    let client = server.lazy();
    let runtime = one_thread();
    let mut calling = client.clone();
    runtime.spawn(async move {
        let never = async_stream::stream! {
            yield payload(1, 10);
            tokio::time::sleep(LONGEST).await;
        };
        calling.client_stream(never).await
    });
    runtime.block_on(every_kind(client.clone()));
    drop(runtime);
    one_thread().block_on(every_kind(client));
}

/// Warm, lazy, with a deadline, after the server was restarted.
fn any_executor_calls(way: Way) {
    let server = Served::start(way);
    by_parking(every_kind(server.lazy()));
    let connected = server.runtime.block_on(server.running().client());
    by_parking(every_kind(connected.clone()));
    by_parking(async {
        let channel = server.running().endpoint().connect().await.unwrap();
        every_kind(BenchClient::new(channel)).await;
    });
    let began = Instant::now();
    let late = |status: Status| assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    for mut client in [server.lazy(), connected] {
        late(by_parking(client.unary(hanging(Duration::from_millis(50)))).unwrap_err());
    }
    assert!(began.elapsed() < SOON);
}

/// The clock stands still until nothing else is to be done, and then leaps.
fn deadlines_go_by_a_paused_clock(way: Way) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let began = Instant::now();
    runtime.block_on(async {
        let running = Running::start(way).await;
        let mut client = running.client().await;
        let hour = Duration::from_secs(3600);
        let before = tokio::time::Instant::now();
        let status = client.unary(hanging(hour)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        let passed = before.elapsed();
        assert!(passed >= hour && passed < 2 * hour, "{passed:?}");
        // One that leaves time for it.
        let mut napping = asking("nap", payload(2, 10));
        napping.set_timeout(hour);
        let answer = client.unary(napping).await.unwrap().into_inner();
        assert_eq!(answer, payload(2, 10));
        tokio::time::advance(24 * hour).await;
        let mut patient = Request::new(payload(3, 10));
        patient.set_timeout(Duration::from_secs(5));
        assert_eq!(
            client.unary(patient).await.unwrap().into_inner(),
            payload(3, 10)
        );
        every_kind(client).await;
    });
    assert!(began.elapsed() < LONGEST / 2);
}

macro_rules! suite {
    ($($name:ident: $way:ident: $($test:ident)*;)*) => {$(
        mod $name {
            $(
                #[test]
                fn $test() {
                    super::watched(|| super::$test(ringway_tests::Way::$way));
                }
            )*
        }
    )*};
    (each $($name:ident: $way:ident)*) => {
        suite! {$($name: $way:
            runtimes_share_a_channel_in_turn
            runtimes_share_a_channel_at_once
            a_deadline_outlives_the_runtime_that_connected
            a_request_stream_ends_with_its_runtime
            any_executor_calls
            deadlines_go_by_a_paused_clock;
        )*}
    };
}

suite! { each
    shm: Shm
    socket: Socket
    socket_epoll: SocketEpoll
    pipe: Pipe
    inproc: Inproc
    grpc_tcp: GrpcTcp
    grpc_unix: GrpcUnix
}

/// What gRPC cannot do: its connection ends with the runtime that has made it.
mod local {
    use super::{Way, a_call_outlives_the_runtime_that_connected, watched};

    #[test]
    fn a_call_outlives_the_runtime_that_connected_on_every_path() {
        for way in [
            Way::Shm,
            Way::Socket,
            Way::SocketEpoll,
            Way::Pipe,
            Way::Inproc,
        ] {
            watched(move || a_call_outlives_the_runtime_that_connected(way));
        }
    }
}
