//! The server of a path, in a process of its own, or in this one for `inproc`.

use std::ffi::OsString;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringway_sys::process::{cpu_time, pss_bytes};

use super::connect::{Client, connect, connect_blocking, over};
use super::error::Error;
use super::handler::Handler;
use super::options::Path;
use super::part::{Process, Ready, Talk, Usage};
use super::server::Serving;
use super::stubs::ours::BenchBlockingClient;
use super::switch::{OFF, ON, SPANS, Spans, TraceOptions};
use super::work::HandlerWork;

/// How long a child may take to end once it is told to.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A server to connect to, whose use of the machine counts with the client's.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) path: Path,
    pub(crate) address: String,
    scratch: PathBuf,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Process(Process),
    /// Serves this process over pipes, and ends when dropped; asked about traces alone.
    Child(Box<ringway::Child>, Option<Talk>),
    Here(Serving),
}

impl Peer {
    /// Starts the server of `path`; its sockets go to `scratch`, its handlers do `work`, its calls can be traced as
    /// `trace` says, and a runtime of its own has so many `workers`.
    pub(crate) async fn start(
        path: Path,
        scratch: &FsPath,
        work: HandlerWork,
        trace: Option<&TraceOptions>,
        workers: Option<u16>,
    ) -> Result<Self, Error> {
        if path == Path::Inproc {
            let serving = Serving::start(path, scratch, Handler(work)).await?;
            return Ok(Peer {
                path,
                address: serving.address.clone(),
                scratch: scratch.to_owned(),
                home: Home::Here(serving),
            });
        }
        let path_name = path.to_string();
        let args = ["--path", &path_name, "--scratch"].map(OsString::from);
        let args = args.into_iter().chain([scratch.as_os_str().to_owned()]);
        let traced = trace.filter(|_| path.of_ringway().is_some());
        let mut command = Process::command("bench-server")?;
        command
            .args(args)
            .args(work.arguments())
            .args(traced.into_iter().flat_map(TraceOptions::arguments));
        if let Some(workers) = workers {
            command.env("TOKIO_WORKER_THREADS", workers.to_string());
        }
        if path == Path::Pipe {
            return Ok(Peer {
                path,
                address: path_name,
                scratch: scratch.to_owned(),
                home: plugin(command, traced.is_some()).await?,
            });
        }
        let mut process = Process::start("bench-server", command)?;
        let ready: Ready = process.hear()?;
        Ok(Peer {
            path,
            address: ready.address,
            scratch: scratch.to_owned(),
            home: Home::Process(process),
        })
    }

    /// A client for threads without a runtime; not to be waited for in a task.
    pub(crate) fn blocking(&self) -> impl FnOnce() -> Result<BenchBlockingClient, Error> + use<> {
        let (address, scratch) = (self.address.clone(), self.scratch.clone());
        move || connect_blocking(&address, &scratch)
    }

    /// Opens a new connection to it; over pipes, there is one.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        match &self.home {
            Home::Child(child, _) => Ok(over(child.channel())),
            _ => connect(self.path, &self.address, &self.scratch).await,
        }
    }

    /// CPU time of client and server so far.
    pub(crate) fn cpu_ns(&mut self) -> Result<u64, Error> {
        let client_ns = Usage::cpu_of_self().cpu_ns;
        match &mut self.home {
            Home::Process(process) => Ok(client_ns + process.cpu_ns()?),
            Home::Child(child, _) => Ok(client_ns + cpu_ns(child)?),
            Home::Here(_) => Ok(client_ns),
        }
    }

    /// CPU time and memory of client and server.
    pub(crate) fn usage(&mut self) -> Result<Usage, Error> {
        let client = Usage::of_self().map_err(|source| Error::Process {
            what: "could not read this process's memory".to_owned(),
            source,
        })?;
        match &mut self.home {
            Home::Process(process) => Ok(client.plus(process.usage()?)),
            Home::Child(child, _) => Ok(client.plus(usage(child)?)),
            Home::Here(_) => Ok(client),
        }
    }

    /// Has the server trace calls from now on, or no longer. In this process it is the client's
    /// switch that counts.
    pub(crate) fn trace(&mut self, on: bool) -> Result<(), Error> {
        self.ask(if on { ON } else { OFF }).map(drop)
    }

    /// The spans that the server's process has lost, when all that wait have been sent.
    pub(crate) fn lost_spans(&mut self) -> Result<u64, Error> {
        self.ask(SPANS).map(|lost| lost.count)
    }

    fn ask(&mut self, question: &str) -> Result<Spans, Error> {
        match &mut self.home {
            Home::Process(process) => process.ask(question),
            Home::Child(_, Some(talk)) => talk.ask(question),
            Home::Child(_, None) | Home::Here(_) => Ok(Spans::default()),
        }
    }

    /// Ends the server.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        match self.home {
            Home::Process(_ends_when_dropped) => Ok(()),
            Home::Child(child, _) => child.stop(END_TIMEOUT).await.map(drop).map_err(lost),
            Home::Here(serving) => serving.stop().await,
        }
    }
}

/// A server that is a child by pipes, and listens on its standard input if it is to be `asked`.
async fn plugin(mut command: Command, asked: bool) -> Result<Home, Error> {
    let path = Path::Pipe;
    match asked {
        true => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
        false => command.stdin(Stdio::null()),
    };
    let child = ringway::Child::spawn(command).await;
    let mut child = child.map_err(|error| Error::Serve {
        path,
        source: error.into(),
    })?;
    let talk = match (child.take_stdin(), child.take_stdout()) {
        (Some(stdin), Some(stdout)) => {
            let ends = stdin
                .into_owned_fd()
                .and_then(|stdin| Ok((stdin, stdout.into_owned_fd()?)));
            let (stdin, stdout) = ends.map_err(lost)?;
            Some(Talk::with("bench-server".to_owned(), stdin, stdout))
        }
        _ => None,
    };
    Ok(Home::Child(Box::new(child), talk))
}

fn cpu_ns(child: &ringway::Child) -> Result<u64, Error> {
    let time = cpu_time(child.id()).map_err(lost)?;
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn usage(child: &ringway::Child) -> Result<Usage, Error> {
    Ok(Usage {
        cpu_ns: cpu_ns(child)?,
        pss_bytes: pss_bytes(child.id()).map_err(lost)?,
    })
}

fn lost(source: io::Error) -> Error {
    Error::Process {
        what: "the server at the other end of the pipes is lost".to_owned(),
        source,
    }
}
