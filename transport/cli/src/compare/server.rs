//! The server side of each path, and the process that holds it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path as FsPath, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, TcpIncoming};

use super::error::{Cause, Error};
use super::handler::Handler;
use super::options::Path;
use super::part;
use super::stubs::{ours, plain};
use super::switch::{Switch, TraceOptions};
use super::work::HandlerWork;

/// What one stream may have under way: above the largest default payload.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// What one connection may have under way.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What one HTTP/2 frame may carry. tonic's default of 16 KiB makes a unary call of 64 KiB take
/// 1.6 times as long, one of 1 MiB three times; more than this gains nothing.
pub(crate) const FRAME_BYTES: u32 = 2 << 20;

/// Beyond it, calls still open at the end are cut off.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// No limit of the stubs stands in the way of large messages.
macro_rules! unlimited {
    ($stubs:expr) => {
        $stubs
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    };
}
pub(crate) use unlimited;

/// The options of the hidden `bench-server`.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    /// The path to serve
    #[arg(long)]
    pub(crate) path: Path,
    /// A directory for sockets
    #[arg(long)]
    pub(crate) scratch: PathBuf,
    /// What its handlers do
    #[command(flatten)]
    pub(crate) handler: HandlerWork,
    /// How calls are traced when the parent says so
    #[command(flatten)]
    pub(crate) trace: Option<TraceOptions>,
}

/// The process `bench-server`: serves one path until its standard input ends, or the parent that
/// it serves over pipes hangs up.
#[tokio::main]
pub(crate) async fn run(options: ServerOptions) -> Result<(), Error> {
    let ServerOptions {
        path,
        scratch,
        handler,
        trace,
    } = options;
    let handler = Handler(handler);
    let switch = trace.map(|trace| Switch::install(&format!("server, {path}"), &trace));
    let switch = switch.transpose()?;
    if path == Path::Pipe {
        if switch.is_some() {
            // Who hangs up is noticed below.
            drop(part::attend(switch));
        }
        let served = bench(ringway::Server::builder(), path, handler)
            .serve_pipe()
            .await;
        return served.map_err(|error| Error::Serve {
            path,
            source: error.into(),
        });
    }
    let over = part::attend(switch);
    let serving = Serving::start(path, &scratch, handler).await?;
    part::announce(&part::Ready {
        address: serving.address.clone(),
    });
    // An error means that the attending thread is gone, which is an end as well.
    let _ = over.await;
    serving.stop().await
}

/// A server that runs in this process.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Where a client connects to.
    pub(crate) address: String,
    path: Path,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Cause>>,
}

impl Serving {
    /// Serves `handler` on `path` under an address of its own; sockets go to `scratch`.
    pub(crate) async fn start(
        path: Path,
        scratch: &FsPath,
        handler: Handler,
    ) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let started = match path {
            Path::GrpcUnix => grpc_unix(scratch, handler, stopped),
            Path::GrpcTcp => grpc_tcp(handler, stopped).await,
            Path::Shm
            | Path::Socket
            | Path::SocketEpoll
            | Path::Pipe
            | Path::Inproc
            | Path::ShmTonic
            | Path::ShmBlocking => ringway(path, scratch, handler, stopped).await,
        };
        let (address, task) = started.map_err(|source| Error::Serve { path, source })?;
        Ok(Serving {
            address,
            path,
            stop,
            task,
        })
    }

    /// Lets open calls end, for a while, and stops.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        // The server may have ended by itself; its task says why.
        let _ = self.stop.send(());
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.task).await;
        let ended = ended
            .unwrap_or(Ok(Ok(())))
            .unwrap_or_else(|panic| Err(panic.into()));
        let path = self.path;
        ended.map_err(|source| Error::Serve { path, source })
    }
}

type Started = Result<(String, JoinHandle<Result<(), Cause>>), Cause>;

fn grpc_unix(
    scratch: &FsPath,
    handler: Handler,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Started {
    let file = scratch.join("grpc.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&file)?);
    let serve = tonic_router(handler).serve_with_incoming_shutdown(incoming, stopped);
    let task = tokio::spawn(async { serve.await.map_err(Cause::from) });
    Ok((format!("unix://{}", file.display()), task))
}

async fn grpc_tcp(handler: Handler, stopped: impl Future<Output = ()> + Send + 'static) -> Started {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serve = tonic_router(handler).serve_with_incoming_shutdown(incoming, stopped);
    let task = tokio::spawn(async { serve.await.map_err(Cause::from) });
    Ok((address, task))
}

/// Ringway as a user gets it; only the directory is the comparison's own.
async fn ringway(
    path: Path,
    scratch: &FsPath,
    handler: Handler,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Started {
    let scheme = match path {
        Path::ShmTonic | Path::ShmBlocking => "shm".to_owned(),
        // The client says which engine both sides use.
        Path::SocketEpoll => "socket+epoll".to_owned(),
        other => other.to_string(),
    };
    let name = format!("bench-{path}-{}:1", std::process::id());
    let builder = ringway::Server::builder().name(&name).directory(scratch);
    let server = bench(builder, path, handler).bind().await?;
    let serve = server.serve_with_shutdown(stopped);
    let task = tokio::spawn(async { serve.await.map_err(Cause::from) });
    Ok((format!("{scheme}://{name}"), task))
}

/// Adds the service that is timed.
pub(crate) fn bench(
    builder: ringway::ServerBuilder,
    path: Path,
    handler: Handler,
) -> ringway::ServerBuilder {
    match path {
        Path::ShmTonic => builder.add_service(unlimited!(plain::BenchServer::new(handler))),
        _ => builder.add_service(unlimited!(ours::BenchServer::new(handler))),
    }
}

/// Plain tonic at its best: wide windows, large frames, no limit in the way of large messages.
fn tonic_router(handler: Handler) -> Router {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(unlimited!(plain::BenchServer::new(handler)))
}
