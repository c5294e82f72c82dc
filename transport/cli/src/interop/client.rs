//! The client: cases, one after another, over one path.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use ringway::{Child, Endpoint, Path};
use ringway_interop::{Case, Client, Failure};

use super::{DEFAULT_PORT, Error, runtime};
use crate::compare::with_causes;

/// Asks for all cases.
const ALL: &str = "all";

/// The options of `ringway interop-client`.
#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// The path to call over; `auto` takes the best that works
    #[arg(long, default_value_t = Way::Auto)]
    path: Way,

    /// The cases to run [default: all]
    #[arg(long = "case", alias = "test_case", value_name = "CASE", value_delimiter = ',',
          value_parser = cases())]
    cases: Vec<Option<Case>>,

    /// The server: HOST:PORT, or for grpc-unix the file of its socket; pipe and inproc start
    /// their own
    #[arg(long, value_name = "ADDRESS", default_value_t = format!("localhost:{DEFAULT_PORT}"))]
    server: String,

    /// The longest that a case may take, in seconds; one that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
}

/// Reads a positive number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it has to be more than 0 seconds, and fit a clock".to_owned()),
    }
}

/// A path, and for gRPC what it runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    Auto,
    Shm,
    Socket,
    #[value(name = "socket-epoll")]
    SocketEpoll,
    Pipe,
    Inproc,
    #[value(name = "grpc-tcp", alias = "grpc")]
    GrpcTcp,
    GrpcUnix,
}

impl Way {
    fn address(self, server: &str) -> String {
        match self {
            Self::Auto => server.to_owned(),
            Self::Shm => format!("shm://{server}"),
            Self::Socket => format!("socket://{server}"),
            Self::SocketEpoll => format!("socket+epoll://{server}"),
            Self::Pipe => String::new(),
            Self::Inproc => format!("inproc://{server}"),
            Self::GrpcTcp => format!("grpc://{server}"),
            Self::GrpcUnix => format!("unix:{server}"),
        }
    }

    fn path(self) -> Option<Path> {
        match self {
            Self::Auto => None,
            Self::Shm => Some(Path::Shm),
            Self::Socket | Self::SocketEpoll => Some(Path::Socket),
            Self::Pipe => Some(Path::Pipe),
            Self::Inproc => Some(Path::Inproc),
            Self::GrpcTcp | Self::GrpcUnix => Some(Path::Grpc),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => formatter.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

/// Reads a case's name; `None` stands for all.
fn cases() -> impl TypedValueParser<Value = Option<Case>> {
    let names = Case::ALL.iter().map(|case| case.name()).chain([ALL]);
    PossibleValuesParser::new(names).map(|name| name.parse().ok())
}

/// Runs the cases, with a line on standard output for each.
pub(crate) fn call(options: &ClientOptions) -> Result<(), Error> {
    runtime()?.block_on(async {
        let server = &options.server;
        let plugin = match options.path {
            Way::Pipe => Some(start_plugin().await?),
            _ => None,
        };
        let endpoint = match &plugin {
            Some(plugin) => plugin.endpoint(),
            None => options.endpoint()?,
        };
        if options.path == Way::Inproc {
            serve_here(server).await?;
        }
        let client = within(options.timeout, Client::connect(endpoint)).await;
        let mut client = client.map_err(|source| Error::Connect {
            server: server.clone(),
            source,
        })?;
        if let Some(path) = options.path.path() {
            client = client.expect_path(path);
        }
        run_all(&client, &options.cases, options.timeout).await
    })
}

impl ClientOptions {
    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::new(self.path.address(&self.server));
        endpoint.map_err(|source| Error::Address {
            server: self.server.clone(),
            path: self.path,
            source,
        })
    }
}

/// The path `pipe` has its server in a child process.
async fn start_plugin() -> Result<Child, Error> {
    let program = std::env::current_exe().map_err(Error::Program)?;
    let mut command = Command::new(program);
    command.args(["interop-server", "--pipe"]);
    Child::spawn(command).await.map_err(Error::Serve)
}

/// The path `inproc` has its server in this process.
async fn serve_here(name: &str) -> Result<(), Error> {
    let builder = ringway_interop::add_to(ringway::Server::builder().name(name));
    let server = builder.bind().await.map_err(Error::Serve)?;
    tokio::spawn(async move {
        if let Err(error) = server.serve().await {
            tracing::error!("{}", with_causes(&error));
        }
    });
    Ok(())
}

/// What comes of `work`, if that takes no longer than `timeout`.
async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = tokio::time::timeout(timeout, work).await;
    ended.unwrap_or(Err(Failure::TimedOut { timeout }))
}

async fn run_all(client: &Client, asked: &[Option<Case>], timeout: Duration) -> Result<(), Error> {
    let everything = asked.is_empty() || asked.contains(&None);
    let named: Vec<Case> = asked.iter().copied().flatten().collect();
    let cases = match everything {
        true => Case::ALL,
        false => &named,
    };
    let mut failed = 0;
    for case in cases {
        let begun = Instant::now();
        match within(timeout, client.run(*case)).await {
            Ok(()) => println!("{case}: passed in {:.1?}", begun.elapsed()),
            Err(failure) => {
                failed += 1;
                println!("{case}: FAILED: {}", with_causes(&failure));
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Failed {
            failed,
            all: cases.len(),
        }),
    }
}
