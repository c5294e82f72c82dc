//! OTLP's spans as the page knows them.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as Otlp, span};

use crate::trace::{Event, Span, SpanKind};

/// The spans of one resource; without those whose ids are none.
pub(crate) fn spans(of: &ResourceSpans) -> impl Iterator<Item = Span> {
    let service = of.resource.iter().flat_map(|resource| &resource.attributes);
    let service = service.map(text).find(|(name, _)| name == "service.name");
    let service = service.map_or(String::new(), |(_, service)| service);
    let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans);
    spans.filter_map(move |span| read(span, &service))
}

fn read(span: &Otlp, service: &str) -> Option<Span> {
    let events = span.events.iter().map(|event| Event {
        name: event.name.clone(),
        at_ns: event.time_unix_nano,
    });
    Some(Span {
        trace_id: span.trace_id[..].try_into().ok()?,
        span_id: span.span_id[..].try_into().ok()?,
        parent: span.parent_span_id[..].try_into().ok(),
        service: service.to_owned(),
        name: span.name.clone(),
        kind: match span.kind() {
            span::SpanKind::Client | span::SpanKind::Producer => SpanKind::Client,
            span::SpanKind::Server | span::SpanKind::Consumer => SpanKind::Server,
            span::SpanKind::Internal | span::SpanKind::Unspecified => SpanKind::Internal,
        },
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        events: events.collect(),
        attributes: span.attributes.iter().map(text).collect(),
    })
}

/// Lists and maps have no place on a page.
fn text(attribute: &KeyValue) -> (String, String) {
    let value = match &attribute.value {
        Some(AnyValue { value: Some(value) }) => match value {
            Value::StringValue(text) => text.clone(),
            Value::BoolValue(it) => it.to_string(),
            Value::IntValue(it) => it.to_string(),
            Value::DoubleValue(it) => it.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    (attribute.key.clone(), value)
}
