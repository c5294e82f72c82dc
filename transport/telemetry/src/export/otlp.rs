//! Spans as OTLP has them on the wire.
//!
//! A call's span is written field by field, out of what was noted. By way of OpenTelemetry's own types,
//! which hold a string for each name, it takes some 20,000 instructions more: as many as two calls.
//!
//! Source: [`opentelemetry/proto/trace/v1/trace.proto`][trace]; bytes as in [protobuf's encoding][bytes].
//!
//! [trace]: https://github.com/open-telemetry/opentelemetry-proto/blob/v1.10.0/opentelemetry/proto/trace/v1/trace.proto
//! [bytes]: https://protobuf.dev/programming-guides/encoding/

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use ringway::trace::TraceContext;

/// `ExportTraceServiceRequest`, of spans that are encoded: on the wire a message is a string of bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

/// Whose spans these are: the process, and the library that made them.
#[derive(Debug)]
pub(super) struct Origin {
    resource: Resource,
    schema_url: String,
    scope: InstrumentationScope,
}

impl Origin {
    pub(super) fn new(resource: &opentelemetry_sdk::Resource, scope: &'static str) -> Self {
        let resource =
            opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema::from(
                resource,
            );
        Self {
            resource: Resource {
                attributes: resource.attributes.0,
                ..Resource::default()
            },
            schema_url: resource.schema_url.unwrap_or_default(),
            scope: InstrumentationScope {
                name: scope.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            },
        }
    }

    pub(super) fn request(&self, spans: Vec<Bytes>) -> ExportRequest {
        ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(self.scope.clone()),
                    spans,
                }],
                schema_url: self.schema_url.clone(),
            }],
        }
    }
}

/// A span that OpenTelemetry's SDK made.
pub(super) fn of_sdk(span: SpanData) -> Bytes {
    Span::from(span).encode_to_vec().into()
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// A span that is being written.
#[derive(Debug)]
pub(crate) struct SpanWriter {
    fields: Fields,
}

/// Room for a call's span: it has 430 bytes or so.
const USUAL_BYTES: usize = 512;

impl SpanWriter {
    /// Writes who this span is; `parent_is_remote` says whether its parent is in another process.
    pub(crate) fn new(
        context: &TraceContext,
        parent: Option<[u8; 8]>,
        parent_is_remote: bool,
        kind: SpanKind,
    ) -> Self {
        let mut fields = Fields(Vec::with_capacity(USUAL_BYTES));
        fields.bytes(1, &context.trace_id());
        fields.bytes(2, &context.span_id());
        if let Some(parent) = parent {
            fields.bytes(4, &parent);
        }
        fields.number(6, kind as u64);
        let mut flags = u32::from(context.flags()) | SpanFlags::ContextHasIsRemoteMask as u32;
        if parent_is_remote {
            flags |= SpanFlags::ContextIsRemoteMask as u32;
        }
        fields.fixed32(16, flags);
        Self { fields }
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.fields.bytes(5, name.as_bytes());
    }

    pub(crate) fn times(&mut self, start: SystemTime, end: SystemTime) {
        self.fields.fixed64(7, nanoseconds(start));
        self.fields.fixed64(8, nanoseconds(end));
    }

    pub(crate) fn attribute(&mut self, key: &str, value: Value<'_>) {
        let value_len = match value {
            Value::Text(text) => len_of_bytes(text.len()),
            Value::Number(number) => 1 + len_of_varint(number.cast_unsigned()),
        };
        let len = len_of_bytes(key.len()) + len_of_bytes(value_len);
        self.fields.message(9, len);
        self.fields.bytes(1, key.as_bytes());
        self.fields.message(2, value_len);
        match value {
            Value::Text(text) => self.fields.bytes(1, text.as_bytes()),
            Value::Number(number) => self.fields.number(3, number.cast_unsigned()),
        }
    }

    pub(crate) fn event(&mut self, name: &str, at: SystemTime) {
        self.fields.message(11, 1 + 8 + len_of_bytes(name.len()));
        self.fields.fixed64(1, nanoseconds(at));
        self.fields.bytes(2, name.as_bytes());
    }

    pub(crate) fn error(&mut self, message: &str) {
        self.fields.message(15, len_of_bytes(message.len()) + 2);
        self.fields.bytes(2, message.as_bytes());
        self.fields.number(3, StatusCode::Error as u64);
    }

    pub(crate) fn finish(self) -> Bytes {
        self.fields.0.into()
    }
}

/// As OTLP counts time. What lies outside of it, which no clock shows, counts as its end.
fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Fields of a message, one after the other.
#[derive(Debug)]
struct Fields(Vec<u8>);

/// How the value of a field is written.
#[derive(Debug, Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

impl Fields {
    fn key(&mut self, number: u32, wire_type: WireType) {
        self.varint(u64::from(number << 3 | wire_type as u32));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            #[allow(clippy::cast_possible_truncation, reason = "seven bits are wanted")]
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        #[allow(clippy::cast_possible_truncation, reason = "no more are left")]
        self.0.push(value as u8);
    }

    fn number(&mut self, number: u32, value: u64) {
        self.key(number, WireType::Varint);
        self.varint(value);
    }

    fn fixed64(&mut self, number: u32, value: u64) {
        self.key(number, WireType::Fixed64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, number: u32, value: u32) {
        self.key(number, WireType::Fixed32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, number: u32, value: &[u8]) {
        self.message(number, value.len());
        self.0.extend_from_slice(value);
    }

    /// Begins a message: its fields are the next `len` bytes.
    fn message(&mut self, number: u32, len: usize) {
        self.key(number, WireType::Bytes);
        self.varint(len as u64);
    }
}

fn len_of_varint(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Of a field with a number below 16.
fn len_of_bytes(len: usize) -> usize {
    1 + len_of_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::trace::v1::Status;
    use opentelemetry_proto::tonic::trace::v1::span::Event;

    use super::*;

    const TRACE: [u8; 16] = [7; 16];
    const SPAN: [u8; 8] = [8; 8];

    fn written(parent: Option<[u8; 8]>, with: impl FnOnce(&mut SpanWriter)) -> Span {
        let context = TraceContext::new(TRACE, SPAN, 1).unwrap();
        let mut writer = SpanWriter::new(&context, parent, parent.is_some(), SpanKind::Server);
        with(&mut writer);
        Span::decode(writer.finish()).unwrap()
    }

    fn bare() -> Span {
        Span {
            trace_id: TRACE.to_vec(),
            span_id: SPAN.to_vec(),
            kind: SpanKind::Server.into(),
            flags: 0x101,
            ..Span::default()
        }
    }

    #[test]
    fn a_span_is_what_opentelemetry_reads() {
        assert_eq!(written(None, |_| ()), bare());
        let (start, end) = (Duration::new(1_700_000_000, 1), Duration::new(1, 999));
        let span = written(Some([9; 8]), |span| {
            span.name("shop.Catalog/Quote");
            span.times(UNIX_EPOCH + start, UNIX_EPOCH + end);
            span.event("seen", UNIX_EPOCH);
            span.event("handler started", UNIX_EPOCH + start);
            span.error("nothing of it");
        });
        let event = |name: &str, at: u64| Event {
            name: name.to_owned(),
            time_unix_nano: at,
            ..Event::default()
        };
        let start = 1_700_000_000_000_000_001;
        assert_eq!(
            span,
            Span {
                name: "shop.Catalog/Quote".to_owned(),
                parent_span_id: vec![9; 8],
                flags: 0x301,
                start_time_unix_nano: start,
                end_time_unix_nano: 1_000_000_999,
                events: vec![event("seen", 0), event("handler started", start)],
                status: Some(Status {
                    message: "nothing of it".to_owned(),
                    code: StatusCode::Error.into(),
                }),
                ..bare()
            }
        );
    }

    /// Around each length at which a length takes one byte more.
    #[test]
    fn attributes_of_any_length_are_read() {
        for len in [0, 1, 100, 110, 120, 127, 128, 129, 16_360, 16_384, 70_000] {
            let text = "x".repeat(len);
            let numbers = [0, 1, 127, 128, i64::MAX, -1];
            let span = written(None, |span| {
                span.attribute(&text, Value::Text("value"));
                span.attribute("key", Value::Text(&text));
                for number in numbers {
                    span.attribute("number", Value::Number(number));
                }
            });
            let attribute = |key: &str, value| KeyValue {
                key: key.to_owned(),
                value: Some(AnyValue { value: Some(value) }),
                ..KeyValue::default()
            };
            let string = |text: &str| any_value::Value::StringValue(text.to_owned());
            let mut attributes = vec![
                attribute(&text, string("value")),
                attribute("key", string(&text)),
            ];
            let number = |it| attribute("number", any_value::Value::IntValue(it));
            attributes.extend(numbers.map(number));
            assert_eq!(
                span,
                Span {
                    attributes,
                    ..bare()
                },
                "{len}"
            );
        }
    }

    /// What collectors read is what OpenTelemetry's own exporter sends.
    #[test]
    fn a_request_is_what_opentelemetry_reads() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        let resource = opentelemetry_sdk::Resource::builder_empty()
            .with_service_name("catalog")
            .build();
        let span = written(None, |span| span.name("one"));
        let spans = vec![span.encode_to_vec().into(); 2];
        let request = Origin::new(&resource, "ringway").request(spans);
        let request = ExportTraceServiceRequest::decode(&*request.encode_to_vec()).unwrap();
        let [of_resource] = &*request.resource_spans else {
            panic!("{request:?}");
        };
        let named = |it: &KeyValue| it.key == "service.name";
        assert!(
            of_resource
                .resource
                .as_ref()
                .unwrap()
                .attributes
                .iter()
                .any(named)
        );
        let [of_scope] = &*of_resource.scope_spans else {
            panic!("{request:?}");
        };
        assert_eq!(of_scope.scope.as_ref().unwrap().name, "ringway");
        assert_eq!(of_scope.spans, [span.clone(), span]);
    }
}
