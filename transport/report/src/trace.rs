//! A call or an order as its spans, in the terms of OpenTelemetry.

use std::collections::BTreeSet;

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

impl Trace {
    /// Whether no span is missing as far as the others tell: one is the first, every other has its
    /// parent, every call its callee's part.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let ids: BTreeSet<[u8; 8]> = self.spans.iter().map(|span| span.span_id).collect();
        let firsts = self.spans.iter().filter(|span| span.parent.is_none());
        let mut parents = self.spans.iter().filter_map(|span| span.parent);
        let served: BTreeSet<[u8; 8]> = self
            .spans
            .iter()
            .filter(|span| span.kind == SpanKind::Server)
            .filter_map(|span| span.parent)
            .collect();
        let mut calls = self
            .spans
            .iter()
            .filter(|span| span.kind == SpanKind::Client);
        firsts.count() == 1
            && parents.all(|parent| ids.contains(&parent))
            && calls.all(|call| served.contains(&call.span_id))
    }

    /// How long it took from its first moment to its last, ns.
    #[must_use]
    pub fn took_ns(&self) -> u64 {
        let began = self.spans.iter().map(|span| span.start_ns).min();
        let ended = self.spans.iter().map(|span| span.end_ns).max();
        ended.unwrap_or(0).saturating_sub(began.unwrap_or(0))
    }

    /// The one that took the median time; none of none.
    #[must_use]
    pub fn typical(mut traces: Vec<Trace>) -> Option<Trace> {
        traces.sort_by_key(Trace::took_ns);
        let middle = traces.len() / 2;
        traces.into_iter().nth(middle)
    }
}

impl Span {
    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &value[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u8, parent: Option<u8>, kind: SpanKind, end_ns: u64) -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [id; 8],
            parent: parent.map(|parent| [parent; 8]),
            service: String::new(),
            name: String::new(),
            kind,
            start_ns: 1,
            end_ns,
            events: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        let path = "shm".to_owned();
        Trace { path, spans }
    }

    #[test]
    fn a_trace_that_lost_a_span_is_not_whole() {
        use SpanKind::{Client, Internal, Server};
        let whole = vec![
            span(1, None, Internal, 9),
            span(2, Some(1), Client, 9),
            span(3, Some(2), Server, 9),
        ];
        assert!(trace(whole.clone()).is_whole());
        for lost in 0..whole.len() {
            let mut torn = whole.clone();
            torn.remove(lost);
            let is_whole = trace(torn).is_whole();
            assert!(!is_whole, "without span {lost}");
        }
        assert!(!trace(Vec::new()).is_whole());
    }

    #[test]
    fn the_typical_one_is_the_median() {
        let took = |ns: u64| trace(vec![span(1, None, SpanKind::Internal, 1 + ns)]);
        let typical = Trace::typical(vec![took(900), took(5), took(70)]).unwrap();
        assert_eq!(typical.took_ns(), 70);
        assert!(Trace::typical(Vec::new()).is_none());
    }
}
