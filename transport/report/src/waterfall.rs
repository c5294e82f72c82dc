//! A trace as rows of steps, in the order of the clock.
//!
//! A call has two spans, the caller's and the callee's; a row is both of them, cut into steps where
//! either says that something was done.

use std::collections::BTreeSet;

use crate::page::float;
use crate::trace::{Span, SpanKind, Trace};

/// Deeper than any application's calls: what lies deeper is left out.
const DEPTH_MAX: usize = 32;

/// A trace, its times counted from its start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waterfall {
    pub(crate) took_ns: f64,
    pub(crate) hops: Vec<Hop>,
}

/// A call, or an operation that is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hop {
    pub(crate) depth: usize,
    pub(crate) service: String,
    pub(crate) name: String,
    /// The path taken, where the spans say so.
    pub(crate) path: Option<String>,
    pub(crate) from_ns: f64,
    pub(crate) to_ns: f64,
    /// Without a gap from `from_ns` to `to_ns`; none for what is no call.
    pub(crate) steps: Vec<Step>,
}

/// What went on between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) mark: Mark,
    pub(crate) phase: Phase,
    pub(crate) from_ns: f64,
    pub(crate) to_ns: f64,
}

/// The moments of a call, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Began,
    Encoded,
    Published,
    Seen,
    HandlerStarted,
    HandlerEnded,
    AnswerPublished,
    AnswerSeen,
    Decoded,
    Ended,
}

/// Who is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Messages become bytes, and bytes messages.
    Coding,
    /// Between the processes: carried, waited for, woken.
    Way,
    /// Seen, but not yet worked on.
    Waiting,
    /// In the handler, with the calls that it makes.
    Handler,
}

impl Waterfall {
    /// The rows of `trace`; none if it has no span.
    pub(crate) fn of(trace: &Trace) -> Option<Self> {
        let began_ns = trace.spans.iter().map(|span| span.start_ns).min()?;
        let ended_ns = trace.spans.iter().map(|span| span.end_ns).max()?;
        let mut rows = Rows {
            spans: in_order(&trace.spans),
            began_ns,
            drawn: BTreeSet::new(),
            hops: Vec::new(),
        };
        let known: BTreeSet<_> = trace.spans.iter().map(|span| span.span_id).collect();
        let is_first = |span: &&Span| span.parent.is_none_or(|parent| !known.contains(&parent));
        for first in rows.spans.clone().into_iter().filter(is_first) {
            rows.add(first, 0);
        }
        Some(Self {
            took_ns: float(ended_ns.saturating_sub(began_ns)),
            hops: rows.hops,
        })
    }
}

impl Mark {
    /// The step that ends here.
    pub(crate) fn step(self) -> &'static str {
        match self {
            Mark::Began => "before",
            Mark::Encoded => "encode",
            Mark::Published => "publish",
            Mark::Seen => "on the way",
            Mark::HandlerStarted => "to its handler",
            Mark::HandlerEnded => "handler",
            Mark::AnswerPublished => "publish answer",
            Mark::AnswerSeen => "on the way back",
            Mark::Decoded => "decode",
            Mark::Ended => "return",
        }
    }

    fn of(kind: SpanKind, event: &str) -> Option<Self> {
        Some(match (kind, event) {
            (SpanKind::Client, "encoded") => Mark::Encoded,
            (SpanKind::Client, "published") => Mark::Published,
            (SpanKind::Client, "answer seen") => Mark::AnswerSeen,
            (SpanKind::Client, "decoded") => Mark::Decoded,
            (SpanKind::Server, "seen") => Mark::Seen,
            (SpanKind::Server, "handler started") => Mark::HandlerStarted,
            (SpanKind::Server, "handler ended") => Mark::HandlerEnded,
            (SpanKind::Server, "published") => Mark::AnswerPublished,
            _ => return None,
        })
    }

    fn is_callees(self) -> bool {
        matches!(
            self,
            Mark::Seen | Mark::HandlerStarted | Mark::HandlerEnded | Mark::AnswerPublished
        )
    }

    /// What goes on from `earlier` until here.
    fn phase_since(self, earlier: Mark) -> Phase {
        match self {
            Mark::HandlerEnded => Phase::Handler,
            _ if self.is_callees() != earlier.is_callees() => Phase::Way,
            Mark::HandlerStarted => Phase::Waiting,
            _ => Phase::Coding,
        }
    }
}

struct Rows<'a> {
    spans: Vec<&'a Span>,
    began_ns: u64,
    drawn: BTreeSet<[u8; 8]>,
    hops: Vec<Hop>,
}

impl<'a> Rows<'a> {
    /// Adds the row of `span`, then the rows of what it is made of.
    fn add(&mut self, span: &'a Span, depth: usize) {
        if depth > DEPTH_MAX || !self.drawn.insert(span.span_id) {
            return;
        }
        let callee = match span.kind {
            SpanKind::Client => self.callee_of(span),
            SpanKind::Server | SpanKind::Internal => None,
        };
        self.drawn.extend(callee.map(|callee| callee.span_id));
        self.hops.push(self.hop(span, callee, depth));
        let parents = [Some(span.span_id), callee.map(|callee| callee.span_id)];
        for part in self.spans.clone() {
            if part.parent.is_some() && parents.contains(&part.parent) {
                self.add(part, depth + 1);
            }
        }
    }

    fn callee_of(&self, caller: &Span) -> Option<&'a Span> {
        let answers =
            |span: &&Span| span.kind == SpanKind::Server && span.parent == Some(caller.span_id);
        self.spans.iter().copied().find(answers)
    }

    fn hop(&self, span: &Span, callee: Option<&Span>, depth: usize) -> Hop {
        let ends = [Some(span), callee];
        let path = ends
            .iter()
            .flatten()
            .find_map(|end| end.attribute("ringway.path"));
        Hop {
            depth,
            service: callee.unwrap_or(span).service.clone(),
            name: span.name.clone(),
            path: path.map(str::to_owned),
            from_ns: self.since_start(span.start_ns),
            to_ns: self.since_start(span.end_ns),
            steps: match span.kind {
                SpanKind::Internal => Vec::new(),
                SpanKind::Client | SpanKind::Server => self.steps(span, callee),
            },
        }
    }

    fn steps(&self, span: &Span, callee: Option<&Span>) -> Vec<Step> {
        let mut marks = marks(span, callee);
        for (at_ns, _) in &mut marks {
            *at_ns = (*at_ns).clamp(span.start_ns, span.end_ns.max(span.start_ns));
        }
        marks.sort_unstable();
        let between = marks.windows(2).map(|pair| {
            let [(from_ns, earlier), (to_ns, mark)] = [pair[0], pair[1]];
            Step {
                mark,
                phase: mark.phase_since(earlier),
                from_ns: self.since_start(from_ns),
                to_ns: self.since_start(to_ns),
            }
        });
        between.collect()
    }

    fn since_start(&self, at_ns: u64) -> f64 {
        float(at_ns.saturating_sub(self.began_ns))
    }
}

/// The moments of a call that its spans tell of. A callee that tells of none was seen when its span
/// began and had answered when it ended.
fn marks(span: &Span, callee: Option<&Span>) -> Vec<(u64, Mark)> {
    let told = |span: &Span| -> Vec<(u64, Mark)> {
        let marks = span.events.iter();
        let marks =
            marks.filter_map(|event| Some((event.at_ns, Mark::of(span.kind, &event.name)?)));
        marks.collect()
    };
    let mut marks = vec![(span.start_ns, Mark::Began), (span.end_ns, Mark::Ended)];
    marks.extend(told(span));
    if let Some(callee) = callee {
        let theirs = told(callee);
        if theirs.is_empty() {
            marks.push((callee.start_ns, Mark::HandlerStarted));
            marks.push((callee.end_ns, Mark::HandlerEnded));
        }
        marks.extend(theirs);
    }
    marks
}

/// By the clock; ids make it the same each time.
fn in_order(spans: &[Span]) -> Vec<&Span> {
    let mut spans: Vec<&Span> = spans.iter().collect();
    spans.sort_by_key(|span| (span.start_ns, span.span_id));
    spans
}
