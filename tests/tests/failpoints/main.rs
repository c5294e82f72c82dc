//! Processes that die exactly between two things that belong together: between payload and publish, between publish
//! and wake, between release and its notice, between a handler's end and its answer, amid a hand-over of the driver.
//!
//! Whichever step it was, the calls of the side that lives end within 100 ms of the death, none is executed twice,
//! and nothing is left behind.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used)]

mod clients;
mod servers;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway::Channel;
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_ring::failpoint::Step;
use ringway_tests::{payload, payloads, serve_as_child, serve_as_plugin};
use tonic::Status;

const NAME: &str = "fragile:50051";
/// What an ended call may take from its peer's death: one death of each step has to keep to it, since the machine may
/// have been busy at the others.
const LIMIT: Duration = Duration::from_millis(100);
/// What it may take on a busy machine.
const WORST: Duration = Duration::from_secs(3);
/// Messages of a stream.
const MESSAGES: u64 = 20;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_process() {
    serve_as_plugin().await;
}

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_process() {
    clients::call_until_killed().await;
}

/// The kinds of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    Bidi,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Unary,
        Self::ServerStream,
        Self::ClientStream,
        Self::Bidi,
    ];
}

/// Makes one call of a kind, with messages of `size` bytes, to its end.
async fn call(
    client: &mut BenchClient<Channel>,
    kind: Kind,
    sequence: u64,
    size: usize,
) -> Result<(), Status> {
    match kind {
        Kind::Unary => drop(client.unary(payload(sequence, size)).await?),
        Kind::ServerStream => {
            let request = StreamRequest {
                count: MESSAGES,
                size_bytes: u32::try_from(size).unwrap(),
            };
            let mut stream = client.server_stream(request).await?.into_inner();
            while stream.message().await?.is_some() {}
        }
        Kind::ClientStream => drop(client.client_stream(payloads(MESSAGES, size)).await?),
        Kind::Bidi => {
            let answer = client.bidi(payloads(MESSAGES, size)).await?;
            let mut stream = answer.into_inner();
            while stream.message().await?.is_some() {}
        }
    }
    Ok(())
}

/// How a caller came to its end.
#[derive(Debug)]
struct End {
    /// The calls that were answered.
    answered: Vec<u64>,
    /// The call that was not.
    failed: u64,
    status: Status,
    at: Instant,
}

/// Calls one after the other until one fails; unary calls have the sequences from `first` on.
async fn call_until_it_fails(channel: Channel, kind: Kind, first: u64, size: usize) -> End {
    let mut client = BenchClient::new(channel);
    let mut answered = Vec::new();
    let mut sequence = first;
    loop {
        match call(&mut client, kind, sequence, size).await {
            Ok(()) => answered.push(sequence),
            Err(status) => {
                return End {
                    answered,
                    failed: sequence,
                    status,
                    at: Instant::now(),
                };
            }
        }
        sequence += 1;
    }
}

/// How often each sequence was executed.
fn executed(executions: &Path) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    let text = std::fs::read_to_string(executions).unwrap_or_default();
    for line in text.lines() {
        *times.entry(line.parse().unwrap()).or_default() += 1;
    }
    times
}

/// As `RINGWAY_FAILPOINT` names it.
fn named(step: Step, times: u32) -> String {
    format!("{step:?}:{times}")
}
