//! The main job: the shop as processes, its orders timed over each path.
//!
//! `fleet` holds the processes (`child` is one of them, seen from inside),
//! `shopper` places an order, `load` many, `report` says what came of it and `page` draws it;
//! `traced` follows some orders step by step, which a `customer` places.
//!
//! The same services make the program `shop`, which a container's image holds: `service` is any of
//! them, `steady` orders at a steady rate, `probe` asks whether one is well.
#![forbid(unsafe_code)]

mod child;
mod cpu;
mod customer;
mod error;
mod fleet;
mod load;
mod page;
mod paths;
mod probe;
mod report;
mod service;
mod shopper;
mod steady;
mod traced;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub use child::{Child, run as run_child};
pub use customer::Customer;
pub use error::Error;
use fleet::Fleet;
use load::Crowd;
use paths::DemoPath;
pub use paths::free_port;
pub use probe::Probe;
pub use report::Report;
use report::Row;
pub use service::Service;
pub use steady::Steady;
use traced::Traced;

/// Orders before the clock starts, at most.
const WARM_UP_MAX: u64 = 2000;
/// How long the services may take to find each other.
const READY: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Orders to place over each path.
    #[arg(long, default_value_t = 5000)]
    orders: u64,
    /// Orders at the same time, each on a connection of its own.
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// The paths, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "shm,socket,grpc-tcp")]
    paths: Vec<DemoPath>,
    /// Leaves HTTP out: the load calls `orders` over the path itself.
    #[arg(long)]
    direct: bool,
    /// Writes the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draws the figures as a page of its own, for any browser: HTML without scripts. With a
    /// waterfall of one typical traced order on each path.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Sends traces of some orders on each path to this collector, by OTLP over gRPC: Jaeger, say.
    /// Services are told apart by their paths: `orders (shm)`, `orders (grpc-tcp)`.
    #[arg(long, value_name = "http://HOST:4317")]
    otlp: Option<String>,
    /// Orders to trace on each path, for --otlp and --report: on services of their own, beside
    /// those that are timed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    traces: u64,
}

impl Options {
    /// Finds out before the measurement, not after it.
    fn check_writable(&self) -> Result<(), Error> {
        for path in self.json.iter().chain(&self.report) {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|source| Error::Report {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Runs the shop over each path in turn.
///
/// # Errors
/// The first order that fails, service that ends or hop that strays.
pub async fn measure(options: &Options) -> Result<Report, Error> {
    if options.orders == 0 || options.in_flight == 0 {
        return Err(Error::NothingToDo);
    }
    options.check_writable()?;
    Traced::check(options).await?;
    let mut traced = Traced::default();
    let mut rows = Vec::new();
    for &path in &options.paths {
        let mut fleet = Fleet::start(path, options.direct, None).await?;
        let row = run(path, options, &fleet)
            .await
            .map_err(|error| fleet.culprit(error));
        fleet.end().await;
        rows.push(row?);
        traced.add(path, options).await?;
    }
    let sent = traced.send(options).await;
    Ok(Report::new(rows, traced.typical, sent, options))
}

impl Report {
    /// An error if any hop took another path than it should.
    ///
    /// # Errors
    /// [`Error::WrongPath`].
    pub fn check(&self) -> Result<(), Error> {
        self.strayed().map_or(Ok(()), Err)
    }
}

async fn run(path: DemoPath, options: &Options, fleet: &Fleet) -> Result<Row, Error> {
    ready(fleet).await?;
    let bar = bar(path, options.orders);
    let mut crowd = Crowd::gather(fleet, options.in_flight).await?;
    let warm_up = WARM_UP_MAX
        .min(options.orders)
        .max(options.in_flight as u64);
    crowd.place(warm_up, &ProgressBar::hidden()).await?;

    let pids = fleet.pids();
    let (start, cpu_before) = (Instant::now(), cpu::cpu_ns(&pids));
    let tally = crowd.place(options.orders, &bar).await?;
    let (took, cpu_after) = (start.elapsed(), cpu::cpu_ns(&pids));
    bar.finish_and_clear();
    Ok(Row::new(
        path,
        tally,
        took,
        cpu_after.saturating_sub(cpu_before),
    ))
}

/// Orders until one goes through: then every service has found those it calls.
async fn ready(fleet: &Fleet) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        let mut one = Crowd::gather(fleet, 1).await?;
        match one.place(1, &ProgressBar::hidden()).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > READY => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn bar(path: DemoPath, orders: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>9} {bar:40} {pos}/{len} orders {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(orders)
        .with_style(style)
        .with_prefix(path.to_string())
}
