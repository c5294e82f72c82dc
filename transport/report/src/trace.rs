//! A call or an order as its spans, in the terms of OpenTelemetry.

/// All spans of one call, or of one order with the calls that it took.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The path that was chosen, as the command line has it.
    pub path: String,
    /// In any order.
    pub spans: Vec<Span>,
}

/// One operation of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own.
    pub span_id: [u8; 8],
    /// The span that it is part of; none for the first of a trace.
    pub parent: Option<[u8; 8]>,
    /// The resource's `service.name`.
    pub service: String,
    /// Of a call: its service and method, `shop.v1.Orders/Place`.
    pub name: String,
    /// Which end of a call it is.
    pub kind: SpanKind,
    /// When it began, ns since 1970.
    pub start_ns: u64,
    /// When it ended, ns since 1970.
    pub end_ns: u64,
    /// The steps in between, in any order.
    pub events: Vec<Event>,
    /// Names and values.
    pub attributes: Vec<(String, String)>,
}

/// Which end of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The caller's.
    Client,
    /// The callee's.
    Server,
    /// Neither.
    Internal,
}

/// A moment in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `published`, `handler started`.
    pub name: String,
    /// ns since 1970.
    pub at_ns: u64,
}

impl Span {
    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &value[..])
    }
}
