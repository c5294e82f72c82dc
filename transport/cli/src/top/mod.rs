//! `ringway top`: the connections of running servers by path, as a terminal view or as JSON.
//!
//! | module | what it does |
//! | --- | --- |
//! | `watch` | asks servers for snapshots, again and again |
//! | `rows` | what came between two snapshots, as rates |
//! | `screen` | what is shown of all servers, and in which order |
//! | `view` | draws it |
//! | `terminal` | keys and frames |

mod rows;
mod screen;
mod terminal;
mod view;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use ringway_local::Directory;
use tokio::sync::mpsc;

use rows::Interval;
use screen::{Screen, Sort};
use watch::News;

/// The options of `ringway top`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Servers: names or addresses (`catalog:50051`, `grpc://10.0.0.7:50051`) [default: all in the
    /// socket directory]
    servers: Vec<String>,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// End after so many looks at each server
    #[arg(long, value_name = "N")]
    iterations: Option<NonZeroU64>,

    /// Print a line of JSON for each look at each server, in place of the terminal view
    #[arg(long)]
    json: bool,

    /// What the connections are sorted by
    #[arg(long, value_enum, default_value_t = Sort::Calls)]
    sort: Sort,
}

/// Reads a number of seconds that a server takes.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if (0.1..=3600.0).contains(&seconds) => Ok(interval),
        _ => Err("it has to be from 0.1 to 3,600 seconds".to_owned()),
    }
}

/// What keeps it from looking.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not start tokio's runtime")]
    Runtime(#[source] io::Error),
    #[error("could not look for servers in {directory}")]
    Directory {
        directory: String,
        #[source]
        source: io::Error,
    },
    #[error("no server is found in {0}: name one, or set RINGWAY_DIR as the servers have it")]
    NoServer(String),
    #[error("{server}: {reason}")]
    Server { server: String, reason: String },
    #[error("standard output is no terminal: ask for --json")]
    NoTerminal,
    #[error("the terminal failed")]
    Terminal(#[source] io::Error),
    #[error("could not write")]
    Write(#[source] io::Error),
}

/// Watches until the user has seen enough.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if !options.json && !io::stdout().is_terminal() {
        return Err(Error::NoTerminal);
    }
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Runtime)?;
    let done = runtime.block_on(async {
        let servers = match options.servers.is_empty() {
            true => all_servers()?,
            false => options.servers.clone(),
        };
        let news = watch::all(&servers, options.interval);
        match options.json {
            true => print(news, servers.len(), options.iterations).await,
            false => {
                let screen = Screen::new(options.sort);
                terminal::show(news, screen, servers.len(), options.iterations).await
            }
        }
    });
    // Whoever reads keys may wait for one.
    runtime.shutdown_background();
    done
}

fn all_servers() -> Result<Vec<String>, Error> {
    let directory = Directory::from_environment();
    let root = directory.root().display().to_string();
    let names = directory.names().map_err(|source| Error::Directory {
        directory: root.clone(),
        source,
    })?;
    // Directories of servers that have gone stay behind.
    let own = ringway_local::UidPolicy::SameUser;
    let has_sockets = |name: &String| ringway_local::instances(&directory, name, &own).is_ok();
    let servers: Vec<_> = names.into_iter().filter(has_sockets).collect();
    match servers.is_empty() {
        true => Err(Error::NoServer(root)),
        false => Ok(servers),
    }
}

/// Counts looks down: with `iterations`, each of `servers` is looked at so many times.
struct Countdown(Option<u64>);

impl Countdown {
    fn new(iterations: Option<NonZeroU64>, servers: usize) -> Self {
        Self(iterations.map(|iterations| iterations.get().saturating_mul(servers as u64)))
    }

    /// One more look was taken; true if that was the last.
    fn is_over(&mut self) -> bool {
        let Some(left) = &mut self.0 else {
            return false;
        };
        *left = left.saturating_sub(1);
        *left == 0
    }
}

async fn print(
    mut news: mpsc::Receiver<News>,
    servers: usize,
    iterations: Option<NonZeroU64>,
) -> Result<(), Error> {
    let mut left = Countdown::new(iterations, servers);
    while let Some(News { server, outcome }) = news.recv().await {
        let interval = outcome.map_err(|reason| Error::Server { server, reason })?;
        print_line(&interval).map_err(Error::Write)?;
        if left.is_over() {
            break;
        }
    }
    Ok(())
}

fn print_line(interval: &Interval) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, interval)?;
    writeln!(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_counted_over_all_servers() {
        let mut endless = Countdown::new(None, 2);
        assert!(!endless.is_over());
        let mut twice = Countdown::new(NonZeroU64::new(2), 2);
        let over: Vec<bool> = (0..4).map(|_| twice.is_over()).collect();
        assert_eq!(over, [false, false, false, true]);
    }

    #[test]
    fn an_interval_is_one_that_servers_take() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for refused in ["0", "0.05", "-1", "soon", "1e9", "NaN"] {
            assert!(interval(refused).is_err(), "{refused}");
        }
    }
}
