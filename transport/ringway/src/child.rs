//! A server that is a child process: what a plugin is to its host.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use ringway_local::LocalConfig;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::pipe::WayByPipe;

/// A child process that serves its parent over two pipes, as plugins do.
///
/// The child calls [`Server::serve_pipe`](crate::Server::serve_pipe). The pipes are
/// descriptors of their own, so the child may use its standard streams as it likes: `println!`
/// goes where `command` says, by default where the parent's own goes.
///
/// - When the child ends, however it does, calls in flight end `UNAVAILABLE` at once, with its
///   exit status in the message. It is not started again.
/// - When this is dropped, the child is killed; [`stop`](Self::stop) lets it end by itself.
/// - When the parent ends, however it does, the child's `serve_pipe` returns.
///
/// Neither end asks for the other's uid: a parent chose the program, and a child its life.
///
/// ```no_run
/// use std::process::Command;
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let child = ringway::Child::spawn(Command::new("/usr/libexec/greeter")).await?;
/// // let mut client = GreeterClient::new(child.channel());
/// let status = child.stop(std::time::Duration::from_secs(5)).await?;
/// # drop(status); Ok(()) }
/// ```
#[derive(Debug)]
pub struct Child {
    process: ringway_local::Child,
    endpoint: Endpoint,
    channel: Channel,
}

impl Child {
    /// Starts `command`, and waits until it serves. Within a tokio runtime, whose tasks look after
    /// the child from then on.
    ///
    /// # Errors
    /// [`Error::Local`]: the program can't be started, went before it served, or is none that
    /// serves over pipes.
    pub async fn spawn(command: Command) -> Result<Self, Error> {
        Self::spawn_with(command, &LocalConfig::default()).await
    }

    /// The same, with settings; the time for the handshake is what the child may take to start.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub async fn spawn_with(command: Command, config: &LocalConfig) -> Result<Self, Error> {
        let process = ringway_local::Child::spawn(command, config).await?;
        let pipe = WayByPipe::connected(Arc::clone(process.connection()));
        let endpoint = Endpoint::over(pipe);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            endpoint,
            process,
        })
    }

    /// A channel to it, for any number of clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What it is as a server, for channels with settings of their own: retries, say. All of them
    /// share the pipes.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Its process id; good as long as it has not ended.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its standard input, where the command made a pipe of that; once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.process.take_stdin()
    }

    /// Its standard output, where the command made a pipe of that; once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.process.take_stdout()
    }

    /// Its standard error, where the command made a pipe of that; once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.process.take_stderr()
    }

    /// Kills it (SIGKILL), without waiting for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits until it has ended, for whatever reason.
    ///
    /// # Errors
    /// Its exit status can't be had.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Hangs up, upon which its `serve_pipe` returns, and kills it if it has not ended after
    /// `patience`. Calls in flight end `UNAVAILABLE`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn stop(self, patience: Duration) -> io::Result<ExitStatus> {
        self.process.stop(patience).await
    }
}
