//! What the environment and the program ask for.

use std::env;
use std::str::FromStr;
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
const METRICS_EXPORTERS: [&str; 3] = ["otlp", "prometheus", "none"];
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
        let metrics = match disabled || self.without_metrics {
            true => None,
            false => MetricSettings::new(&self, variable)?,
        };
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
    /// As `builder` says, and where it says nothing the variables; `None` where nobody is to be told.
    fn new(
        builder: &Builder,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let exporters = Exporters::named(variable(METRICS_EXPORTER))?;
        let endpoint = builder.endpoint.clone();
        let otlp = endpoint.or_else(|| METRIC_ENDPOINTS.iter().find_map(|name| variable(name)));
        let (host, port) = (variable(PROMETHEUS_HOST), variable(PROMETHEUS_PORT));
        let is_placed = host.is_some() || port.is_some();
        let page = exporters.prometheus.unwrap_or(is_placed).then(|| {
            let (default_host, default_port) = PROMETHEUS_DEFAULTS;
            let host = host.as_deref().unwrap_or(default_host);
            format!("{host}:{}", port.as_deref().unwrap_or(default_port))
        });
        let settings = Self {
            otlp: otlp.filter(|_| exporters.otlp.unwrap_or(true)),
            prometheus: builder.prometheus.clone().or(page),
            interval: builder.metric_interval,
        };
        let is_wanted = settings.otlp.is_some() || settings.prometheus.is_some();
        Ok(is_wanted.then_some(settings))
    }
}

/// Which exporters of metrics are asked for; `None` where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
struct Exporters {
    otlp: Option<bool>,
    prometheus: Option<bool>,
}

impl Exporters {
    fn named(value: Option<String>) -> Result<Self, Error> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let names: Vec<_> = value.split(',').map(str::trim).collect();
        if let Some(unknown) = names.iter().find(|name| !METRICS_EXPORTERS.contains(name)) {
            let reason = format!(
                "`{unknown}` is no exporter: use {}",
                METRICS_EXPORTERS.join(", ")
            );
            return Err(Error::Setting {
                variable: METRICS_EXPORTER,
                value,
                reason,
            });
        }
        Ok(Self {
            otlp: Some(names.contains(&"otlp")),
            prometheus: Some(names.contains(&"prometheus")),
        })
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

/// A variable that holds a number: what is none counts as nothing said, of which the specification
/// wants a warning at most.
pub(crate) fn number<T: FromStr>(name: &str) -> Option<T> {
    variable(name).and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    /// Collector and page that `builder` and these variables ask for.
    fn asked(
        builder: &Builder,
        variables: &[(&str, &str)],
    ) -> Result<(Option<String>, Option<String>), Error> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let settings = MetricSettings::new(builder, variable)?;
        Ok(settings.map_or((None, None), |all| (all.otlp, all.prometheus)))
    }

    #[test]
    fn metrics_go_where_the_environment_says() {
        let exporter = |value| ("OTEL_METRICS_EXPORTER", value);
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://other:4317");
        let (host, port) = ((PROMETHEUS_HOST, "0.0.0.0"), (PROMETHEUS_PORT, "9999"));
        let (collector, other) = (Some("http://collector:4317"), Some("http://other:4317"));
        for (variables, otlp, page) in [
            (&[][..], None, None),
            (&[COLLECTOR], collector, None),
            (&[COLLECTOR, own], other, None),
            (&[COLLECTOR, exporter("none")], None, None),
            (
                &[COLLECTOR, exporter("prometheus")],
                None,
                Some("localhost:9464"),
            ),
            (
                &[COLLECTOR, exporter("otlp, prometheus"), host],
                collector,
                Some("0.0.0.0:9464"),
            ),
            (&[port], None, Some("localhost:9999")),
            (&[COLLECTOR, port, exporter("otlp")], collector, None),
        ] {
            let asked = asked(&Builder::new(), variables).unwrap();
            assert_eq!(
                asked,
                (otlp.map(str::to_owned), page.map(str::to_owned)),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_program_may_say_it_too() {
        let builder = Builder::new()
            .endpoint("http://own:4317")
            .prometheus("127.0.0.1:0");
        let (otlp, page) = asked(&builder, &[COLLECTOR]).unwrap();
        assert_eq!(otlp.as_deref(), Some("http://own:4317"));
        assert_eq!(page.as_deref(), Some("127.0.0.1:0"));
    }

    #[test]
    fn an_exporter_that_there_is_not_is_an_error_that_names_it() {
        let asked = asked(
            &Builder::new(),
            &[("OTEL_METRICS_EXPORTER", "otlp,console")],
        );
        let error = asked.unwrap_err().to_string();
        assert!(
            error.contains("`console`") && error.contains("prometheus"),
            "{error}"
        );
    }
}
