//! The process that a person started: starts the servers, runs the plan, reports.

use std::path::Path as FsPath;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::error::Error;
use super::machine::Machine;
use super::measure::Row;
use super::options::Options;
use super::part::Process;
use super::peer::Peer;
use super::plan::Plan;
use super::report::{Config, Report};
use super::rounds::Stage;
use super::switch::Tracing;
use super::{idle, report, rounds, traced};

/// Runs a comparison and leaves nothing of it behind, interrupted or not.
#[tokio::main]
pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    options.check()?;
    report::check_writable(options)?;
    let plan = Plan::new(options);
    let failed = |what: &str| {
        let what = what.to_owned();
        |source| Error::Process { what, source }
    };
    // Heard from before there is anything to leave behind.
    let interrupted = interrupted();
    let scratch = tempfile::Builder::new().prefix("ringway-").tempdir();
    let scratch = scratch.map_err(failed("could not make a directory for sockets"))?;
    let work = async {
        let rows = measure(options, &plan, scratch.path()).await?;
        Ok::<_, Error>((rows, traced::calls(options, scratch.path()).await))
    };
    let (rows, traces) = tokio::select! {
        done = work => done?,
        () = interrupted => return Err(Error::Interrupted),
    };
    scratch
        .close()
        .map_err(failed("could not remove the directory for sockets"))?;
    let report = Report {
        machine: Machine::this(),
        config: Config::new(options, plan.rounds),
        rows,
    };
    report.publish(options, traces)
}

/// Resolves when this process is asked to end, at any time since this was called.
fn interrupted() -> impl Future<Output = ()> {
    let asked = |kind| {
        let mut signals = signal(kind).ok();
        async move {
            match &mut signals {
                Some(signals) => signals.recv().await,
                None => std::future::pending().await,
            }
        }
    };
    let (terminated, interrupted) = (
        asked(SignalKind::terminate()),
        asked(SignalKind::interrupt()),
    );
    async {
        tokio::select! {
            _ = terminated => {}
            _ = interrupted => {}
        }
    }
}

async fn measure(options: &Options, plan: &Plan, scratch: &FsPath) -> Result<Vec<Row>, Error> {
    let tracing = Tracing::start(options)?;
    let mut peers = Vec::new();
    for &path in &options.paths {
        let trace = tracing.as_ref().map(Tracing::options);
        let workers = options.server_workers;
        peers.push(Peer::start(path, scratch, options.handler, trace, workers).await?);
    }
    let busy: Vec<Process> = (0..options.busy)
        .map(|_| Process::start_part("bench-busy", [""; 0]))
        .collect::<Result<_, _>>()?;

    let progress = progress(plan, options);
    let mut stage = Stage {
        peers,
        tracing,
        connections: options.connections,
    };
    let rows = run_plan(options, plan, &mut stage, &progress).await?;
    progress.finish_and_clear();

    drop(busy);
    tokio::task::block_in_place(|| drop(stage.tracing));
    for peer in stage.peers {
        peer.stop().await?;
    }
    Ok(rows)
}

async fn run_plan(
    options: &Options,
    plan: &Plan,
    stage: &mut Stage,
    progress: &ProgressBar,
) -> Result<Vec<Row>, Error> {
    let each_round = |row: &str| {
        progress.set_message(row.to_owned());
        progress.inc(1);
    };
    let mut rows = Vec::new();
    for group in &plan.groups {
        let timed = rounds::run(plan, group, options.spread, stage, each_round).await?;
        rows.extend(timed.into_iter().map(Row::Calls));
    }
    if let Some(connections) = options.idle {
        for peer in &mut stage.peers {
            each_round(&format!("{} idle, {connections} connections", peer.path));
            let watch = Duration::from_secs_f64(options.seconds);
            rows.push(Row::Idle(idle::watch(peer, connections, watch).await?));
        }
    }
    Ok(rows)
}

/// Drawn only between rounds: a bar that ticks by itself would take part in the measurement.
fn progress(plan: &Plan, options: &Options) -> ProgressBar {
    let idle_rows = options.idle.map_or(0, |_| options.paths.len() as u64);
    let bar = ProgressBar::new(plan.total_rounds() + idle_rows);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
