//! The way to the collector. Spans go into a bounded queue, and a thread takes them from there: a
//! call never waits for a collector, and what does not fit is lost, and counted. The runtime and the
//! count of what was lost are the metrics' as well.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `otlp` | spans as bytes |
//! | `queue` | the spans that wait |
//! | `collector` | the collector: connection, settings, further attempts |

mod collector;
mod otlp;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry_sdk::Resource;
use tokio::runtime::{Handle, Runtime};

pub(crate) use self::otlp::{SpanWriter, Value};
pub(crate) use self::queue::SpanQueue;
use crate::Error;

/// The thread on which exporters do their input and output. They must not depend on the program's
/// runtime: it may be busy, or blocked in the very flush that waits for the export.
#[derive(Debug)]
pub(crate) struct ExportRuntime {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl ExportRuntime {
    pub(crate) fn start() -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("ringway-export");
        let runtime = builder.enable_all().build().map_err(Error::Thread)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for ExportRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also within a runtime of the program, where a plain drop would panic.
            runtime.shutdown_background();
        }
    }
}

/// A queue of spans that are sent to `endpoint`.
pub(crate) fn spans(
    endpoint: &str,
    resource: &Resource,
    scope: &'static str,
    runtime: &Handle,
) -> Result<SpanQueue, Error> {
    let origin = otlp::Origin::new(resource, scope);
    let manner = collector::Manner::of_environment()?;
    let collector = collector::Collector::new(endpoint, manner, origin, runtime)?;
    let loss = Arc::new(Loss::new(endpoint, "spans", ""));
    let limits = queue::Limits::of_environment();
    Ok(SpanQueue::start(collector, limits, loss, runtime))
}

/// What was lost on the way, and whether that was said.
#[derive(Debug)]
pub(crate) struct Loss {
    endpoint: String,
    /// What is sent there.
    what: &'static str,
    /// What to do if it never takes any.
    advice: &'static str,
    count: AtomicU64,
    /// Said for this outage.
    said: AtomicBool,
}

impl Loss {
    pub(crate) fn new(endpoint: &str, what: &'static str, advice: &'static str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            what,
            advice,
            count: AtomicU64::new(0),
            said: AtomicBool::new(false),
        }
    }

    /// How many were lost since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: usize, why: &dyn fmt::Display) {
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                endpoint = %self.endpoint, %why,
                "the collector does not get our {}{}; said once, until the export works again",
                self.what, self.advice
            );
        }
    }

    pub(crate) fn recovered(&self) {
        if self.said.load(Ordering::Relaxed) && self.said.swap(false, Ordering::Relaxed) {
            let lost = self.count();
            tracing::info!(endpoint = %self.endpoint, lost, "the export works again: {}", self.what);
        }
    }
}
