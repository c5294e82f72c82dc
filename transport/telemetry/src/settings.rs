//! What the environment and the program ask for.

use std::env;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::sampling::{SAMPLER, SAMPLER_ARG};
use crate::{Error, Sampler, Telemetry, guard};

const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const METRIC_ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Which exporters of metrics: `otlp`, `prometheus`, both with a comma between, or `none`.
const METRICS_EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const PROMETHEUS_HOST: &str = "OTEL_EXPORTER_PROMETHEUS_HOST";
const PROMETHEUS_PORT: &str = "OTEL_EXPORTER_PROMETHEUS_PORT";
/// OpenTelemetry, "Environment Variable Specification".
const PROMETHEUS_DEFAULTS: (&str, &str) = ("localhost", "9464");
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// What a program may say beside its environment.
///
/// ```no_run
/// # fn main() -> Result<(), ringway_telemetry::Error> {
/// let telemetry = ringway_telemetry::Builder::new()
///     .service_name("catalog") // unless OTEL_SERVICE_NAME says otherwise
///     .init()?;
/// # drop(telemetry); Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    service_name: Option<String>,
    endpoint: Option<String>,
    sampler: Option<Sampler>,
    without_logs: bool,
    without_metrics: bool,
    prometheus: Option<String>,
    metric_interval: Option<Duration>,
}

impl Builder {
    /// As the environment says.
    pub fn new() -> Self {
        Self::default()
    }

    /// The service's name, where `OTEL_SERVICE_NAME` gives none.
    #[must_use]
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Where traces and metrics are sent to by OTLP over gRPC, whatever the environment says.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Serves metrics to Prometheus at `address` (`HOST:PORT`; port 0 lets the kernel choose), whatever the
    /// environment says.
    #[must_use]
    pub fn prometheus(mut self, address: impl Into<String>) -> Self {
        self.prometheus = Some(address.into());
        self
    }

    /// How often metrics are sent to the collector, whatever `OTEL_METRIC_EXPORT_INTERVAL` says; 60 s
    /// without either.
    #[must_use]
    pub fn metric_interval(mut self, interval: Duration) -> Self {
        self.metric_interval = Some(interval);
        self
    }

    /// Which traces are recorded, whatever the environment says.
    #[must_use]
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = Some(sampler);
        self
    }

    /// Installs no `tracing` subscriber: calls are traced, but neither the program's own `tracing`
    /// spans nor its logs.
    #[must_use]
    pub fn without_logs(mut self) -> Self {
        self.without_logs = true;
        self
    }

    /// Measures nothing, whatever the environment says: calls are traced alone.
    #[must_use]
    pub fn without_metrics(mut self) -> Self {
        self.without_metrics = true;
        self
    }

    /// Sets the process up. Hold what it returns until the end of `main`.
    ///
    /// # Errors
    /// As [`crate::init`].
    pub fn init(self) -> Result<Telemetry, Error> {
        let settings = self.settings()?;
        guard::start(&settings)
    }

    fn settings(self) -> Result<Settings, Error> {
        let disabled =
            variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let no_traces = variable("OTEL_TRACES_EXPORTER").as_deref() == Some("none");
        let metrics = MetricSettings::new(&self).filter(|_| !disabled && !self.without_metrics);
        let endpoint = self
            .endpoint
            .or_else(|| ENDPOINTS.iter().find_map(|name| variable(name)));
        Ok(Settings {
            resource: resource(self.service_name),
            traces: endpoint.filter(|_| !disabled && !no_traces),
            sampler: match self.sampler {
                Some(sampler) => sampler,
                None => Sampler::named(variable(SAMPLER), variable(SAMPLER_ARG))?,
            },
            logs: !self.without_logs,
            metrics,
        })
    }
}

/// What a process is set up with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) resource: Resource,
    /// Where spans are sent to.
    pub(crate) traces: Option<String>,
    pub(crate) sampler: Sampler,
    pub(crate) logs: bool,
    pub(crate) metrics: Option<MetricSettings>,
}

/// Where metrics go.
#[derive(Debug)]
pub(crate) struct MetricSettings {
    /// The collector.
    pub(crate) otlp: Option<String>,
    /// Where Prometheus finds its page.
    pub(crate) prometheus: Option<String>,
    pub(crate) interval: Option<Duration>,
}

impl MetricSettings {
    /// As `builder` and the environment say; `None` where nobody is to be told.
    fn new(builder: &Builder) -> Option<Self> {
        let exporters = variable(METRICS_EXPORTER);
        let wanted = |name: &str| {
            let exporters = exporters.as_deref()?;
            Some(exporters.split(',').any(|one| one.trim() == name))
        };
        let endpoint = builder.endpoint.clone();
        let otlp = endpoint.or_else(|| METRIC_ENDPOINTS.iter().find_map(|name| variable(name)));
        let (host, port) = (variable(PROMETHEUS_HOST), variable(PROMETHEUS_PORT));
        let named = host.is_some() || port.is_some();
        let page = wanted("prometheus").unwrap_or(named).then(|| {
            let (default_host, default_port) = PROMETHEUS_DEFAULTS;
            let host = host.as_deref().unwrap_or(default_host);
            format!("{host}:{}", port.as_deref().unwrap_or(default_port))
        });
        let settings = Self {
            otlp: otlp.filter(|_| wanted("otlp").unwrap_or(true)),
            prometheus: builder.prometheus.clone().or(page),
            interval: builder.metric_interval,
        };
        (settings.otlp.is_some() || settings.prometheus.is_some()).then_some(settings)
    }
}

/// Who this process is.
fn resource(service_name: Option<String>) -> Resource {
    let named = env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let stated = variable(SERVICE_NAME).is_some() || named;
    let own = service_name.filter(|_| !stated);
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    match own {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}

/// A variable that says something: an empty one is as good as none (OpenTelemetry, "Environment
/// Variable Specification").
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
