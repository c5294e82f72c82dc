//! What happens on behalf of calls that are not recorded: the program's own spans are none of any
//! trace then, also in tasks that a handler starts.
//!
//! A handler's spans are left out because it is known that an unsampled call is handled here. A task
//! that it starts is known by the `tracing` span that it runs in, which was made in the handler.

use std::cell::RefCell;

use ringway::trace::{self, TraceContext};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// The traces of the marked spans that this thread is in.
    static ENTERED: RefCell<Vec<TraceContext>> = const { RefCell::new(Vec::new()) };
}

/// The unsampled trace that what happens here belongs to, where no call is handled.
pub(crate) fn here() -> Option<TraceContext> {
    ENTERED.with_borrow(|entered| entered.last().copied())
}

/// Whether spans made here belong to a trace that is recorded, or may begin one.
pub(crate) fn may_record<S>(_metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
    match trace::here() {
        Some(trace) => trace.is_sampled(),
        None => here().is_none(),
    }
}

/// Marks the spans that are made on behalf of an unsampled call.
#[derive(Debug)]
pub(crate) struct Mark;

/// The mark.
struct Of(TraceContext);

impl<S> Layer<S> for Mark
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let unsampled = match trace::here() {
            Some(trace) => Some(trace).filter(|trace| !trace.is_sampled()),
            None => here(),
        };
        if let (Some(trace), Some(span)) = (unsampled, context.span(id)) {
            span.extensions_mut().insert(Of(trace));
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(trace) = mark(id, &context) {
            ENTERED.with_borrow_mut(|entered| entered.push(trace));
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if mark(id, &context).is_some() {
            ENTERED.with_borrow_mut(Vec::pop);
        }
    }
}

fn mark<S>(id: &Id, context: &Context<'_, S>) -> Option<TraceContext>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let span = context.span(id)?;
    span.extensions().get::<Of>().map(|of| of.0)
}
