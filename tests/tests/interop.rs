//! gRPC's interoperability tests: each case on each path, as a test `interop_<path>_<case>`.
//!
//! The server is a process of its own, this binary started again, but for `inproc`; it serves all
//! paths at once. A new path is one more line in [`PATHS`].
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringway::{Endpoint, Path, Server};
use ringway_interop::{Case, Client, Soak, add_to};
use ringway_tests::within;
use tokio::runtime::Runtime;

/// Set where this process is to be the server; names its directory.
const SERVE: &str = "RINGWAY_TEST_INTEROP_DIRECTORY";
const NAME: &str = "interop:10000";
const UNIX_SOCKET: &str = "grpc.sock";
const READY: &str = "serving at ";

/// A path's name in tests, what a response says of it, and how the server is addressed over it.
type TestedPath = (&'static str, Path, fn(&Servers) -> String);

const PATHS: &[TestedPath] = &[
    ("shm", Path::Shm, |_| format!("shm://{NAME}")),
    ("socket", Path::Socket, |_| format!("socket://{NAME}")),
    ("inproc", Path::Inproc, |_| format!("inproc://{NAME}")),
    ("grpc_tcp", Path::Grpc, |servers| {
        format!("grpc://{}", servers.tcp)
    }),
    ("grpc_unix", Path::Grpc, |servers| {
        format!(
            "unix:{}",
            servers.directory.path().join(UNIX_SOCKET).display()
        )
    }),
];

/// tonic's types don't tell whether a message came compressed; the client says so.
const NOT_OFFERED: [Case; 4] = [
    Case::ClientCompressedUnary,
    Case::ServerCompressedUnary,
    Case::ClientCompressedStreaming,
    Case::ServerCompressedStreaming,
];

/// What gRPC's own path lacks so far.
const NOT_OVER_GRPC: [Case; 2] = [Case::CustomMetadata, Case::TimeoutOnSleepingServer];

/// The server process, and the server of this one.
struct Servers {
    runtime: Runtime,
    directory: tempfile::TempDir,
    tcp: String,
    child: Child,
}

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(SERVE) {
        serve(directory.as_ref());
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let servers = match arguments.list {
        true => None,
        false => Some(Arc::new(Servers::start())),
    };
    let cases = Case::ALL.iter().filter(|case| !NOT_OFFERED.contains(case));
    let pairs = cases.flat_map(|case| PATHS.iter().map(|path| (*path, *case)));
    let pairs = pairs.filter(|(path, case)| path.1.is_local() || !NOT_OVER_GRPC.contains(case));
    let trials = pairs.map(|(path, case)| trial(path, case, servers.clone()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(path: TestedPath, case: Case, servers: Option<Arc<Servers>>) -> Trial {
    let (name, path, address) = path;
    Trial::test(format!("interop_{name}_{case}"), move || {
        let servers = servers.ok_or("nothing runs while tests are listed")?;
        servers.runtime.block_on(within(async {
            let endpoint = Endpoint::new(address(&servers))?.directory(servers.directory.path());
            let client = Client::connect(endpoint)
                .await?
                .expect_path(path)
                .soak(soak());
            client.run(case).await.map_err(Failed::from)
        }))
    })
}

/// More calls than the descriptions ask for, but no haste: the machine may be busy.
fn soak() -> Soak {
    Soak {
        iterations: 50,
        max_latency: Duration::from_secs(20),
        overall_timeout: Duration::from_secs(25),
        ..Soak::default()
    }
}

impl Servers {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(SERVE, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let tcp = lines.find_map(|line| line.unwrap().strip_prefix(READY).map(str::to_owned));
        let runtime = Runtime::new().unwrap();
        let inproc = Server::builder().name(NAME);
        let inproc = add_to(inproc.directory(directory.path().join("inproc")));
        let inproc = runtime.block_on(inproc.bind()).unwrap();
        runtime.spawn(inproc.serve());
        Self {
            runtime,
            directory,
            tcp: tcp.expect("the server process did not start"),
            child,
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It ends when its standard input does; whether that was in order is what its exit tells.
        drop(self.child.stdin.take());
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "the server process ended with {ended}");
    }
}

/// Serves all paths until standard input ends.
#[tokio::main]
async fn serve(directory: &std::path::Path) {
    let unix = directory.join(UNIX_SOCKET);
    let builder = Server::builder()
        .name(NAME)
        .directory(directory)
        .listen("127.0.0.1:0")
        .and_then(|builder| builder.listen(&format!("unix:{}", unix.display())));
    let server = add_to(builder.unwrap()).bind().await.unwrap();
    println!("{READY}{}", server.addresses()[0]);
    let (over, is_over) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        over.send(()).unwrap();
    });
    let shutdown = async { is_over.await.unwrap() };
    server.serve_with_shutdown(shutdown).await.unwrap();
}
