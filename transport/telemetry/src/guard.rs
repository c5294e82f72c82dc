//! What a program holds while it runs, and what happens when it ends.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Runtime;

use crate::export::{self, Gate};
use crate::settings::Settings;
use crate::spans::{CallTracer, SCOPE};
use crate::{Error, edge, logs};

/// How long the end of a process waits for its last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A process that is set up. Dropped at the end of `main`, it sends what is left, for two seconds at
/// most.
#[derive(Debug)]
#[must_use = "dropped, it ends the export"]
pub struct Telemetry {
    traces: Option<Traces>,
    /// Where exporters do their input and output; dropped after they have been told to end.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Traces {
    provider: SdkTracerProvider,
    gate: Gate,
}

/// Sets the process up.
pub(crate) fn start(settings: &Settings) -> Result<Telemetry, Error> {
    let mut telemetry = Telemetry {
        traces: None,
        runtime: None,
    };
    if let Some(endpoint) = &settings.traces {
        let runtime = export::runtime()?;
        let traces = Traces::start(endpoint, settings, &runtime)?;
        let tracer = CallTracer::new(settings.sampler, traces.gate.clone());
        ringway::trace::install(Box::new(tracer.clone()))?;
        edge::install(tracer);
        telemetry.traces = Some(traces);
        telemetry.runtime = Some(runtime);
    }
    if settings.logs {
        logs::install(telemetry.traces.as_ref().map(Traces::tracer))?;
    }
    Ok(telemetry)
}

impl Traces {
    fn start(endpoint: &str, settings: &Settings, runtime: &Runtime) -> Result<Self, Error> {
        let gate = export::spans(endpoint, &settings.resource, runtime)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(settings.resource.clone())
            .with_sampler(settings.sampler.of_sdk())
            .with_span_processor(gate.clone())
            .build();
        Ok(Self { provider, gate })
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

    /// Spans that were lost since the start: their queue was full, or the collector did not take them.
    pub fn lost_spans(&self) -> u64 {
        let traces = self.traces.as_ref();
        traces.map_or(0, |traces| traces.gate.loss().spans())
    }

    /// Sends what waits; true if it was sent. Blocks this thread, for five seconds at most.
    pub fn flush(&self) -> bool {
        let flushed = |traces: &Traces| traces.provider.force_flush().is_ok();
        self.traces.as_ref().is_none_or(flushed)
    }

    /// Sends what is left; true if the collector has it all. Blocks this thread, for two seconds at
    /// most. Dropping it does the same.
    pub fn shutdown(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        let lost = self.lost_spans();
        let mut sent = true;
        if let Some(traces) = self.traces.take() {
            ringway::trace::set_active(false);
            sent = traces.provider.shutdown_with_timeout(FLUSH_TIMEOUT).is_ok();
            sent &= traces.gate.loss().spans() == lost;
        }
        if let Some(runtime) = self.runtime.take() {
            // Also within a runtime of the program, where a plain drop would panic.
            runtime.shutdown_background();
        }
        sent
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.end();
    }
}
