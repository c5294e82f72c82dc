//! gRPC's interoperability tests: each case on each path, as a test `interop_<path>_<case>`.
//!
//! The server is a process of its own, this binary started again, but for `inproc`; it serves all
//! paths at once. A new path is one more line in [`PATHS`].
#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringway::{Child, Endpoint, Path, Pipe, Server};
use ringway_interop::{Case, Client, Soak, add_to};
use ringway_tests::within;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdin;
use tokio::runtime::Runtime;

/// Set where this process is to be the server; names its directory.
const SERVE: &str = "RINGWAY_TEST_INTEROP_DIRECTORY";
const NAME: &str = "interop:10000";
const UNIX_SOCKET: &str = "grpc.sock";
const READY: &str = "serving at ";

/// A path's name in tests, what a response says of it, and how the server is reached over it.
type TestedPath = (
    &'static str,
    Path,
    fn(&Servers) -> Result<Endpoint, ringway::Error>,
);

const PATHS: &[TestedPath] = &[
    ("shm", Path::Shm, |_| Endpoint::new(format!("shm://{NAME}"))),
    ("socket", Path::Socket, |_| {
        Endpoint::new(format!("socket://{NAME}"))
    }),
    ("pipe", Path::Pipe, |servers| Ok(servers.child().endpoint())),
    ("inproc", Path::Inproc, |_| {
        Endpoint::new(format!("inproc://{NAME}"))
    }),
    ("grpc_tcp", Path::Grpc, |servers| {
        Endpoint::new(format!("grpc://{}", servers.tcp))
    }),
    ("grpc_unix", Path::Grpc, |servers| {
        let socket = servers.directory.path().join(UNIX_SOCKET);
        Endpoint::new(format!("unix:{}", socket.display()))
    }),
];

/// The server process, and the server of this one.
struct Servers {
    runtime: Runtime,
    directory: tempfile::TempDir,
    tcp: String,
    child: Option<(Child, ChildStdin)>,
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
    let pairs = Case::ALL
        .iter()
        .flat_map(|case| PATHS.iter().map(|path| (*path, *case)));
    let trials = pairs.map(|(path, case)| trial(path, case, servers.clone()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(path: TestedPath, case: Case, servers: Option<Arc<Servers>>) -> Trial {
    let (name, path, endpoint) = path;
    Trial::test(format!("interop_{name}_{case}"), move || {
        let servers = servers.ok_or("nothing runs while tests are listed")?;
        servers.runtime.block_on(within(async {
            let endpoint = endpoint(&servers)?.directory(servers.directory.path());
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
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let inproc = Server::builder().name(NAME);
        let inproc = add_to(inproc.directory(directory.path().join("inproc")));
        let inproc = runtime.block_on(inproc.bind()).unwrap();
        runtime.spawn(inproc.serve());
        let (child, tcp) = runtime.block_on(start_child(directory.path()));
        Self {
            runtime,
            directory,
            tcp,
            child: Some(child),
        }
    }

    fn child(&self) -> &Child {
        &self.child.as_ref().unwrap().0
    }
}

/// Starts the server process, and hears its TCP address from it.
async fn start_child(directory: &std::path::Path) -> ((Child, ChildStdin), String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(SERVE, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = Child::spawn(command).await.unwrap();
    let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let tcp = line.strip_prefix(READY).unwrap().to_owned();
    let stdin = child.take_stdin().unwrap();
    ((child, stdin), tcp)
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It ends when its standard input does; whether that was in order is what its exit tells.
        let (child, stdin) = self.child.take().unwrap();
        let ended = self.runtime.block_on(within(async {
            drop(stdin);
            child.wait().await.unwrap()
        }));
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
        .pipe(Pipe::from_parent().unwrap())
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
