//! What can go wrong while a process is set up.

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An environment variable, or what a program asked for in its place, means nothing.
    #[error("{variable}={value}: {reason}")]
    Setting {
        /// Which.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process writes its logs elsewhere already.
    #[error(
        "a tracing subscriber is installed already: call ringway_telemetry first, or Builder::without_logs"
    )]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// Calls are traced by somebody else.
    #[error(transparent)]
    Tracer(#[from] ringway::trace::TracerInstalled),
    /// No thread can be started for the export.
    #[error("no thread for the export of telemetry")]
    Thread(#[source] std::io::Error),
    /// Calls are measured by somebody else.
    #[error(transparent)]
    Meter(#[from] ringway::meter::MeterInstalled),
    /// The page for Prometheus can't be served.
    #[error(
        "no page of metrics at {address}: choose another by OTEL_EXPORTER_PROMETHEUS_HOST and _PORT"
    )]
    Page {
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What is given as the collector's address is none.
    #[error(
        "{endpoint} is no collector's address ({reason}): give a URL, such as http://localhost:4317"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The exporter of metrics can't be built.
    #[error("no exporter for {endpoint}")]
    Exporter {
        /// Where it would send to.
        endpoint: String,
        /// Why not.
        source: opentelemetry_otlp::ExporterBuildError,
    },
}
