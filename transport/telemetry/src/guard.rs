//! What a program holds while it runs, and what happens when it ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use crate::export::{self, ExportRuntime, SpanQueue};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::spans::{CallTracer, SCOPE};
use crate::{Error, edge, logs};

/// How long the end of a process waits for its last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The same where a program asks for it in between.
const METRICS_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// A process that is set up. Dropped at the end of `main`, it sends what is left, for two seconds at
/// most.
#[derive(Debug)]
#[must_use = "dropped, it ends the export"]
pub struct Telemetry {
    traces: Option<Traces>,
    metrics: Option<Metrics>,
    /// Where exporters do their input and output; dropped after they have been told to end.
    runtime: Option<ExportRuntime>,
}

#[derive(Debug)]
struct Traces {
    provider: SdkTracerProvider,
    spans: SpanQueue,
}

/// Sets the process up.
pub(crate) fn start(settings: &Settings) -> Result<Telemetry, Error> {
    let mut telemetry = Telemetry {
        traces: None,
        metrics: None,
        runtime: None,
    };
    if settings.traces.is_some() || settings.metrics.is_some() {
        telemetry.runtime = Some(ExportRuntime::start()?);
    }
    if let (Some(metrics), Some(runtime)) = (&settings.metrics, &telemetry.runtime) {
        telemetry.metrics = Some(Metrics::start(metrics, settings, runtime.handle())?);
    }
    if let (Some(endpoint), Some(runtime)) = (&settings.traces, &telemetry.runtime) {
        let traces = Traces::start(endpoint, settings, runtime.handle())?;
        let tracer = CallTracer::new(settings.sampler, traces.spans.clone());
        ringway::trace::install(Box::new(tracer.clone()))?;
        edge::install(tracer);
        telemetry.traces = Some(traces);
    }
    if settings.logs {
        logs::install(telemetry.traces.as_ref().map(Traces::tracer))?;
    }
    Ok(telemetry)
}

impl Traces {
    fn start(endpoint: &str, settings: &Settings, runtime: &Handle) -> Result<Self, Error> {
        let spans = export::spans(endpoint, &settings.resource, SCOPE, runtime)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(settings.resource.clone())
            .with_sampler(settings.sampler.of_sdk())
            .with_span_processor(spans.clone())
            .build();
        Ok(Self { provider, spans })
    }

    fn tracer(&self) -> SdkTracer {
        self.provider.tracer(SCOPE)
    }
}

impl Telemetry {
    /// Whether traces are recorded at all.
    pub fn records_traces(&self) -> bool {
        self.traces.is_some()
    }

    /// Where Prometheus finds its page (`/metrics`), if there is one.
    pub fn prometheus_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.page()
    }

    /// Spans that were lost since the start: their queue was full, or the collector did not take them.
    pub fn lost_spans(&self) -> u64 {
        let traces = self.traces.as_ref();
        traces.map_or(0, |traces| traces.spans.loss().count())
    }

    /// Readings of the metrics that the collector did not take. What they would have told is in the next one,
    /// which is of all that has been counted since the start.
    pub fn lost_readings(&self) -> u64 {
        self.metrics.as_ref().map_or(0, Metrics::lost)
    }

    /// Sends what waits; true if it was sent. Blocks this thread, for five seconds at most.
    pub fn flush(&self) -> bool {
        let flushed = |traces: &Traces| traces.provider.force_flush().is_ok();
        // Both are asked, whatever the first one says.
        let traces = self.traces.as_ref().is_none_or(flushed);
        let metrics = self.metrics.as_ref();
        metrics.is_none_or(|metrics| metrics.flush(METRICS_FLUSH_TIMEOUT)) && traces
    }

    /// Sends what is left; true if the collector has it all. Blocks this thread, for two seconds at
    /// most. Dropping it does the same.
    pub fn shutdown(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        let (lost, began) = (self.lost_spans(), Instant::now());
        let mut sent = true;
        if let Some(traces) = self.traces.take() {
            ringway::trace::set_active(false);
            sent = traces.provider.shutdown_with_timeout(FLUSH_TIMEOUT).is_ok();
            sent &= traces.spans.loss().count() == lost;
        }
        if let (Some(metrics), Some(runtime)) = (self.metrics.take(), self.runtime.take()) {
            let left = FLUSH_TIMEOUT.saturating_sub(began.elapsed());
            sent &= metrics.end(left, runtime);
        }
        self.runtime = None;
        sent
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.end();
    }
}
