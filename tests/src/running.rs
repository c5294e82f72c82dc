//! A server on one path, with whatever it takes to reach it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint, Path, Pipe, Server, ServerBuilder};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ours::Handler;
use crate::seen::Seen;

/// What hangs takes longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Channels that a test may have to one server over pipes.
const PIPES: usize = 8;

/// A path, and for gRPC what it runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Shared memory.
    Shm,
    /// A Unix stream socket, with the best engine that the kernel allows.
    Socket,
    /// A Unix stream socket without io_uring.
    SocketEpoll,
    /// Two pipes for each channel.
    Pipe,
    /// Queues within the process.
    Inproc,
    /// gRPC over TCP.
    GrpcTcp,
    /// gRPC over a Unix socket.
    GrpcUnix,
}

impl Way {
    /// What a response says.
    pub fn path(self) -> Path {
        match self {
            Self::Shm => Path::Shm,
            Self::Socket | Self::SocketEpoll => Path::Socket,
            Self::Pipe => Path::Pipe,
            Self::Inproc => Path::Inproc,
            Self::GrpcTcp | Self::GrpcUnix => Path::Grpc,
        }
    }
}

/// A server that runs within the test.
#[derive(Debug)]
pub struct Running {
    /// What the handler has seen, where it is the usual one.
    pub seen: Arc<Seen>,
    directory: tempfile::TempDir,
    address: String,
    /// The clients' ends of pipes that nobody uses yet.
    pipes: Mutex<Vec<Pipe>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ringway::Error>>,
}

impl Running {
    /// The usual handler, over stubs of ours.
    pub async fn start(way: Way) -> Self {
        let handler = Handler::default();
        let seen = Arc::clone(&handler.seen);
        let add = |builder: ServerBuilder| builder.add_service(BenchServer::new(handler));
        Self {
            seen,
            ..Self::with(way, add).await
        }
    }

    /// Whatever `configure` adds to the server.
    pub async fn with(way: Way, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = "tested:50051".to_owned()
            + &directory.path().to_string_lossy().replace(['/', '.'], "-");
        let builder = configure(Server::builder().directory(directory.path().join("ringway")));
        let mut pipes = Vec::new();
        let builder = match way {
            Way::Shm | Way::Socket | Way::SocketEpoll | Way::Inproc => builder.name(&name),
            Way::Pipe => (0..PIPES).fold(builder, |builder, _| {
                let (here, there) = Pipe::pair().unwrap();
                pipes.push(here);
                builder.pipe(there)
            }),
            Way::GrpcTcp => builder.listen("127.0.0.1:0").unwrap(),
            Way::GrpcUnix => {
                let socket = directory.path().join("grpc.sock");
                builder
                    .listen(&format!("unix:{}", socket.display()))
                    .unwrap()
            }
        };
        let server = builder.bind().await.unwrap();
        let address = match way {
            Way::Shm | Way::Socket | Way::Inproc => format!("{}://{name}", way.path()),
            Way::SocketEpoll => format!("socket+epoll://{name}"),
            Way::Pipe => String::new(),
            Way::GrpcTcp => format!("grpc://{}", server.addresses()[0]),
            Way::GrpcUnix => server.addresses()[0].to_string(),
        };
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve_with_shutdown(async {
            // A test that ends without stopping its server ends its runtime too.
            let _ = stopped.await;
        }));
        Self {
            seen: Arc::default(),
            directory,
            address,
            pipes: Mutex::new(pipes),
            stop,
            serving,
        }
    }

    /// How a client asks for it; each asks for a pipe of its own.
    pub fn endpoint(&self) -> Endpoint {
        let pipe = self.pipes.lock().unwrap().pop();
        let endpoint = pipe.map_or_else(|| Endpoint::new(&self.address).unwrap(), Endpoint::from);
        endpoint.directory(self.root())
    }

    /// The address that a client names, unless it is a pipe.
    pub fn called(&self) -> &str {
        &self.address
    }

    /// Where it listens, if it does so over TCP.
    pub fn address(&self) -> std::net::SocketAddr {
        let (_, address) = self.address.split_once("://").unwrap();
        address.parse().unwrap()
    }

    /// Where its socket is.
    pub fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("ringway")
    }

    /// A channel to it.
    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// A client of it.
    pub async fn client(&self) -> BenchClient<Channel> {
        BenchClient::new(self.channel().await)
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(self) {
        self.try_stop().await.unwrap();
    }

    /// The same; what its end came to.
    pub async fn try_stop(self) -> Result<(), ringway::Error> {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap()
    }
}

/// A client of the server at `address`.
pub async fn client_of(endpoint: &Endpoint) -> BenchClient<Channel> {
    BenchClient::new(endpoint.connect().await.unwrap())
}

/// Waits for what must come, but not for ever. Generous: the machine may be busy.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it hangs")
}

/// Runs `test` on a runtime of its own, and no other such test meanwhile: descriptors and mappings
/// are counted for the whole process, and a runtime has some.
pub fn alone<F: Future>(test: F) -> F::Output {
    alone_for(LIMIT, test)
}

/// Runs a test as [`alone`] does, that may take longer than others.
pub fn alone_for<F: Future>(limit: Duration, test: F) -> F::Output {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that matters to the next.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(limit, test).await;
        ended.expect("it hangs")
    })
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
