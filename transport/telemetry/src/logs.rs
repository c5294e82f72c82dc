//! Logs: a line an event, with the trace's id in front where one is recorded.

use std::fmt;

use opentelemetry_sdk::trace::SdkTracer;
use ringway::trace;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, dynamic_filter_fn, filter_fn};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::spans::of_otel;
use crate::{Error, unsampled};

/// What the export itself runs through: spans of it would be exported in turn, without end.
const OF_THE_EXPORT: [&str; 6] = [
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "tonic",
    "tower",
];

/// Installs the process's subscriber: logs to standard error, spans to `tracer`.
pub(crate) fn install(tracer: Option<SdkTracer>) -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(WithTrace(Format::default()))
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(
                filter_fn(is_of_the_program)
                    .and(LevelFilter::INFO)
                    .and(dynamic_filter_fn(unsampled::may_record)),
            )
    });
    let mark = spans.is_some().then_some(unsampled::Mark);
    tracing_subscriber::registry()
        .with(mark)
        .with(spans)
        .with(lines)
        .try_init()?;
    Ok(())
}

fn is_of_the_program(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    !OF_THE_EXPORT.contains(&crate_name) && !crate_name.starts_with("opentelemetry")
}

/// A line with the id of the trace that it belongs to in front.
struct WithTrace(Format);

impl<S, N> FormatEvent<S, N> for WithTrace
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let otel = || opentelemetry::Context::map_current(of_otel);
        if let Some(trace) = trace::here().or_else(otel) {
            let trace_id = trace.trace_number();
            write!(writer, "trace_id={trace_id:032x} ")?;
        }
        self.0.format_event(context, writer, event)
    }
}
