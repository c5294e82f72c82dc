//! The processes that are killed: this program, started again in another role.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use ringway::{Channel, Endpoint, Server};
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::EXECUTIONS_VARIABLE;
use ringway_tests::ours::Handler;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use crate::load::Load;

/// The name under which each server is reached, in its own directory.
pub(crate) const NAME: &str = "killed:50051";
const READY: &str = "ready";
/// Calls that have ended when a client is under load.
const CALLS_BEFORE_READY: u64 = 20;

// ---- what a child does

pub(crate) async fn serve(directory: PathBuf) {
    let server = Server::builder()
        .directory(directory)
        .name(NAME)
        .add_service(BenchServer::new(Handler::default()))
        .bind()
        .await
        .unwrap();
    println!("{READY}");
    server.serve().await.unwrap();
}

pub(crate) async fn serve_parent() {
    let server = Server::builder().add_service(BenchServer::new(Handler::default()));
    // However its parent ends.
    let _ = server.serve_pipe().await;
}

pub(crate) async fn call(directory: &Path, address: &str) {
    let endpoint = Endpoint::new(address.to_owned())
        .unwrap()
        .directory(directory);
    load_until_killed(&endpoint.connect().await.unwrap()).await;
}

pub(crate) async fn call_child() {
    let child = ringway::Child::spawn(plugin()).await.unwrap();
    load_until_killed(&child.channel()).await;
}

async fn load_until_killed(channel: &Channel) {
    let load = Load::start(channel, true);
    load.until(CALLS_BEFORE_READY).await;
    println!("{READY}");
    load.ends().await;
}

// ---- a child from outside

pub(crate) fn server(directory: &Path, journal: &Path) -> Command {
    let mut command = this_program();
    command
        .arg("server")
        .arg(directory)
        .env(EXECUTIONS_VARIABLE, journal);
    command
}

pub(crate) fn plugin() -> Command {
    let mut command = this_program();
    command.arg("plugin");
    command
}

pub(crate) fn client(directory: &Path, address: &str) -> Command {
    let mut command = this_program();
    command.arg("client").arg(directory).arg(address);
    command
}

pub(crate) fn host(journal: &Path) -> Command {
    let mut command = this_program();
    command.arg("host").env(EXECUTIONS_VARIABLE, journal);
    command
}

fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::null());
    command
}

/// A process that is ready to be killed; killed at the latest when this is dropped.
#[derive(Debug)]
pub(crate) struct Victim {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Victim {
    /// Starts it, and waits until it says that it is ready. Blocks the thread.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), READY, "the child did not start");
        Self { child, said }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and waits until it and all who inherited its output are gone. Blocks the thread.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        // The last words of the killed do not matter.
        let _ = self.said.read_to_end(&mut Vec::new());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a child that is yet to come, whatever process waits for the child.
#[derive(Debug)]
pub(crate) struct Dying(OwnedFd);

impl Dying {
    pub(crate) fn watch(pid: u32) -> Self {
        Self(pidfd_open(number(pid), PidfdFlags::empty()).unwrap())
    }

    /// Waits until the kernel has ended each of its threads; by then each has let go of its descriptors. Blocks
    /// the thread.
    pub(crate) fn gone(self) -> Instant {
        let mut end = [PollFd::new(&self.0, PollFlags::IN)];
        while matches!(poll(&mut end, None), Err(Errno::INTR)) {}
        Instant::now()
    }
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Sends a signal to a child; returns when it has stopped, if it was told to.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = number(pid);
    kill_process(pid, signal).unwrap();
    if signal == Signal::STOP {
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }
}
