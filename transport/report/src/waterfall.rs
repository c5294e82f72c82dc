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
    let own = told(span);
    if own.is_empty() && span.kind == SpanKind::Server {
        // Called from where nothing tells of it, as a gateway is.
        return vec![
            (span.start_ns, Mark::HandlerStarted),
            (span.end_ns, Mark::HandlerEnded),
        ];
    }
    let mut marks = vec![(span.start_ns, Mark::Began), (span.end_ns, Mark::Ended)];
    marks.extend(own);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;

    const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

    fn span(id: u8, parent: Option<u8>, kind: SpanKind, times_us: [u64; 2]) -> Span {
        let at = |us| EPOCH_NS + us * 1000;
        Span {
            trace_id: [1; 16],
            span_id: [id; 8],
            parent: parent.map(|parent| [parent; 8]),
            service: format!("service{id}"),
            name: format!("pkg.Service/Method{id}"),
            kind,
            start_ns: at(times_us[0]),
            end_ns: at(times_us[1]),
            events: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn with(mut span: Span, events: &[(&str, u64)]) -> Span {
        let events = events.iter().map(|(name, us)| Event {
            name: (*name).to_owned(),
            at_ns: EPOCH_NS + us * 1000,
        });
        span.events = events.collect();
        span
    }

    fn fall(spans: Vec<Span>) -> Waterfall {
        let path = "shm".to_owned();
        Waterfall::of(&Trace { path, spans }).unwrap()
    }

    fn steps(hop: &Hop) -> Vec<(&'static str, Phase, f64)> {
        let steps = hop.steps.iter();
        let steps = steps.map(|it| (it.mark.step(), it.phase, (it.to_ns - it.from_ns) / 1e3));
        steps.collect()
    }

    fn call() -> Vec<Span> {
        vec![
            with(
                span(2, Some(1), SpanKind::Server, [14, 80]),
                &[
                    ("handler ended", 70),
                    ("published", 80),
                    ("seen", 14),
                    ("handler started", 19),
                ],
            ),
            with(
                span(1, None, SpanKind::Client, [0, 100]),
                &[
                    ("encoded", 1),
                    ("published", 4),
                    ("answer seen", 92),
                    ("decoded", 95),
                ],
            ),
        ]
    }

    #[test]
    fn a_call_is_cut_where_either_end_says_that_something_was_done() {
        let fall = fall(call());
        assert!((fall.took_ns - 100_000.0).abs() < 1.0);
        let [hop] = &fall.hops[..] else {
            panic!("one row for both ends: {:?}", fall.hops)
        };
        assert_eq!(
            (&hop.service[..], &hop.name[..]),
            ("service2", "pkg.Service/Method1")
        );
        assert_eq!(
            steps(hop),
            [
                ("encode", Phase::Coding, 1.0),
                ("publish", Phase::Coding, 3.0),
                ("on the way", Phase::Way, 10.0),
                ("to its handler", Phase::Waiting, 5.0),
                ("handler", Phase::Handler, 51.0),
                ("publish answer", Phase::Coding, 10.0),
                ("on the way back", Phase::Way, 12.0),
                ("decode", Phase::Coding, 3.0),
                ("return", Phase::Coding, 5.0),
            ]
        );
    }

    #[test]
    fn calls_of_a_handler_stand_below_it_in_the_order_of_the_clock() {
        let mut spans = call();
        spans.push(span(5, Some(2), SpanKind::Client, [40, 60]));
        spans.push(span(3, Some(2), SpanKind::Client, [20, 35]));
        spans.push(span(4, Some(3), SpanKind::Internal, [22, 30]));
        let fall = fall(spans);
        let rows: Vec<_> = fall
            .hops
            .iter()
            .map(|hop| (hop.depth, &hop.service[..]))
            .collect();
        assert_eq!(
            rows,
            [
                (0, "service2"),
                (1, "service3"),
                (2, "service4"),
                (1, "service5")
            ]
        );
        assert!(fall.hops[2].steps.is_empty(), "no call");
    }

    #[test]
    fn ends_that_tell_of_no_step_still_show_who_worked() {
        let spans = vec![
            span(1, None, SpanKind::Client, [0, 100]),
            span(2, Some(1), SpanKind::Server, [30, 60]),
        ];
        assert_eq!(
            steps(&fall(spans).hops[0]),
            [
                ("to its handler", Phase::Way, 30.0),
                ("handler", Phase::Handler, 30.0),
                ("return", Phase::Way, 40.0),
            ]
        );
    }

    #[test]
    fn what_is_called_from_elsewhere_and_tells_of_no_step_is_a_handler() {
        let spans = vec![span(1, None, SpanKind::Server, [0, 100])];
        assert_eq!(
            steps(&fall(spans).hops[0]),
            [("handler", Phase::Handler, 100.0)]
        );
    }

    #[test]
    fn steps_never_leave_their_call_nor_run_backwards() {
        let mut spans = call();
        // Its clock is off, and it published after its caller had the answer.
        spans[0] = with(
            spans[0].clone(),
            &[("seen", 300), ("handler started", 2), ("published", 99)],
        );
        let fall = fall(spans);
        let mut at_ns = 0.0;
        for step in &fall.hops[0].steps {
            assert!(
                (step.from_ns - at_ns).abs() < 1e-9 && step.to_ns >= step.from_ns,
                "{step:?}"
            );
            at_ns = step.to_ns;
        }
        assert!((at_ns - 100_000.0).abs() < 1.0);
    }

    #[test]
    fn spans_that_are_each_others_parents_are_drawn_once_or_not_at_all() {
        let spans = vec![
            span(1, Some(2), SpanKind::Client, [0, 5]),
            span(2, Some(1), SpanKind::Client, [1, 4]),
            span(3, Some(9), SpanKind::Server, [2, 3]),
        ];
        let fall = fall(spans);
        assert_eq!(fall.hops.len(), 1, "the orphan alone is a first");
    }
}
