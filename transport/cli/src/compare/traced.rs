//! A call on each path, followed step by step: the waterfalls of `--report`.
//!
//! Made when everything is timed, by a client and a server that are processes of their own: no
//! figure pays for them. Calls over gRPC go through Ringway's network path, which is tonic: tonic by
//! itself, which is what is timed, tells of no steps.

use std::ffi::OsString;
use std::path::{Path as FsPath, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use ringway_report::{Collector, Trace};
use tonic::Request;

use super::connect::{Client, connect, over, with_caller};
use super::error::{Error, Failure};
use super::handler::Handler;
use super::options::{Kind, Options, Path};
use super::part::{Process, Ready, announce, attend};
use super::payload::{Maker, check};
use super::server::bench;
use super::stubs::Caller;
use super::work::HandlerWork;

/// Calls before those that count: both sides learn how long to look for the other.
const WARM_UP: u64 = 300;
/// The time for them.
const WARM_UP_LONGEST: Duration = Duration::from_secs(1);
/// Calls of which the median is shown.
const CALLS: u64 = 51;

/// The options of the hidden `bench-traced-server` and `bench-traced-client`.
#[derive(Debug, Args)]
pub(crate) struct TracedOptions {
    /// The path to serve or call
    #[arg(long)]
    path: Path,
    /// A directory for sockets
    #[arg(long)]
    scratch: PathBuf,
    /// What the server's handlers do
    #[command(flatten)]
    handler: HandlerWork,
    /// Where the server is
    #[arg(long, default_value = "")]
    address: String,
    /// What each call carries, in bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
}

/// The waterfalls that `options` ask for: one for each path between two processes that have
/// connections, if a page is wanted and unary calls are timed.
pub(crate) async fn calls(options: &Options, scratch: &FsPath) -> Result<Vec<Trace>, Error> {
    let size = options.sizes().into_iter().min();
    let unary = options.times_calls() && options.kinds().contains(&Kind::Unary);
    let Some(size) = size.filter(|_| unary && options.report.is_some()) else {
        return Ok(Vec::new());
    };
    let mut traces = Vec::new();
    for &path in options.paths.iter().filter(|path| can_be_traced(**path)) {
        traces.extend(typical(path, size, options.handler, scratch).await?);
    }
    Ok(traces)
}

fn can_be_traced(path: Path) -> bool {
    !matches!(path, Path::Inproc | Path::Pipe | Path::ShmBlocking)
}

async fn typical(
    path: Path,
    size: usize,
    work: HandlerWork,
    scratch: &FsPath,
) -> Result<Option<Trace>, Error> {
    let collector = Collector::start().await;
    let collector = collector.map_err(|source| Error::Process {
        what: "could not listen for traces".to_owned(),
        source,
    })?;
    let endpoint = collector.endpoint();
    let command = |part: &str, service: &str| -> Result<Command, Error> {
        let mut command = Process::command(part)?;
        let args = ["--path", &path.to_string(), "--scratch"].map(OsString::from);
        command
            .args(args)
            .arg(scratch)
            .args(work.arguments())
            .envs(environment(&endpoint, service));
        Ok(command)
    };
    let server = Process::start(
        format!("{path}: the traced server"),
        command("bench-traced-server", "server")?,
    );
    let mut client = command("bench-traced-client", "client")?;
    client.args(["--size", &size.to_string()]);
    // Both block until they have ended, and so have sent their spans, for which this runtime waits.
    in_a_thread(move || meet(server?, client)).await?;
    let traces = collector.take().traces().into_values().map(|spans| Trace {
        path: path.to_string(),
        spans,
    });
    let mut traces: Vec<Trace> = traces.filter(Trace::is_whole).collect();
    traces.sort_by_key(|trace| trace.spans.iter().map(|span| span.start_ns).min());
    let warm = traces
        .len()
        .saturating_sub(usize::try_from(CALLS).unwrap_or(0));
    Ok(Trace::typical(traces.split_off(warm)))
}

/// The client calls, then both end.
fn meet(mut server: Process, mut client: Command) -> Result<(), Error> {
    let what = || "the traced client".to_owned();
    let Ready { address } = server.hear()?;
    client.args(["--address", &address]).stdin(Stdio::null());
    let status = client.status().map_err(|source| Error::Process {
        what: what(),
        source,
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Answer {
            what: what(),
            line: status.to_string(),
        }),
    }
}

async fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// How a process sends its spans, whatever this one's own environment says of it.
fn environment(endpoint: &str, service: &str) -> [(&'static str, String); 8] {
    [
        ("OTEL_SDK_DISABLED", "false".to_owned()),
        ("OTEL_TRACES_EXPORTER", "otlp".to_owned()),
        ("OTEL_METRICS_EXPORTER", "none".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.to_owned()),
        ("OTEL_SERVICE_NAME", service.to_owned()),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ]
}

/// The process `bench-traced-server`: serves until its standard input ends.
#[tokio::main]
pub(crate) async fn serve(options: TracedOptions) -> Result<(), Error> {
    let path = options.path;
    let failed = |source| Error::Serve { path, source };
    let telemetry = ringway_telemetry::Builder::new().without_logs().init();
    let telemetry = telemetry.map_err(|error| failed(error.into()))?;
    let over = attend(None);
    let server = bind(path, &options.scratch, Handler(options.handler))
        .await
        .map_err(|error| failed(error.into()))?;
    announce(&Ready {
        address: address(path, &server),
    });
    let ended = server.serve_with_shutdown(async {
        // An error means that the attending thread is gone, which is an end as well.
        let _ = over.await;
    });
    let ended = ended.await.map_err(|error| failed(error.into()));
    tokio::task::block_in_place(|| drop(telemetry));
    ended
}

async fn bind(
    path: Path,
    scratch: &FsPath,
    handler: Handler,
) -> Result<ringway::BoundServer, ringway::Error> {
    let builder = ringway::Server::builder().directory(scratch);
    let builder = match path {
        Path::GrpcTcp => builder.listen("127.0.0.1:0")?,
        Path::GrpcUnix => {
            builder.listen(&format!("unix:{}", scratch.join("traced.sock").display()))?
        }
        _ => builder.name(name(path)),
    };
    bench(builder, path, handler).bind().await
}

fn name(path: Path) -> String {
    format!("traced-{path}:1")
}

fn address(path: Path, server: &ringway::BoundServer) -> String {
    let listens = server
        .addresses()
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    match path {
        Path::GrpcTcp => format!("grpc://{listens}"),
        Path::GrpcUnix => listens,
        Path::ShmTonic => format!("shm://{}", name(path)),
        Path::SocketEpoll => format!("socket+epoll://{}", name(path)),
        _ => format!("{path}://{}", name(path)),
    }
}

/// The process `bench-traced-client`: one call after the other.
#[tokio::main]
pub(crate) async fn call(options: TracedOptions) -> Result<(), Error> {
    let TracedOptions {
        path,
        scratch,
        handler,
        address,
        size,
    } = options;
    let failed = |source| Error::Connect {
        path,
        address: address.clone(),
        source,
    };
    let telemetry = ringway_telemetry::Builder::new().without_logs().init();
    let telemetry = telemetry.map_err(|error| failed(error.into()))?;
    let client = match path {
        Path::GrpcTcp | Path::GrpcUnix => {
            let endpoint =
                ringway::Endpoint::new(&address).map_err(|error| failed(error.into()))?;
            over(
                endpoint
                    .connect()
                    .await
                    .map_err(|error| failed(error.into()))?,
            )
        }
        _ => connect(path, &address, &scratch).await?,
    };
    let called = one_by_one(&client, size, calls_that_warm_up(handler))
        .await
        .map_err(|source| Error::Call {
            row: format!("{path}, traced"),
            source,
        });
    drop(client);
    tokio::task::block_in_place(|| drop(telemetry));
    called
}

async fn one_by_one(client: &Client, size: usize, warm_up: u64) -> Result<(), Failure> {
    with_caller!(client, caller => call_with(caller.clone(), size, warm_up).await)
}

/// Returns how many calls come first: fewer where handlers work, since each takes that long.
fn calls_that_warm_up(handler: HandlerWork) -> u64 {
    let each_us = handler.duration().as_micros().max(1);
    let affordable = WARM_UP_LONGEST.as_micros() / each_us;
    u64::try_from(affordable).map_or(WARM_UP, |calls| calls.min(WARM_UP))
}

/// In a task of its own, as calls are made that are timed.
async fn call_with<C: Caller>(mut caller: C, size: usize, warm_up: u64) -> Result<(), Failure> {
    let calls = tokio::spawn(async move {
        let mut maker = Maker::new(size);
        for sequence in 0..warm_up + CALLS {
            let reply = caller.unary(Request::new(maker.make(sequence))).await?;
            check(reply.get_ref(), sequence, size)?;
        }
        Ok(())
    });
    calls.await?
}
