//! What Ringway's calls tell about themselves: OpenTelemetry traces and metrics, and logs that carry
//! the trace's id.
//!
//! One call sets a process up, by OpenTelemetry's own environment variables:
//!
//! ```no_run
//! # fn main() -> Result<(), ringway_telemetry::Error> {
//! let telemetry = ringway_telemetry::init()?;
//! // serve, call ...
//! drop(telemetry); // sends what is left, for a bounded time
//! # Ok(()) }
//! ```
//!
//! | variable | meaning |
//! | --- | --- |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | the collector, by gRPC: `http://localhost:4317`; without it nothing is recorded |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who this is |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which traces are recorded, [`Sampler`] |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `_HEADERS`, `_COMPRESSION` (`gzip`), for traces alone `OTEL_EXPORTER_OTLP_TRACES_…` | as OpenTelemetry says |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE`, `_SCHEDULE_DELAY` | spans that wait (8,192), that are sent at once (512), and for how long they wait at most (5,000 ms) |
//! | `OTEL_METRICS_EXPORTER` | `otlp` (where there is a collector), `prometheus`, both with a comma between, or `none` |
//! | `OTEL_EXPORTER_PROMETHEUS_HOST`, `OTEL_EXPORTER_PROMETHEUS_PORT` | where Prometheus finds `/metrics`: `localhost`, 9464 |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | how often metrics are sent, in milliseconds: 60,000 |
//! | `OTEL_SDK_DISABLED` | `true`: logs only |
//! | `RUST_LOG` | which logs are written; `info` without it |
//!
//! | module | what it holds |
//! | --- | --- |
//! | `settings` | what the environment and the program ask for |
//! | `sampling` | which traces are recorded |
//! | `edge` | HTTP requests that begin a trace, or bring one along |
//! | `unsampled` | what happens on behalf of calls that are not recorded |
//! | `export` | the way to the collector, and the count of what was lost on it |
//! | `logs` | lines with the trace's id |
//! | `spans` | a call, its steps and its place in a trace |
//! | `metrics` | what calls and connections come to, for a collector and for Prometheus |
//! | `guard` | what a program holds while it runs |
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod edge;
mod error;
mod export;
mod guard;
mod logs;
mod metrics;
mod sampling;
mod settings;
mod spans;
mod unsampled;

pub use edge::{AtEdge, AtEdgeFuture, Edge};
pub use error::Error;
pub use guard::Telemetry;
pub use sampling::Sampler;
pub use settings::Builder;

/// Sets the process up as its environment says; see [`Builder`] for what a program may add.
///
/// # Errors
/// A variable that can't be understood, or a `tracing` subscriber that was installed before.
pub fn init() -> Result<Telemetry, Error> {
    Builder::new().init()
}
