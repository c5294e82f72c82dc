//! Metrics: what a collector and Prometheus get to see of calls and connections, on each path.
//!
//! A process has one meter, so the tests of this file share it; each path is one test's alone, or else the
//! methods that it calls are.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prost::Message;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_proto::bench_tonic::bench_server::BenchServer as PlainServer;
use ringway_telemetry::{Builder, Telemetry};
use ringway_tests::{
    Collector, CollectorManner, Log, Running, Way, eventually, free_address,
    in_a_process_of_its_own_with, plain, raw, within,
};
use tokio_stream::StreamExt;
use tonic::{Code, Request};

static COLLECTOR: LazyLock<Collector> = LazyLock::new(|| Collector::start(CollectorManner::Keeps));
static TELEMETRY: LazyLock<Telemetry> = LazyLock::new(|| {
    Builder::new()
        .service_name("tests")
        .endpoint(COLLECTOR.endpoint())
        .prometheus("127.0.0.1:0")
        .without_logs()
        .init()
        .unwrap()
});

type Attribute<'a> = (&'a str, &'a str);

const SERVICE: Attribute<'_> = ("rpc.service", "ringway.bench.v1.Bench");

fn payload(sequence: u64) -> Payload {
    let data = vec![1; 1000].into();
    Payload { sequence, data }
}

/// What the collector was told last of `metric` where it has these attributes.
fn last(metric: &str, attributes: &[Attribute<'_>]) -> Option<u64> {
    assert!(TELEMETRY.flush());
    COLLECTOR.metric(metric, attributes)
}

/// Waits until the collector was told that `metric` has come to `value`: no less, and no more.
async fn told(metric: &str, attributes: &[Attribute<'_>], value: u64) {
    eventually(metric, || {
        let last = last(metric, attributes);
        let is_more = last.is_some_and(|last| last > value);
        assert!(!is_more, "{metric} {attributes:?}: {last:?}");
        last == Some(value)
    })
    .await;
}

fn failing(payload: Payload) -> Request<Payload> {
    let mut request = Request::new(payload);
    let metadata = request.metadata_mut();
    metadata.insert("x-do", "fail".parse().unwrap());
    request
}

/// Messages that a method's client sent and received, and their bytes.
struct Carried {
    method: &'static str,
    calls: u64,
    sent: [u64; 2],
    received: [u64; 2],
}

fn len(messages: &[&Payload]) -> u64 {
    messages.iter().map(|one| one.encoded_len() as u64).sum()
}

/// Makes calls of each kind, one of which fails; what they carry.
macro_rules! calls {
    ($client:expr, $stubs:path) => {{
        use $stubs as stubs;
        let mut client = $client;
        let convert = |Payload { sequence, data }| stubs::Payload { sequence, data };
        for sequence in 0..3 {
            client.unary(convert(payload(sequence))).await.unwrap();
        }
        let request = failing(Payload::default()).map(convert);
        client.unary(request).await.unwrap_err();
        let (count, size_bytes) = (40, 50);
        let asked = stubs::StreamRequest { count, size_bytes };
        let mut answers = client.server_stream(asked).await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(answer) = answers.next().await {
            bytes += answer.unwrap().encoded_len() as u64;
        }
        let asked = StreamRequest { count, size_bytes }.encoded_len() as u64;
        let requests = tokio_stream::iter((0..5).map(payload).map(convert));
        let summary = client.client_stream(requests).await.unwrap().into_inner();
        let payloads: Vec<_> = (0..5).map(payload).collect();
        let payloads: Vec<_> = payloads.iter().collect();
        let three = len(&payloads[..3]);
        [
            Carried {
                method: "Unary",
                calls: 4,
                sent: [4, three],
                received: [3, three],
            },
            Carried {
                method: "ServerStream",
                calls: 1,
                sent: [1, asked],
                received: [40, bytes],
            },
            Carried {
                method: "ClientStream",
                calls: 1,
                sent: [5, len(&payloads)],
                received: [1, summary.encoded_len() as u64],
            },
        ]
    }};
}

/// Both ends of `carried` were counted, with `of` as attributes of both.
async fn is_counted(carried: &Carried, of: &[Attribute<'_>]) {
    let call = [of, &[SERVICE, ("rpc.method", carried.method)]].concat();
    for metric in ["rpc.client.duration", "rpc.server.duration"] {
        let call = [&call[..], &[("rpc.system", "grpc")]].concat();
        told(metric, &call, carried.calls).await;
    }
    let (client, server) = (("ringway.role", "client"), ("ringway.role", "server"));
    let (out, into) = (
        ("network.io.direction", "transmit"),
        ("network.io.direction", "receive"),
    );
    for (end, [messages, bytes]) in [
        ([client, out], carried.sent),
        ([server, into], carried.sent),
        ([client, into], carried.received),
        ([server, out], carried.received),
    ] {
        let end = [&call[..], &end].concat();
        told("ringway.call.messages", &end, messages).await;
        told("ringway.call.io", &end, bytes).await;
    }
}

async fn calls_are_measured(way: Way, transport: &str) {
    within(async {
        let _telemetry = &*TELEMETRY;
        let running = Running::start(way).await;
        let client = running.client().await;
        let carried = calls!(client.clone(), ringway_proto::bench);
        let path = ("ringway.path", way.path().name());
        let of = [path, ("network.transport", transport)];
        for carried in &carried {
            is_counted(carried, &of).await;
        }
        for role in ["client", "server"] {
            let failed = [&of[..], &[("ringway.role", role), ("rpc.method", "Unary")]].concat();
            told("ringway.call.errors", &failed, 1).await;
        }
        for (code, count) in [("0", 3), ("9", 1)] {
            let ended = [("rpc.method", "Unary"), ("rpc.grpc.status_code", code)];
            let ended = [&of[..], &ended].concat();
            told("rpc.client.duration", &ended, count).await;
            told("rpc.server.duration", &ended, count).await;
        }
        if !way.path().is_local() {
            return running.stop().await;
        }
        let server = running.called().split_once("://");
        let server = server.map_or(String::new(), |(_, name)| name.to_owned());
        let client_end = [
            path,
            ("ringway.role", "client"),
            ("ringway.server", &server),
        ];
        let connections = || last("ringway.connection.count", &client_end);
        eventually("the connection counts", || connections() == Some(1)).await;
        drop(client);
        running.stop().await;
        eventually("it does no more", || connections() == Some(0)).await;
        connections_are_measured(&client_end, &carried).await;
    })
    .await;
}

/// What local connections have counted of calls is there after their end, too.
async fn connections_are_measured(end: &[Attribute<'_>], carried: &[Carried]) {
    let sum = |of: fn(&Carried) -> u64| carried.iter().map(of).sum::<u64>();
    let with = |name, value| [end, &[(name, value)]].concat();
    told("ringway.connection.calls", end, sum(|it| it.calls)).await;
    told("ringway.connection.active_calls", end, 0).await;
    for (direction, count) in [
        ("transmit", sum(|it| it.sent[0])),
        ("receive", sum(|it| it.received[0])),
    ] {
        let messages = with("network.io.direction", direction);
        told("ringway.connection.messages", &messages, count).await;
        let bytes = COLLECTOR.metric("ringway.connection.io", &messages);
        assert!(bytes > Some(1000), "{direction}: {bytes:?}");
    }
    for (metric, name, value) in [
        ("ringway.connection.looks", "ringway.look", "paid"),
        ("ringway.connection.looks", "ringway.look", "unpaid"),
        ("ringway.connection.waits", "ringway.lack", "room"),
        ("ringway.connection.waits", "ringway.lack", "credit"),
        ("ringway.connection.waits", "ringway.lack", "memory"),
    ] {
        let there = COLLECTOR.metric(metric, &with(name, value));
        assert!(there.is_some(), "{metric} {name}={value}");
    }
    for metric in [
        "ringway.connection.sleeps",
        "ringway.connection.doorbells",
        "ringway.ring.usage",
        "ringway.ring.limit",
        "ringway.arena.usage",
        "ringway.arena.limit",
    ] {
        assert!(COLLECTOR.metric(metric, end).is_some(), "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_shared_memory_are_measured() {
    calls_are_measured(Way::Shm, "shm").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_a_socket_are_measured() {
    calls_are_measured(Way::Socket, "unix").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_pipes_are_measured() {
    calls_are_measured(Way::Pipe, "pipe").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_the_network_are_measured() {
    calls_are_measured(Way::GrpcTcp, "tcp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_plain_tonic_stubs_are_measured() {
    within(async {
        let _telemetry = &*TELEMETRY;
        for (way, transport) in [(Way::Inproc, "inproc"), (Way::GrpcUnix, "unix")] {
            let service = PlainServer::new(plain::Handler::default());
            let running = Running::with(way, |builder| builder.add_service(service)).await;
            let client = PlainClient::new(running.channel().await);
            let path = ("ringway.path", way.path().name());
            for carried in &calls!(client, ringway_proto::bench_tonic) {
                is_counted(carried, &[path, ("network.transport", transport)]).await;
            }
            running.stop().await;
        }
    })
    .await;
}

/// Clients may make up any number of names: a server's metrics must not grow with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_that_a_server_does_not_have_are_told_as_one() {
    const COUNT: u64 = 5;
    within(async {
        let _telemetry = &*TELEMETRY;
        for way in [Way::Shm, Way::GrpcTcp] {
            let running = Running::start(way).await;
            let channel = running.channel().await;
            for number in 0..COUNT {
                let path = format!("/{}/MadeUp{number}", SERVICE.1);
                let answer = raw::send(&channel, raw::to(&path), raw::framed(0, b"")).await;
                assert_eq!(answer.code(), Code::Unimplemented);
            }
            let path = ("ringway.path", way.path().name());
            let other = [path, ("rpc.method", "_OTHER")];
            told("rpc.server.duration", &other, COUNT).await;
            running.stop().await;
        }
        for number in 0..COUNT {
            let made_up = format!("MadeUp{number}");
            for metric in ["rpc.server.duration", "ringway.call.errors"] {
                let server = [("rpc.method", &*made_up), ("ringway.role", "server")];
                let of = if metric.starts_with("rpc") {
                    &server[..1]
                } else {
                    &server
                };
                assert_eq!(COLLECTOR.metric(metric, of), None, "{metric}");
            }
        }
    })
    .await;
}

/// The page as Prometheus reads it.
fn page() -> String {
    let mut socket = TcpStream::connect(TELEMETRY.prometheus_address().unwrap()).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    page
}

/// The value of the one series of `page` that is called `name` and has these labels.
fn value_on(page: &str, name: &str, labels: &[String]) -> Option<f64> {
    let fits = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    let lines: Vec<_> = page.lines().filter(fits).collect();
    assert!(lines.len() < 2, "{name} {labels:?}: {lines:?}");
    lines.first()?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_the_same() {
    within(async {
        let _telemetry = &*TELEMETRY;
        let running = Running::start(Way::Shm).await;
        let server = running.called().split_once("://").unwrap().1;
        let requests = tokio_stream::iter((0..7).map(payload));
        let mut client = running.client().await;
        let mut answers = client.bidi(requests).await.unwrap().into_inner();
        while answers.next().await.transpose().unwrap().is_some() {}

        let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
        let at_server = label("ringway_role", "server");
        let out = label("network_io_direction", "transmit");
        let call = [
            label("rpc_service", SERVICE.1),
            label("rpc_method", "Bidi"),
            label("ringway_path", "shm"),
        ];
        let ended = [&call[..], &[label("rpc_grpc_status_code", "0")]].concat();
        let answered = [&call[..], &[at_server.clone(), out.clone()]].concat();
        let connection = [at_server, label("ringway_server", server)];
        let sent = [&connection[..], &[out]].concat();
        let expected = [
            ("rpc_client_duration_milliseconds_count", &ended[..], 1.0),
            ("rpc_server_duration_milliseconds_count", &ended, 1.0),
            ("ringway_call_messages_total", &answered, 7.0),
            ("ringway_connection_calls_total", &connection, 1.0),
            ("ringway_connection_messages_total", &sent, 7.0),
            ("ringway_connection_count", &connection, 1.0),
        ];
        let mut last = String::new();
        eventually("the page has it all", || {
            last = tokio::task::block_in_place(page);
            let mut expected = expected.iter();
            expected.all(|(name, labels, value)| value_on(&last, name, labels) == Some(*value))
        })
        .await;
        let (head, _) = last.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        let bytes = value_on(&last, "ringway_call_io_bytes_total", &answered).unwrap();
        assert!(bytes > 7000.0, "{bytes}");
        let moves = [label("ringway_server", server)];
        assert_eq!(
            value_on(&last, "ringway_channel_moves_total", &moves),
            Some(0.0)
        );
        running.stop().await;
    })
    .await;
}

/// What becomes of calls and of what is measured while the collector does `during`, or is not there, and
/// did `before`; afterwards it keeps what it is sent.
fn outage(before: Option<CollectorManner>, during: Option<CollectorManner>) {
    let log = Log::of_process();
    let collector = before.or(during).map(Collector::start);
    let absent = || format!("http://{}", free_address());
    let telemetry = Builder::new()
        .endpoint(collector.as_ref().map_or_else(absent, Collector::endpoint))
        .metric_interval(Duration::from_millis(10))
        .without_logs()
        .init()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(within(async {
        if let (Some(collector), Some(_)) = (&collector, before) {
            eventually("the collector has something", || {
                collector.metric("ringway.channel.moves", &[]).is_some() || telemetry.flush()
            })
            .await;
            assert_eq!(telemetry.lost_readings(), 0);
        }
        if let (Some(collector), Some(during)) = (&collector, during) {
            collector.change(during);
        }
        let running = Running::start(Way::Shm).await;
        let mut client = running.client().await;
        let (mut calls, mut slowest) = (0, Duration::ZERO);
        while telemetry.lost_readings() < 3 {
            let sent = Instant::now();
            client.unary(Payload::default()).await.unwrap();
            slowest = slowest.max(sent.elapsed());
            calls += 1;
        }
        // Generous: the machine may be busy. A call that waits for the export takes longer.
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        assert_eq!(log.count("does not get our metrics"), 1, "{}", log.text());
        if let Some(collector) = &collector {
            collector.change(CollectorManner::Keeps);
            eventually("what was counted meanwhile comes, too", || {
                telemetry.flush();
                collector.metric("rpc.client.duration", &[SERVICE]) == Some(calls)
            })
            .await;
            assert_eq!(log.count("the export works again: metrics"), 1);
        }
        running.stop().await;
    }));
    let began = Instant::now();
    assert_eq!(telemetry.shutdown(), collector.is_some());
    assert!(began.elapsed() < Duration::from_secs(4));
}

/// Has `outage` run in a process of its own: there is one meter and one log.
fn alone(name: &str, before: Option<CollectorManner>, during: Option<CollectorManner>) {
    // A collector that hangs is given up after this time, in milliseconds: longer than a busy host
    // keeps one from answering, and than a call may take.
    let environment = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1200")];
    if in_a_process_of_its_own_with(name, &environment) {
        outage(before, during);
    }
}

#[test]
fn without_a_collector_calls_go_on() {
    alone("without_a_collector_calls_go_on", None, None);
}

#[test]
fn a_collector_that_refuses_holds_nobody_up() {
    let refuses = Some(CollectorManner::Refuses);
    alone("a_collector_that_refuses_holds_nobody_up", None, refuses);
}

#[test]
fn a_collector_that_hangs_holds_nobody_up() {
    let hangs = Some(CollectorManner::Hangs);
    alone("a_collector_that_hangs_holds_nobody_up", None, hangs);
}

#[test]
fn a_collector_that_is_lost_later_holds_nobody_up() {
    let (keeps, refuses) = (CollectorManner::Keeps, CollectorManner::Refuses);
    let name = "a_collector_that_is_lost_later_holds_nobody_up";
    alone(name, Some(keeps), Some(refuses));
}
