//! Calls that a policy makes again (gRPC's proposal A6).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint, RetryPolicy, RetryThrottling};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, client_of, ours, payload, payloads};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

/// Fails as it is told before it does what the usual handler does.
#[derive(Debug, Clone, Default)]
struct Failing {
    usual: ours::Handler,
    failures: Arc<Mutex<VecDeque<Status>>>,
    /// What each attempt said of those before it.
    attempts: Arc<Mutex<Vec<Option<u32>>>>,
}

impl Failing {
    fn fail_next(&self, failures: impl IntoIterator<Item = Status>) {
        *self.failures.lock().unwrap() = failures.into_iter().collect();
    }

    /// What the attempts since the last time said.
    fn take_attempts(&self) -> Vec<Option<u32>> {
        std::mem::take(&mut self.attempts.lock().unwrap())
    }

    fn enter(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let previous = metadata.get("grpc-previous-rpc-attempts");
        let previous = previous.map(|value| value.to_str().unwrap().parse().unwrap());
        self.attempts.lock().unwrap().push(previous);
        self.failures
            .lock()
            .unwrap()
            .pop_front()
            .map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl Bench for Failing {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.enter(request.metadata())?;
        self.usual.unary(request).await
    }
    type ServerStreamStream = <ours::Handler as Bench>::ServerStreamStream;
    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        self.enter(request.metadata())?;
        self.usual.server_stream(request).await
    }
    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        self.enter(request.metadata())?;
        self.usual.client_stream(request).await
    }
    type BidiStream = <ours::Handler as Bench>::BidiStream;
    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        self.enter(request.metadata())?;
        self.usual.bidi(request).await
    }
}

async fn failing(
    way: Way,
    configure: impl FnOnce(Endpoint) -> Endpoint,
) -> (Running, Failing, BenchClient<Channel>) {
    let handler = Failing::default();
    let service = BenchServer::new(handler.clone());
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let client = client_of(&configure(running.endpoint())).await;
    (running, handler, client)
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        max_attempts: 3,
        initial_backoff: Duration::from_millis(2),
        ..RetryPolicy::default()
    }
}

fn unavailable(count: usize) -> impl Iterator<Item = Status> {
    (0..count).map(|_| Status::unavailable("for a test"))
}

pub(crate) async fn a_policy_makes_failed_calls_again(way: Way) {
    let (_running, handler, mut client) =
        failing(way, |endpoint| endpoint.retry_policy(policy())).await;
    let marked = [None, Some(1), Some(2)];

    handler.fail_next(unavailable(2));
    client.unary(payload(1, 10)).await.unwrap();
    assert_eq!(handler.take_attempts(), marked);

    handler.fail_next(unavailable(3));
    let status = client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "for a test")
    );
    assert_eq!(handler.take_attempts(), marked);

    handler.fail_next([Status::unavailable(""), Status::aborted("")]);
    let status = client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(handler.take_attempts(), marked[..2]);
}

pub(crate) async fn a_policy_makes_failed_streams_again(way: Way) {
    let (_running, handler, mut client) =
        failing(way, |endpoint| endpoint.retry_policy(policy())).await;
    let marked = [None, Some(1), Some(2)];

    handler.fail_next(unavailable(2));
    let request = StreamRequest {
        count: 3,
        size_bytes: 10,
    };
    let mut stream = client.server_stream(request).await.unwrap().into_inner();
    for sequence in 0..3 {
        assert_eq!(stream.message().await.unwrap().unwrap().sequence, sequence);
    }
    assert_eq!(handler.take_attempts(), marked);

    handler.fail_next(unavailable(2));
    let summary = client.client_stream(payloads(20, 1000)).await.unwrap();
    assert_eq!(summary.into_inner().messages, 20);
    assert_eq!(handler.take_attempts(), marked);

    handler.fail_next(unavailable(2));
    let mut stream = client.bidi(payloads(20, 1000)).await.unwrap().into_inner();
    for sequence in 0..20 {
        assert_eq!(stream.message().await.unwrap().unwrap().sequence, sequence);
    }
    assert_eq!(stream.message().await.unwrap(), None);
    assert_eq!(handler.take_attempts(), marked);
}

/// The policy of the endpoint that takes a call holds, and its throttle.
pub(crate) async fn the_policy_of_one_of_several_endpoints_holds(way: Way) {
    let (running, handler, _) = failing(way, |endpoint| endpoint).await;
    let endpoint = running.endpoint().retry_policy(policy());
    let mut client = BenchClient::new(Channel::balance_list([endpoint].into_iter()));
    handler.fail_next(unavailable(2));
    client.unary(payload(1, 10)).await.unwrap();
    assert_eq!(handler.take_attempts(), [None, Some(1), Some(2)]);
}

pub(crate) async fn without_a_policy_nothing_is_made_again(way: Way) {
    let other = |endpoint: Endpoint| {
        endpoint.retry_policy_for("ringway.bench.v1.Bench/ClientStream", policy())
    };
    let (_running, handler, mut client) = failing(way, other).await;
    handler.fail_next(unavailable(1));
    client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(handler.take_attempts(), [None]);
    handler.fail_next(unavailable(1));
    client.client_stream(payloads(3, 10)).await.unwrap();
    assert_eq!(handler.take_attempts(), [None, Some(1)]);
}

/// What is not kept can't be sent again.
pub(crate) async fn a_stream_too_long_to_keep_is_not_made_again(way: Way) {
    let keeps_little =
        |endpoint: Endpoint| endpoint.retry_policy(policy()).retry_buffer_bytes(10_000);
    let (_running, handler, mut client) = failing(way, keeps_little).await;
    handler.fail_next(unavailable(1));
    client.client_stream(payloads(5, 1000)).await.unwrap();
    assert_eq!(handler.take_attempts(), [None, Some(1)]);
    let summary = client.client_stream(payloads(100, 1000)).await.unwrap();
    assert_eq!(summary.into_inner().messages, 100);
    assert_eq!(handler.take_attempts(), [None]);
}

pub(crate) async fn the_server_says_when_to_come_back(way: Way) {
    let never_by_itself = |endpoint: Endpoint| {
        endpoint.retry_policy(RetryPolicy {
            initial_backoff: Duration::from_secs(1000),
            max_backoff: Duration::from_secs(1000),
            ..policy()
        })
    };
    let (_running, handler, mut client) = failing(way, never_by_itself).await;
    let pushed_back = |value: &'static str| {
        let mut status = Status::unavailable("");
        let value = value.parse().unwrap();
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value);
        status
    };
    handler.fail_next([pushed_back("30")]);
    let began = Instant::now();
    client.unary(payload(1, 10)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(handler.take_attempts(), [None, Some(1)]);

    handler.fail_next([pushed_back("-1")]);
    client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(handler.take_attempts(), [None]);

    // The time between attempts is the call's as well.
    handler.fail_next(unavailable(1));
    let mut request = Request::new(payload(1, 10));
    request.set_timeout(Duration::from_millis(40));
    let status = client.unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

pub(crate) async fn failures_throttle_retries(way: Way) {
    let throttled = |endpoint: Endpoint| {
        endpoint
            .retry_policy(policy())
            .retry_throttling(RetryThrottling {
                max_tokens: 4,
                token_ratio: 1.0,
            })
    };
    let (_running, handler, mut client) = failing(way, throttled).await;
    // The second failure leaves two of four tokens: too few for a third attempt.
    handler.fail_next(unavailable(10));
    client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(handler.take_attempts(), [None, Some(1)]);
    client.unary(payload(1, 10)).await.unwrap_err();
    assert_eq!(handler.take_attempts(), [None]);
    handler.fail_next([]);
    for _ in 0..3 {
        client.unary(payload(1, 10)).await.unwrap();
    }
    handler.take_attempts();
    handler.fail_next(unavailable(1));
    client.unary(payload(1, 10)).await.unwrap();
    assert_eq!(handler.take_attempts(), [None, Some(1)]);
}
