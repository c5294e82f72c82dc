//! Blocking clients: what every path does for a thread without a runtime.
//!
//! The servers run within the test, on a runtime that its thread does not enter.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringway::blocking::block_on;
use ringway::{Channel, Endpoint, Path};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_blocking_client::BenchBlockingClient;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{ChildServer, Running, Way, asking, payload, rich_status, serve_as_child};
use tokio::runtime::Runtime;
use tonic::{Code, Request, Status};

type Client = BenchBlockingClient<Channel>;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// A server on a runtime of its own.
struct Served {
    running: Running,
    _runtime: Runtime,
}

impl Served {
    fn start(way: Way) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        Self {
            running: runtime.block_on(Running::start(way)),
            _runtime: runtime,
        }
    }

    fn channel(&self) -> Channel {
        self.running.endpoint().connect_blocking().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.channel())
    }

    fn inside(&self) -> u64 {
        self.running.seen.inside()
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "never came true: {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

fn assert_rich(status: &Status) {
    let expected = rich_status();
    assert_eq!(status.code(), expected.code(), "{status:?}");
    assert_eq!(status.message(), expected.message());
    assert_eq!(status.details(), expected.details());
}

fn unary_of_every_size(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    for size in [0, 64, 8 << 10, 100_000, 3 << 20] {
        for sequence in 1..10 {
            let sent = payload(sequence, size);
            let response = client.unary(sent.clone()).unwrap();
            assert_eq!(Path::of(&response), Some(way.path()));
            assert_eq!(response.into_inner(), sent);
        }
    }
}

fn server_streams(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    for (count, size_bytes) in [(0, 8), (1, 0), (3000, 64), (50, 100_000)] {
        let responses = client.server_stream(StreamRequest { count, size_bytes });
        let sequences = responses.unwrap().into_inner().map(|reply| {
            let reply = reply.unwrap();
            assert_eq!(reply.data, vec![7; size_bytes as usize]);
            reply.sequence
        });
        assert!(sequences.eq(0..count));
    }
}

fn client_streams(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    for (count, size) in [(0, 8), (1, 0), (3000, 64), (50, 100_000)] {
        let requests = (0..count).map(|sequence| payload(sequence, size));
        let summary = client.client_stream(requests).unwrap().into_inner();
        assert_eq!(summary.messages, count);
        assert_eq!(summary.bytes, count * size as u64);
    }
    let mut request = Request::new(vec![payload(1, 1); 3]);
    request
        .metadata_mut()
        .insert("x-echo", "here".parse().unwrap());
    let response = client.client_stream(request).unwrap();
    assert_eq!(response.metadata().get("x-echo").unwrap(), "here");
    assert_eq!(response.into_inner().messages, 3);
}

fn bidi(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    let requests = (0..3000).map(|sequence| payload(sequence, 512));
    let replies = client.bidi(requests.clone()).unwrap().into_inner();
    assert!(replies.map(Result::unwrap).eq(requests));
    // In lockstep: each request waits for the response to the one before.
    let (sender, receiver) = mpsc::channel();
    let mut replies = client.bidi(receiver).unwrap().into_inner();
    for sequence in 0..100 {
        sender.send(payload(sequence, 64)).unwrap();
        assert_eq!(replies.message().unwrap(), Some(payload(sequence, 64)));
    }
    drop(sender);
    assert!(replies.next().is_none());
    assert!(replies.next().is_none());
}

fn statuses_come_whole(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    let failed = client.unary(asking("fail", payload(1, 1)));
    assert_rich(&failed.unwrap_err());
    let failed = client.client_stream(asking("fail", vec![payload(1, 1)]));
    assert_rich(&failed.unwrap_err());
    let request = StreamRequest {
        count: 100,
        size_bytes: 10,
    };
    let response = client.server_stream(asking("fail", request));
    let mut replies = response.unwrap().into_inner();
    assert_eq!(replies.by_ref().take_while(Result::is_ok).count(), 100);
    assert!(replies.next().is_none());
    let response = client.bidi(asking("fail", vec![payload(1, 1); 3]));
    let mut replies = response.unwrap().into_inner();
    assert_rich(&replies.nth(3).unwrap().unwrap_err());
    client.unary(payload(1, 1)).unwrap();
}

/// An upload that never ends by itself.
fn an_answer_ends_an_upload(way: Way) {
    let served = Served::start(way);
    let endless = (0..).map(|sequence| payload(sequence, 1000));
    let failed = served.client().client_stream(asking("fail", endless));
    assert_rich(&failed.unwrap_err());
    eventually("the handler has ended", || served.inside() == 0);
}

fn an_iterator_that_panics_gives_the_upload_up(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    let requests = (0..10).map(|sequence| {
        assert!(sequence < 5, "no more requests");
        payload(sequence, 10)
    });
    let uploading = thread::spawn(move || client.client_stream(requests));
    uploading.join().unwrap_err();
    eventually("the handler is dropped", || served.inside() == 0);
    assert_eq!(served.running.seen.committed(), 0);
    served.client().unary(payload(1, 1)).unwrap();
}

fn an_iterator_that_panics_gives_the_exchange_up(way: Way) {
    let served = Served::start(way);
    let requests = (0..10).map(|sequence| {
        assert!(sequence < 5, "no more requests");
        payload(sequence, 10)
    });
    let failed = match served.client().bidi(requests) {
        Ok(response) => response.into_inner().find_map(Result::err),
        Err(status) => Some(status),
    };
    assert_eq!(failed.unwrap().code(), Code::Cancelled);
    eventually("the handler is dropped", || served.inside() == 0);
    served.client().unary(payload(1, 1)).unwrap();
}

fn dropped_responses_cancel(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    let request = StreamRequest {
        count: u64::MAX,
        size_bytes: 100,
    };
    let mut replies = client.server_stream(request).unwrap().into_inner();
    replies.next().unwrap().unwrap();
    assert_eq!(served.inside(), 1);
    drop(replies);
    eventually("the source is dropped", || served.inside() == 0);
    client.unary(payload(1, 1)).unwrap();
}

fn deadlines(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    let mut request = asking("hang", payload(1, 1));
    request.set_timeout(Duration::from_millis(50));
    let start = Instant::now();
    let status = client.unary(request).unwrap_err();
    // tonic's own client says CANCELLED.
    let expected = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(expected[..2 - usize::from(way.path().is_local())].contains(&status.code()));
    assert!(start.elapsed() >= Duration::from_millis(50));
    eventually("the handler is dropped", || served.inside() == 0);
    client.unary(payload(1, 1)).unwrap();
}

fn many_threads(way: Way) {
    let served = Served::start(way);
    let client = served.client();
    let callers: Vec<_> = (0..8)
        .map(|caller: u64| {
            let mut client = client.clone();
            thread::spawn(move || {
                for call in 0..100 {
                    let sent = payload(caller << 32 | call, 100);
                    let wish = if call % 10 == 0 { "nap" } else { "" };
                    let response = client.unary(asking(wish, sent.clone()));
                    assert_eq!(response.unwrap().into_inner(), sent);
                }
            })
        })
        .collect();
    callers
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
}

/// The descriptors go from hand to hand: calls that sleep, with gaps of every length between them.
fn calls_with_gaps(way: Way) {
    let served = Served::start(way);
    let mut client = served.client();
    for gap_ms in [0, 0, 1, 4, 5, 6, 12, 0, 30, 5, 0] {
        for _ in 0..3 {
            client.unary(asking("nap", payload(1, 64))).unwrap();
            thread::sleep(Duration::from_millis(gap_ms));
        }
    }
}

/// Makes tests of functions that take a [`Way`].
macro_rules! suite {
    ($($name:ident, $way:expr;)*) => {$(
        mod $name {
            use super::*;
            suite!(@tests $way;
                unary_of_every_size, server_streams, client_streams, bidi, statuses_come_whole,
                an_answer_ends_an_upload, an_iterator_that_panics_gives_the_upload_up,
                an_iterator_that_panics_gives_the_exchange_up,
                dropped_responses_cancel, deadlines, many_threads, calls_with_gaps);
        }
    )*};
    (@tests $way:expr; $($test:ident),*) => {$(
        #[test]
        fn $test() {
            super::$test($way);
        }
    )*};
}

suite! {
    shm, Way::Shm;
    socket, Way::Socket;
    socket_epoll, Way::SocketEpoll;
    pipe, Way::Pipe;
    inproc, Way::Inproc;
    grpc_tcp, Way::GrpcTcp;
    grpc_unix, Way::GrpcUnix;
}

#[test]
fn settings_and_interceptors_are_those_of_the_asynchronous_client() {
    let served = Served::start(Way::Shm);
    let small = BenchClient::new(served.channel()).max_decoding_message_size(1000);
    let status = Client::from(small).unary(payload(1, 2000)).unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let refuse = |_: Request<()>| Err(Status::permission_denied("not you"));
    let mut refused = BenchBlockingClient::with_interceptor(served.channel(), refuse);
    let status = refused.unary(payload(1, 1)).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = refused.client_stream(vec![payload(1, 1)]).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

const NAME: &str = "blocking:50051";

fn child(directory: &std::path::Path) -> (ChildServer, Endpoint) {
    let server = ChildServer::start(directory, NAME);
    let endpoint = Endpoint::new(format!("shm://{NAME}")).unwrap();
    (server, endpoint.directory(directory))
}

#[test]
fn a_killed_server_ends_what_waits_at_once() {
    let mut shortest = Duration::MAX;
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let (server, endpoint) = child(directory.path());
        let mut client = Client::new(endpoint.connect_blocking().unwrap());
        client.unary(payload(1, 64)).unwrap();
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let mut client = client.clone();
                thread::spawn(move || (client.unary(asking("hang", payload(1, 1))), Instant::now()))
            })
            .collect();
        // Until each of them waits.
        thread::sleep(Duration::from_millis(50));
        server.kill();
        let killed_at = Instant::now();
        for caller in callers {
            let (ended, at) = caller.join().unwrap();
            assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
            shortest = shortest.min(at.saturating_duration_since(killed_at));
        }
    }
    assert!(shortest < Duration::from_millis(100), "{shortest:?}");
}

/// Nobody waits, so that only the thread of ours can see it.
#[test]
fn a_server_that_goes_meanwhile_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = child(directory.path());
    // Over whatever works: without a local server that is the network.
    let endpoint = Endpoint::new(NAME).unwrap().directory(directory.path());
    let channel = endpoint.connect_blocking().unwrap();
    let mut client = Client::new(channel.clone());
    client.unary(asking("nap", payload(1, 64))).unwrap();
    assert_eq!(channel.path(), Path::Shm);
    server.kill();
    eventually("it is noticed", || channel.path() == Path::Grpc);
    let (_server, _) = child(directory.path());
    let response = client.unary(payload(1, 64)).unwrap();
    assert_eq!(Path::of(&response), Some(Path::Shm));
}

#[test]
fn asynchronous_code_is_told_to_call_otherwise() {
    let served = Served::start(Way::Shm);
    let mut client = served.client();
    let runtime = Runtime::new().unwrap();
    let mut misused = client.clone();
    let panicked = runtime
        .block_on(async move { tokio::spawn(async move { misused.unary(payload(1, 1)) }).await });
    let panic = panicked.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    assert!(text.unwrap().contains("from within a runtime"));
    let answered = runtime.block_on(async move {
        tokio::task::spawn_blocking(move || client.unary(payload(1, 1))).await
    });
    answered.unwrap().unwrap();
}

#[test]
fn anything_asynchronous_can_be_waited_for() {
    let served = Served::start(Way::Shm);
    let mut client = BenchClient::new(served.channel());
    let mut other = client.clone();
    let both = async { tokio::join!(client.unary(payload(1, 1)), other.unary(payload(2, 2))) };
    let answered = block_on(both);
    assert_eq!(answered.0.unwrap().into_inner(), payload(1, 1));
    assert_eq!(answered.1.unwrap().into_inner(), payload(2, 2));
}
