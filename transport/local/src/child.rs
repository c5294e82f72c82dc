//! A child process that serves over two pipes: started, watched over, and never left behind.

use std::ffi::OsStr;
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use ringway_sys::PeerCredentials;
use ringway_sys::pipe::pass_on;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::config::LocalConfig;
use crate::connection::Connection;
use crate::error::ConnectError;
use crate::far_end::{EXIT_GRACE, FarEnd};
use crate::pipe::{Pipe, named};

/// How a child process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As its exit status says.
    Exited(ExitStatus),
    /// The kernel did not say.
    Unknown(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => status.fmt(formatter),
            Self::Unknown(error) => write!(formatter, "how it ended is not known: {error}"),
        }
    }
}

/// A child process that serves over pipes. Killed when this is dropped, and waited for by a task
/// of the runtime that it was started on, so that no zombie stays behind.
#[derive(Debug)]
pub struct Child {
    id: u32,
    connection: Arc<Connection>,
    /// Dropped or used, it has the child killed.
    kill: Option<oneshot::Sender<()>>,
    ending: watch::Receiver<Option<Ending>>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Child {
    /// Starts `command`, and waits until the child serves. The child gets the other ends of the
    /// pipes as descriptors of their own, which `RINGWAY_PIPE` names; its standard streams are
    /// what `command` says.
    ///
    /// # Errors
    /// A [`ConnectError`]: the program can't be started, went before it served, or is none that
    /// serves. The child is gone then.
    pub async fn spawn(
        command: std::process::Command,
        config: &LocalConfig,
    ) -> Result<Self, ConnectError> {
        let program = name_of(command.get_program());
        let started = start(command);
        let (mut pipe, mut child) = started.map_err(|error| ConnectError::Start {
            program: program.clone(),
            error,
        })?;
        let id = child.id().unwrap_or_default();
        pipe.set_peer(credentials(id));
        let standard = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (kill, killed) = oneshot::channel();
        let (end, ending) = watch::channel(None);
        let far_end = Arc::<FarEnd>::default();
        tokio::spawn(watch_over(child, killed, Arc::clone(&far_end), end));
        let met = pipe.call(config, Some(Arc::clone(&far_end)));
        let met = timeout(config.handshake_timeout, met).await;
        let connection = match met {
            // It closed its pipes, or wrote something else: how it ended says more.
            Ok(Err(reason)) if let Some(end) = ended(ending.clone(), EXIT_GRACE).await => {
                return Err(ConnectError::ChildGone {
                    program,
                    end: end.to_string(),
                    reason,
                });
            }
            met => named(&program, config, met)?,
        };
        far_end.belongs_to(&connection);
        Ok(Self {
            id,
            connection,
            kill: Some(kill),
            ending,
            stdin: standard.0,
            stdout: standard.1,
            stderr: standard.2,
        })
    }

    /// The connection to it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Its process id; good as long as it has not been waited for.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its standard input, where `command` made a pipe of that; once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Its standard output, where `command` made a pipe of that; once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Its standard error, where `command` made a pipe of that; once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Has it killed (SIGKILL).
    pub fn kill(&mut self) {
        self.kill.take();
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// The kernel did not say how, or the runtime that it was started on is gone.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        match ended(self.ending.clone(), Duration::MAX).await {
            Some(Ending::Exited(status)) => Ok(status),
            Some(Ending::Unknown(reason)) => Err(io::Error::other(reason)),
            None => Err(io::Error::other("the runtime that watched over it is gone")),
        }
    }

    /// Hangs up, which tells a server to end; kills it if it has not ended after `patience`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn stop(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.connection.close();
        if ended(self.ending.clone(), patience).await.is_none() {
            self.kill();
        }
        self.wait().await
    }
}

/// Starts the child with one end of a new way; the other end.
fn start(mut command: std::process::Command) -> io::Result<(Pipe, tokio::process::Child)> {
    let (ours, theirs) = Pipe::pair()?;
    let (variable, value) = theirs.variable()?;
    command.env(variable, value);
    pass_on(&mut command, theirs.into_descriptors());
    let mut command = tokio::process::Command::from(command);
    // Where its runtime goes before the child does.
    command.kill_on_drop(true);
    // With `command` the parent's hold on the child's ends goes: then only the child has them.
    Ok((ours, command.spawn()?))
}

/// Waits for the child, and tells of its end.
async fn watch_over(
    mut child: tokio::process::Child,
    killed: oneshot::Receiver<()>,
    far_end: Arc<FarEnd>,
    end: watch::Sender<Option<Ending>>,
) {
    let (mut killed, mut hung_up) = (pin!(killed), pin!(far_end.hung_up()));
    let (mut spared, mut reading) = (true, true);
    let ending = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut killed, if spared => {
                spared = false;
                // It may have been faster.
                let _ = child.start_kill();
            }
            () = &mut hung_up, if reading => {
                reading = false;
                far_end.tell("it closed its pipes and runs on".to_owned());
            }
        }
    };
    let ending = match ending {
        Ok(status) => Ending::Exited(status),
        Err(error) => Ending::Unknown(error.to_string()),
    };
    far_end.tell(ending.to_string());
    end.send_replace(Some(ending));
}

/// How it ended, if it does within `patience`.
async fn ended(mut ending: watch::Receiver<Option<Ending>>, patience: Duration) -> Option<Ending> {
    let ended = async {
        let known = ending.wait_for(Option::is_some).await.ok()?;
        known.clone()
    };
    timeout(patience, ended).await.ok().flatten()
}

/// A child as the kernel knows it now; one that has gone already has this process's user.
fn credentials(id: u32) -> PeerCredentials {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(format!("/proc/{id}")).ok();
    let (uid, gid) = found.map_or_else(
        || {
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )
        },
        |found| (found.uid(), found.gid()),
    );
    PeerCredentials {
        pid: Some(id),
        uid,
        gid,
    }
}

fn name_of(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}
