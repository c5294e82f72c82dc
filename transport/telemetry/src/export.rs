//! The way to the collector. Spans go into a bounded queue, and a thread takes them from there: a
//! call never waits for a collector, and what does not fit is lost, and counted. The runtime and the
//! count are the metrics' as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::{Handle, Runtime};

use crate::Error;
use crate::settings::variable;

/// Spans that wait for their export, where `OTEL_BSP_MAX_QUEUE_SIZE` says nothing. At a thousand
/// sampled calls a second these are the spans of some seconds; they take about 10 MiB at most.
const DEFAULT_QUEUE_SPANS: usize = 8_192;

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

/// Sends spans to `endpoint`, counting what is lost.
pub(crate) fn spans(endpoint: &str, resource: &Resource, runtime: &Handle) -> Result<Gate, Error> {
    let _entered = runtime.enter();
    let mut exporter = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| Error::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        })?;
    exporter.set_resource(resource);
    let stated = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|size| size.parse().ok());
    let loss = Arc::new(Loss::new(endpoint, "spans", ""));
    Ok(Gate::new(
        exporter,
        runtime,
        stated.unwrap_or(DEFAULT_QUEUE_SPANS),
        loss,
    ))
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

/// The queue's entrance: lets in as many spans as it holds, so that each one that is lost is counted
/// here, and nowhere else.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    batches: Arc<BatchSpanProcessor>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Spans in the queue and in the batch that is being sent.
    waiting: AtomicUsize,
    capacity: usize,
    loss: Arc<Loss>,
}

impl Gate {
    fn new<E>(exporter: E, runtime: &Handle, capacity: usize, loss: Arc<Loss>) -> Self
    where
        E: SpanExporter + 'static,
    {
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            capacity,
            loss,
        });
        let exporter = Counting {
            inner: Arc::new(exporter),
            runtime: runtime.clone(),
            shared: Arc::clone(&shared),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(capacity)
            .build();
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        Self {
            batches: Arc::new(batches),
            shared,
        }
    }

    pub(crate) fn loss(&self) -> &Arc<Loss> {
        &self.shared.loss
    }
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) < self.shared.capacity {
            self.batches.on_end(span);
        } else {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.loss.add(1, &"the queue is full");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// An exporter that counts what it loses, and whose work is done on the export's own thread.
#[derive(Debug)]
struct Counting<E> {
    inner: Arc<E>,
    runtime: Handle,
    shared: Arc<Shared>,
}

impl<E: SpanExporter + 'static> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let inner = Arc::clone(&self.inner);
        let exported = self.runtime.spawn(async move { inner.export(batch).await });
        let exported = exported
            .await
            .unwrap_or_else(|panicked| Err(OTelSdkError::InternalFailure(panicked.to_string())));
        self.shared.waiting.fetch_sub(spans, Ordering::Relaxed);
        match &exported {
            Ok(()) => self.shared.loss.recovered(),
            Err(error) => self.shared.loss.add(spans, error),
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    /// A collector that takes nothing, or everything, or never answers.
    #[derive(Debug, Clone, Default)]
    struct Collector {
        refuses: Arc<AtomicBool>,
        hangs: Arc<AtomicBool>,
        kept: Arc<Mutex<usize>>,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.refuses.load(Ordering::SeqCst) {
                return Err(OTelSdkError::InternalFailure("refused".to_owned()));
            }
            *self.kept.lock().unwrap() += batch.len();
            Ok(())
        }
    }

    fn span() -> SpanData {
        let now = std::time::SystemTime::now();
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "tested".into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    fn gate(collector: &Collector, runtime: &ExportRuntime, capacity: usize) -> Gate {
        let loss = Arc::new(Loss::new("tested", "spans", ""));
        Gate::new(collector.clone(), runtime.handle(), capacity, loss)
    }

    #[test]
    fn each_span_is_kept_or_counted_as_lost() {
        let (collector, runtime) = (Collector::default(), ExportRuntime::start().unwrap());
        let gate = gate(&collector, &runtime, 8);
        let send = |count: usize| {
            (0..count).for_each(|_| gate.on_end(span()));
            // A refusal is no failure of the flush.
            let _ = gate.force_flush();
        };
        send(8);
        assert_eq!(
            (*collector.kept.lock().unwrap(), gate.loss().count()),
            (8, 0)
        );
        collector.refuses.store(true, Ordering::SeqCst);
        send(5);
        assert_eq!(
            (*collector.kept.lock().unwrap(), gate.loss().count()),
            (8, 5)
        );
        assert!(gate.loss().said.load(Ordering::SeqCst));
        collector.refuses.store(false, Ordering::SeqCst);
        send(3);
        assert_eq!(
            (*collector.kept.lock().unwrap(), gate.loss().count()),
            (11, 5)
        );
        assert!(!gate.loss().said.load(Ordering::SeqCst));
    }

    #[test]
    fn behind_a_collector_that_hangs_no_more_wait_than_the_queue_holds() {
        let (collector, runtime) = (Collector::default(), ExportRuntime::start().unwrap());
        collector.hangs.store(true, Ordering::SeqCst);
        let gate = gate(&collector, &runtime, 8);
        (0..100).for_each(|_| gate.on_end(span()));
        assert_eq!(gate.loss().count(), 92);
        let begin = std::time::Instant::now();
        let limit = Duration::from_millis(50);
        gate.shutdown_with_timeout(limit).unwrap_err();
        assert!(begin.elapsed() < 20 * limit);
    }
}
