//! The way to a collector: OTLP over gRPC, from a thread of its own, each interval.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, WithExportConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};
use tokio::runtime::Handle;

use crate::Error;
use crate::export::Loss;

const ADVICE: &str = " (if it takes traces alone, say OTEL_METRICS_EXPORTER=none)";

/// A reader that sends to `endpoint`, each `interval` or as `OTEL_METRIC_EXPORT_INTERVAL` says; and the count of
/// what it could not send.
pub(super) fn reader(
    endpoint: &str,
    interval: Option<Duration>,
    runtime: &Handle,
) -> Result<(PeriodicReader<Outgoing>, Arc<Loss>), Error> {
    let _entered = runtime.enter();
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| Error::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        })?;
    let loss = Arc::new(Loss::new(endpoint, "metrics", ADVICE));
    let reader = PeriodicReader::builder(Outgoing {
        inner: exporter,
        runtime: runtime.clone(),
        loss: Arc::clone(&loss),
    });
    let reader = match interval {
        Some(interval) => reader.with_interval(interval),
        None => reader,
    };
    Ok((reader.build(), loss))
}

/// An exporter whose input and output is done on the export's own runtime, and that counts what the
/// collector does not take.
#[derive(Debug)]
pub(super) struct Outgoing {
    inner: MetricExporter,
    runtime: Handle,
    loss: Arc<Loss>,
}

impl PushMetricExporter for Outgoing {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut export = pin!(self.inner.export(metrics));
        let exported = std::future::poll_fn(|context| {
            let _entered = self.runtime.enter();
            export.as_mut().poll(context)
        });
        let exported: OTelSdkResult = exported.await;
        match &exported {
            Ok(()) => self.loss.recovered(),
            Err(error) => self.loss.add(1, error),
        }
        exported
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
