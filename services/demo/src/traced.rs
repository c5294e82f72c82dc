//! Orders that are traced, beside those that are timed: on services of their own, so that no figure
//! pays for it.
//!
//! The services send their spans to a collector in this process, by OpenTelemetry's own variables.
//! Of each path, one typical order becomes the page's waterfall; all of them go on to the collector
//! that `--otlp` names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use ringway_report::{Collected, Collector, Sent, Span, Trace, answers};

use crate::fleet::Fleet;
use crate::load::Crowd;
use crate::paths::DemoPath;
use crate::{Error, Options, ready};

/// Orders before the first that counts: connections are made and learn how long to look.
const WARM_UP: u64 = 100;
/// The call that every order is.
const ORDER: &str = "shop.v1.Orders/Place";

/// How a process is told to send its spans.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    endpoint: String,
    path: DemoPath,
}

impl Tracing {
    /// The environment of `service`, whose name tells on which path it runs. Whatever the demo's own
    /// environment says of it is overruled.
    pub(crate) fn environment(&self, service: &str) -> [(&'static str, String); 8] {
        [
            ("OTEL_SDK_DISABLED", "false".to_owned()),
            ("OTEL_TRACES_EXPORTER", "otlp".to_owned()),
            ("OTEL_METRICS_EXPORTER", "none".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.clone()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", self.endpoint.clone()),
            ("OTEL_SERVICE_NAME", format!("{service} ({})", self.path)),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }
}

/// What came of the traced orders of all paths.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    /// A typical order on each path.
    pub(crate) typical: Vec<Trace>,
    orders: u64,
    whole: u64,
    spans: Collected,
}

impl Traced {
    /// Finds out before the measurement whether anybody takes the spans.
    pub(crate) async fn check(options: &Options) -> Result<(), Error> {
        let Some(url) = &options.otlp else {
            return Ok(());
        };
        answers(url).await.map_err(|why| Error::NoCollector {
            url: url.clone(),
            why,
        })
    }

    /// Traces some orders over `path`.
    pub(crate) async fn add(&mut self, path: DemoPath, options: &Options) -> Result<(), Error> {
        let orders = options.traces;
        if orders == 0 || (options.otlp.is_none() && options.report.is_none()) {
            return Ok(());
        }
        let collector = Collector::start().await.map_err(Error::Prepare)?;
        let tracing = Tracing {
            endpoint: collector.endpoint(),
            path,
        };
        let mut fleet = Fleet::start(path, options.direct, Some(tracing)).await?;
        let placed = place(&fleet, orders).await;
        let placed = placed.map_err(|error| fleet.culprit(error));
        // Only a service that has ended has sent all of its spans.
        fleet.end().await;
        self.keep(path, orders, placed?, collector.take());
        Ok(())
    }

    fn keep(&mut self, path: DemoPath, orders: u64, since_ns: u64, mut spans: Collected) {
        let mut traces = spans.traces();
        traces.retain(|_, spans| is_order_since(spans, since_ns));
        let ids: BTreeSet<[u8; 16]> = traces.keys().copied().collect();
        spans.retain(&ids);
        let whole = whole(path, traces);
        self.orders += orders;
        self.whole += whole.len() as u64;
        self.typical.extend(Trace::typical(whole));
        self.spans.add(spans);
    }

    /// Hands all spans on to the collector that `--otlp` names; says what became of them.
    pub(crate) async fn send(&mut self, options: &Options) -> Option<String> {
        let url = options.otlp.as_ref()?;
        let sent = std::mem::take(&mut self.spans).send(url).await;
        Some(self.said(url, &sent))
    }

    fn said(&self, url: &str, sent: &Sent) -> String {
        let Sent { taken, lost, why } = sent;
        let Self { orders, whole, .. } = self;
        let mut said = format!("{orders} orders traced, {taken} spans sent to {url}");
        if *lost > 0 {
            let why = why.as_deref().unwrap_or("it did not say why");
            said.push_str(&format!("; {lost} spans lost there: {why}"));
        }
        if whole < orders {
            let torn = orders - whole;
            said.push_str(&format!(
                "; {torn} orders lost spans on the way from the services"
            ));
        }
        if *lost == 0 && whole >= orders {
            said.push_str(", none lost");
        }
        said
    }
}

/// Warms the services up, then has a customer place `orders`; when that began, ns since 1970.
async fn place(fleet: &Fleet, orders: u64) -> Result<u64, Error> {
    ready(fleet).await?;
    let mut one = Crowd::gather(fleet, 1).await?;
    one.place(WARM_UP, &ProgressBar::hidden()).await?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_ns = since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    });
    fleet.customer(orders).await?;
    Ok(since_ns)
}

fn is_order_since(spans: &[Span], since_ns: u64) -> bool {
    spans.iter().all(|span| span.start_ns >= since_ns)
        && spans.iter().any(|span| span.name == ORDER)
}

fn whole(path: DemoPath, traces: BTreeMap<[u8; 16], Vec<Span>>) -> Vec<Trace> {
    let traces = traces.into_values().map(|spans| Trace {
        path: path.to_string(),
        spans,
    });
    traces.filter(Trace::is_whole).collect()
}
