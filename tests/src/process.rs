//! A server in a process of its own: the test binary, started again.
//!
//! A test file that uses it has a test called `server_process` that calls [`serve_as_child`].

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use ringway::{Endpoint, HandlerPolicy, Server, ServerBuilder, UidPolicy};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench::{Payload, StreamRequest};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use tokio_stream::StreamExt;

use crate::filtered::{Refused, filtered, names_of, refuse_from_now_on, refused_in};
use crate::ours::Handler;
use crate::running::{Running, client_of};
use crate::seen::EXECUTIONS_VARIABLE;

const SERVER_PROCESS: [&str; 3] = ["--exact", "server_process", "--nocapture"];
const DIRECTORY: &str = "RINGWAY_TEST_DIRECTORY";
const NAME: &str = "RINGWAY_TEST_NAME";
const LISTEN: &str = "RINGWAY_TEST_LISTEN";
/// Names a child's wait policy.
pub const WAIT: &str = "RINGWAY_WAIT";
/// Names a step of the library at which a process dies.
pub const FAILPOINT: &str = "RINGWAY_FAILPOINT";
const READY: &str = "the server is ready";
/// System calls that are refused once the runtime runs.
const REFUSED_LATER: &str = "RINGWAY_TEST_REFUSED_LATER";
const PEERS: &str = "RINGWAY_TEST_PEERS";
const ANSWERED: &str = "the call came to: ";

/// Where a child's handlers run: in the driver's passes where its hand-over is what it dies at.
pub(crate) fn policy_of_child() -> HandlerPolicy {
    let failpoint = std::env::var(FAILPOINT).unwrap_or_default();
    if failpoint.starts_with("HandingOver") {
        HandlerPolicy::Inline
    } else {
        HandlerPolicy::default()
    }
}

/// Serves until killed or terminated, if this process was started for it; else returns at once.
pub async fn serve_as_child() {
    let handler = Handler::default();
    serve_as_child_with(|builder| builder.add_service(BenchServer::new(handler))).await;
}

/// Does the same with whatever `add` adds to the server.
pub async fn serve_as_child_with(add: impl FnOnce(ServerBuilder) -> ServerBuilder) {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    if let Ok(names) = std::env::var(REFUSED_LATER) {
        refuse_from_now_on(&refused_in(&names));
    }
    let mut builder = Server::builder()
        .directory(directory)
        .local_peers(peers_of_child());
    if let Ok(name) = std::env::var(NAME) {
        builder = builder.name(name);
    }
    if let Ok(address) = std::env::var(LISTEN) {
        builder = builder.listen(&address).unwrap();
    }
    builder = builder.handler_policy(policy_of_child());
    let server = add(builder).bind().await.unwrap();
    let terminated = ringway::terminated();
    println!("\n{READY}");
    server.serve_with_shutdown(terminated).await.unwrap();
}

/// A server process, killed when this is dropped.
#[derive(Debug)]
pub struct ChildServer {
    child: Child,
    /// Kept open: what it says at its end must not make it fail.
    _said: Lines<BufReader<ChildStdout>>,
}

impl ChildServer {
    /// A server that local clients find as `name` in `directory`.
    pub fn start(directory: &Path, name: &str) -> Self {
        Self::run(directory, |command| command.env(NAME, name))
    }

    /// The same, running in the directory `within`.
    pub fn start_within(within: &Path, directory: &Path, name: &str) -> Self {
        Self::run(directory, |command| {
            command.env(NAME, name).current_dir(within)
        })
    }

    /// Starts a server that has `variable` in its environment.
    pub fn start_with(directory: &Path, name: &str, (variable, value): (&str, &str)) -> Self {
        Self::run(directory, |command| {
            command.env(NAME, name).env(variable, value)
        })
    }

    /// The same, with a line in `executions` for each unary call that it executes.
    pub fn start_counting(directory: &Path, name: &str, executions: &Path) -> Self {
        Self::run(directory, |command| {
            command.env(NAME, name).env(EXECUTIONS_VARIABLE, executions)
        })
    }

    /// A server that dies at a step (`Published:3`: when it comes there for the third time), and notes what it
    /// executes; `parks` says that it never polls.
    pub fn start_dying(
        directory: &Path,
        name: &str,
        executions: &Path,
        failpoint: &str,
        parks: bool,
    ) -> Self {
        Self::run(directory, |command| {
            command
                .env(NAME, name)
                .env(EXECUTIONS_VARIABLE, executions)
                .env(FAILPOINT, failpoint);
            if parks {
                command.env(WAIT, "park");
            }
            command
        })
    }

    /// The same, but it listens on `address` for gRPC, and is found by no local client.
    pub fn start_listening(directory: &Path, address: &str, executions: &Path) -> Self {
        Self::run(directory, |command| {
            command
                .env(LISTEN, address)
                .env(EXECUTIONS_VARIABLE, executions)
        })
    }

    /// A server that runs as the user `uid` and lets in those of `peers`; for root alone.
    pub fn start_as(uid: u32, directory: &Path, name: &str, peers: &[u32]) -> Self {
        Self::run(directory, |command| {
            let peers: Vec<_> = peers.iter().map(u32::to_string).collect();
            command.env(NAME, name).env(PEERS, peers.join(",")).uid(uid)
        })
    }

    /// A server that the kernel refuses these system calls.
    ///
    /// A test file that uses it has a test called `filtered_process`, too.
    pub fn start_refused(directory: &Path, name: &str, refused: &[Refused]) -> Self {
        let mut command = filtered("/proc/self/exe", &SERVER_PROCESS, refused);
        command.env(NAME, name);
        Self::start_as_command(directory, command)
    }

    /// A server that the kernel refuses these system calls once its runtime runs.
    pub fn start_refused_later(directory: &Path, name: &str, refused: &[Refused]) -> Self {
        Self::run(directory, |command| {
            let refused = names_of(refused);
            command.env(NAME, name).env(REFUSED_LATER, refused)
        })
    }

    fn run(directory: &Path, configure: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = this_program();
        configure(command.args(SERVER_PROCESS));
        Self::start_as_command(directory, command)
    }

    fn start_as_command(directory: &Path, mut command: Command) -> Self {
        command
            .env(DIRECTORY, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.by_ref().any(|line| line.unwrap() == READY),
            "the server did not start"
        );
        Self {
            child,
            _said: lines,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// Sends it SIGTERM, and waits until it has ended by itself.
    pub async fn terminate(mut self) {
        self.signal(Signal::TERM);
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        let ended = ended.await.unwrap();
        assert!(ended.success(), "the server did not end in order: {ended}");
    }

    /// Waits until it has ended by itself; returns the signal that ended it.
    pub fn ended_by(mut self) -> Option<i32> {
        self.child.wait().unwrap().signal()
    }

    /// Sends it a signal; returns when it has stopped, if it was told to.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    fn kill_now(&mut self) {
        // It may be dead already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// The test binary, by a way that is open to users who can't enter its directory.
fn this_program() -> Command {
    Command::new("/proc/self/exe")
}

/// Whether this process may start others as other users; says so where not.
pub fn can_be_another_user() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can start a process of another user");
    }
    is_root
}

/// The users that a child lets in.
fn peers_of_child() -> UidPolicy {
    match std::env::var(PEERS) {
        Ok(uids) => UidPolicy::Only(uids.split(',').map(|uid| uid.parse().unwrap()).collect()),
        Err(_) => UidPolicy::default(),
    }
}

const CALLS: &str = "RINGWAY_TEST_CALLS";

/// Makes a call, if this process was started for it; else returns at once.
///
/// A test file that uses it has a test called `calling_process` that calls it.
pub async fn call_as_child() {
    let Ok(address) = std::env::var(CALLS) else {
        return;
    };
    let directory = std::env::var(DIRECTORY).unwrap();
    let endpoint = Endpoint::new(address).unwrap().directory(directory);
    let mut client = BenchClient::new(endpoint.connect_lazy());
    match client.unary(Payload::default()).await {
        Ok(response) => println!("\n{ANSWERED}{}", ringway::Path::of(&response).unwrap()),
        Err(status) => println!("\n{ANSWERED}{}", status.message()),
    }
}

/// Makes a call that hangs, if this process was started for it; else returns at once.
///
/// A test file that uses it has a test called `client_process` that calls it.
pub async fn hang_as_child() {
    let Ok(address) = std::env::var(CALLS) else {
        return;
    };
    let directory = std::env::var(DIRECTORY).unwrap();
    let endpoint = Endpoint::new(address).unwrap().directory(directory);
    let mut client = client_of(&endpoint).await;
    if std::env::var_os(STREAMS).is_some() {
        return stream_for_ever(client).await;
    }
    let mut request = tonic::Request::new(ringway_proto::bench::Payload::default());
    request
        .metadata_mut()
        .insert("x-do", "hang".parse().unwrap());
    // However it ends.
    let _ = client.unary(request).await;
}

/// The kinds of calls that a client in a process of its own makes.
const STREAMS: &str = "RINGWAY_TEST_STREAMS";

/// Has a stream of each kind open until the process is killed.
async fn stream_for_ever(mut client: BenchClient<ringway::Channel>) {
    let request = StreamRequest {
        count: u64::MAX,
        size_bytes: 1_000,
    };
    let mut read = client.server_stream(request).await.unwrap().into_inner();
    let unread = client.server_stream(request).await.unwrap();
    let endless = || tokio_stream::iter(0..).map(|sequence| crate::payload(sequence, 1_000));
    let mut upload = client.clone();
    tokio::spawn(async move { upload.client_stream(endless()).await });
    let exchange = client.bidi(endless()).await.unwrap();
    while read.message().await.unwrap().is_some() {}
    drop((unread, exchange));
}

/// A client in a process of its own, whose one call hangs; killed when this is dropped.
#[derive(Debug)]
pub struct ChildClient {
    child: Child,
}

impl ChildClient {
    /// What a call to `address` comes to that a process of the user `uid` makes: its path, or the
    /// error's text; for root alone.
    pub fn call_as(uid: u32, directory: &Path, address: &str) -> String {
        let mut command = this_program();
        command
            .args(["--exact", "calling_process", "--nocapture"])
            .env(CALLS, address)
            .env(DIRECTORY, directory)
            .uid(uid);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let answered = said.lines().find_map(|line| line.strip_prefix(ANSWERED));
        answered.expect("the client said nothing").to_owned()
    }

    /// Calls `running`.
    pub fn hang(running: &Running) -> Self {
        let command = Command::new(std::env::current_exe().unwrap());
        Self::start(running.called(), &running.root(), command)
    }

    /// Calls the server of this address in `directory`.
    pub fn hang_at(address: &str, directory: &Path) -> Self {
        Self::start(address, directory, this_program())
    }

    /// Has streams of all kinds open to `running`, that do not end.
    pub fn stream(running: &Running) -> Self {
        let mut command = this_program();
        command.env(STREAMS, "yes");
        Self::start(running.called(), &running.root(), command)
    }

    fn start(address: &str, directory: &Path, mut command: Command) -> Self {
        command
            .args(["--exact", "client_process"])
            .env(CALLS, address)
            .env(DIRECTORY, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        Self { child }
    }

    /// Sends it a signal; returns when it has stopped, if it was told to.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }
}

impl Drop for ChildClient {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn send_signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    if signal == Signal::STOP {
        // Its threads stop one by one.
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }
}

/// When a process dies; it may be waited for later.
pub fn death_of(pid: u32) -> JoinHandle<Instant> {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    std::thread::spawn(move || {
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        Instant::now()
    })
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    let own: Vec<PathBuf> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| !target.to_string_lossy().starts_with("/proc/"))
        .collect();
    own.len()
}

/// Mapped regions and segments of this process.
pub fn mapped_regions() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:ringway"))
        .count()
}
