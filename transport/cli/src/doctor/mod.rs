//! `ringway doctor`: what this kernel, container and user allow, which paths that leaves, and why not
//! the others. Nothing is guessed: memory is made and sealed, bells are rung, calls are made.
//!
//! | module | what it examines |
//! | --- | --- |
//! | `kernel` | memory files, eventfd, futex, descriptors passed on, io_uring |
//! | `directory` | the socket directory, and the servers in it |
//! | `identity` | users, namespaces, labels that keep containers apart |
//! | `limits` | CPUs and quotas, memory, descriptors |
//! | `paths` | each path, by a call over it |
//! | `server` | one server: its sockets, the handshake, the path that a call takes |
//! | `finding`, `report` | how it is said |

mod directory;
mod finding;
mod identity;
mod kernel;
mod limits;
mod paths;
mod report;
mod server;

use std::io;
use std::process::ExitCode;

use clap::Args;
use ringway_local::Directory;

use report::Report;

/// The exit status of `ringway doctor`, for scripts.
const STATUS: &str = "\
Exit status:
  0  shared memory works
  1  the examination itself failed
  2  the command line is wrong
  3  only a socket works on this host
  4  only the network works
  5  no path works, or the server NAME is not reached at all";

/// The options of `ringway doctor`.
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(crate) struct Options {
    /// A server to look at besides: its name or address (`catalog:50051`), with a scheme where a path
    /// is to be forced
    name: Option<String>,

    /// Print one JSON object in place of tables
    #[arg(long)]
    json: bool,
}

/// What keeps the doctor from its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not start tokio's runtime")]
    Runtime(#[source] io::Error),
    #[error("`{address}` is no address")]
    Address {
        address: String,
        #[source]
        source: ringway::Error,
    },
    #[error("could not write the report")]
    Write(#[source] io::Error),
}

/// Examines, reports on standard output, and tells by the exit status what works.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Runtime)?;
    let report = runtime.block_on(examine(options.name.as_deref()))?;
    let mut out = io::stdout().lock();
    match options.json {
        true => report.write_json(&mut out),
        false => report.write_tables(&mut out),
    }
    .map_err(Error::Write)?;
    Ok(ExitCode::from(report.verdict.status()))
}

async fn examine(name: Option<&str>) -> Result<Report, Error> {
    let (directory, origin) = Directory::chosen();
    let mut findings = kernel::findings();
    findings.extend(directory::findings(&directory, origin).await);
    findings.extend(identity::findings());
    findings.extend(limits::findings());
    let paths = paths::try_all(&directory).await;
    let server = match name {
        Some(address) => Some(server::look_at(&directory, address).await?),
        None => None,
    };
    Ok(Report::new(findings, paths, server))
}
