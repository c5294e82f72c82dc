//! Metrics: of calls, as OpenTelemetry's conventions for RPC name them, and of connections, by path.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `calls` | durations and errors of calls, told by the hook in `ringway` |
//! | `connections` | what connections and channels count anyway, read when somebody collects |
//! | `totals` | their sums, also over connections that have gone |
//! | `otlp` | the way to a collector |
//! | `page` | the page that Prometheus reads |
//!
//! A call never waits for any of it: it adds to sums in memory, and threads of the export read those.
//! Sums are sent anew each time, so an outage of the collector loses nothing but the times in between.

mod calls;
mod connections;
mod otlp;
mod page;
mod totals;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use ringway::meter::Role;
use tokio::runtime::Handle;

use self::page::Page;
use crate::Error;
use crate::export::{ExportRuntime, Loss};
use crate::settings::{MetricSettings, Settings};
use crate::spans::SCOPE;

/// However long a collector may take to refuse the last metrics: nobody waits for that.
const LONGEST_EXPORT: Duration = Duration::from_secs(60);

/// Which way messages go: `transmit` or `receive` (OpenTelemetry, "General attributes").
const DIRECTION: &str = "network.io.direction";
/// What carries calls.
const PATH: &str = "ringway.path";
/// Which end this process is.
const ROLE: &str = "ringway.role";
/// The server's name, as its clients call it.
const SERVER: &str = "ringway.server";

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

/// The metrics of a process, while they are collected.
#[derive(Debug)]
pub(crate) struct Metrics {
    provider: SdkMeterProvider,
    /// Of what was sent to a collector.
    loss: Option<Arc<Loss>>,
    page: Option<Page>,
}

impl Metrics {
    pub(crate) fn start(
        wanted: &MetricSettings,
        settings: &Settings,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let mut builder = SdkMeterProvider::builder().with_resource(settings.resource.clone());
        let mut loss = None;
        if let Some(endpoint) = &wanted.otlp {
            let (reader, lost) = otlp::reader(endpoint, wanted.interval, runtime)?;
            builder = builder.with_reader(reader);
            loss = Some(lost);
        }
        let mut page = None;
        if let Some(address) = &wanted.prometheus {
            let (reader, served) = page::serve(address, runtime)?;
            builder = builder.with_reader(reader);
            page = Some(served);
        }
        let provider = builder.build();
        let meter = provider.meter(SCOPE);
        connections::observe(&meter);
        ringway::meter::install(Box::new(calls::Calls::new(&meter)))?;
        Ok(Self {
            provider,
            loss,
            page,
        })
    }

    /// Where Prometheus finds its page.
    pub(crate) fn page(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(Page::address)
    }

    /// Readings that the collector did not take.
    pub(crate) fn lost(&self) -> u64 {
        self.loss.as_ref().map_or(0, |loss| loss.count())
    }

    /// Sends what there is, in this time; true if the collector took it.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let provider = self.provider.clone();
        bounded(timeout, move || provider.force_flush().is_ok())
    }

    /// Ends the measuring, and sends what is left, in this time; true if the collector took it.
    pub(crate) fn end(self, timeout: Duration, runtime: ExportRuntime) -> bool {
        ringway::meter::set_active(false);
        let Self { provider, page, .. } = self;
        drop(page);
        bounded(timeout, move || {
            let ended = provider.shutdown_with_timeout(LONGEST_EXPORT);
            // An export that hangs does so on it.
            drop(runtime);
            ended.is_ok()
        })
    }
}

/// Whether `work` succeeded within `timeout`. OpenTelemetry's own waits for as long as an export takes;
/// it goes on by itself if that is longer.
fn bounded(timeout: Duration, work: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (done, came) = mpsc::channel();
    let thread = std::thread::Builder::new().name("ringway-flush".to_owned());
    let started = thread.spawn(move || {
        // Whoever waited may have gone.
        let _ = done.send(work());
    });
    started.is_ok() && came.recv_timeout(timeout).unwrap_or(false)
}
