//! What a call that is being handled passes on to the calls that it makes: its deadline, its end,
//! and metadata of the application's choice.
//!
//! It is set around each poll of a handler and of its response stream: a swap of a few words in
//! thread-local storage. The token that tells of the call's end is made when somebody first asks.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use ringway_local::clock;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::trace::{TRACESTATE, Trace, TraceContext};

/// What handling a call means for the calls that it makes.
///
/// Calls made while a handler or its response stream is polled pass on the handler's deadline by
/// themselves. A task of its own has to take the context along:
///
/// ```
/// # async fn refresh() {}
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let context = ringway::Context::current();
/// // Calls of `refresh` have the deadline of this call, and end with it.
/// tokio::spawn(async move { context.until_over(refresh()).await });
/// # }
/// ```
///
/// Outside of any call the context says nothing: no deadline, and never over.
#[derive(Clone, Default)]
pub struct Context {
    caller: Caller,
    deadline: Option<Instant>,
    shared: Option<Arc<Shared>>,
    trace: Trace,
}

/// Whether a call is being handled, and whose; small, since each handler's future has one.
#[derive(Clone, Default)]
enum Caller {
    /// There is no call.
    #[default]
    None,
    /// Nothing is known of who made it.
    Unknown,
    Process {
        uid: u32,
        gid: u32,
        /// Zero where it is not visible from here.
        pid: u32,
    },
    Network(Arc<SocketAddr>),
}

/// What is made when somebody asks for it.
#[derive(Default)]
struct Shared {
    over: CancellationToken,
    outgoing: MetadataMap,
}

/// Who made a call, as far as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A process of this host.
    Process {
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Process id, where it is visible from here. For messages only: pids are used again.
        pid: Option<u32>,
    },
    /// The other end of a TCP connection.
    Network(SocketAddr),
}

thread_local! {
    static CURRENT: RefCell<Context> = const {
        RefCell::new(Context {
            caller: Caller::None,
            deadline: None,
            shared: None,
            trace: Trace::None,
        })
    };
}

impl Context {
    /// The context of the call that is being handled here.
    pub fn current() -> Self {
        CURRENT.with_borrow_mut(|current| {
            // The handler takes it back, to tell of the call's end.
            if !matches!(current.caller, Caller::None) && current.shared.is_none() {
                current.shared = Some(Arc::default());
            }
            current.clone()
        })
    }

    pub(crate) fn of_call(deadline: Option<Instant>, peer: Option<Peer>, trace: Trace) -> Self {
        let caller = match peer {
            None => Caller::Unknown,
            Some(Peer::Process { uid, gid, pid }) => Caller::Process {
                uid,
                gid,
                pid: pid.unwrap_or(0),
            },
            Some(Peer::Network(address)) => Caller::Network(Arc::new(address)),
        };
        Self {
            caller,
            deadline,
            shared: None,
            trace,
        }
    }

    /// Whether a call is being handled here.
    pub(crate) fn is_set() -> bool {
        CURRENT.with_borrow(|current| !matches!(current.caller, Caller::None))
    }

    /// The same as [`Self::current`] for whoever only passes it on.
    pub(crate) fn inherited() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// When the call has to be over.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time left until the deadline; zero once it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(clock::now()))
    }

    /// Who made the call; `None` on the `inproc` and `pipe` paths, whose ends know each other.
    pub fn peer(&self) -> Option<Peer> {
        match &self.caller {
            Caller::None | Caller::Unknown => None,
            Caller::Process { uid, gid, pid } => Some(Peer::Process {
                uid: *uid,
                gid: *gid,
                pid: (*pid != 0).then_some(*pid),
            }),
            Caller::Network(address) => Some(Peer::Network(**address)),
        }
    }

    /// The trace that the call belongs to, and that those belong to which its handler makes.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace.context().copied()
    }

    /// The same with another trace, for programs that make their spans by themselves.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.trace = Trace::Passing(trace);
        self
    }

    /// The same with a `tracestate`, which goes where the trace goes.
    #[inline]
    pub(crate) fn with_trace_state(self, state: Option<AsciiMetadataValue>) -> Self {
        let Some(state) = state else { return self };
        let mut outgoing = MetadataMap::new();
        outgoing.insert(TRACESTATE, state);
        self.with_metadata(outgoing)
    }

    /// What is recorded of the call.
    pub(crate) fn recorded(&self) -> &Trace {
        &self.trace
    }

    /// The same with a deadline `timeout` from now, unless the call's own is earlier.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        let asked = clock::now().checked_add(timeout);
        self.deadline = self.deadline.into_iter().chain(asked).min();
        self
    }

    /// The same with metadata that each call made in its [scope](Self::scope) carries, beside its
    /// own; a call's own entry of the same name wins.
    #[must_use]
    pub fn with_metadata(mut self, outgoing: MetadataMap) -> Self {
        let over = self.shared.map(|shared| shared.over.clone());
        let over = over.unwrap_or_default();
        self.shared = Some(Arc::new(Shared { over, outgoing }));
        self
    }

    /// Whether the call is over: answered, given up by its caller, or past its deadline.
    pub fn is_over(&self) -> bool {
        let over = |shared: &Arc<Shared>| shared.over.is_cancelled();
        self.shared.as_ref().is_some_and(over)
    }

    /// Waits until the call is over. Outside of a call that is for ever.
    pub async fn over(&self) {
        match &self.shared {
            Some(shared) => shared.over.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Runs `future` in this context.
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped {
            context: self.clone(),
            inner: future,
        }
    }

    /// Runs `future` in this context until the call is over; `None` if that comes first.
    pub async fn until_over<F: Future>(&self, future: F) -> Option<F::Output> {
        let (over, running) = (pin!(self.over()), pin!(self.scope(future)));
        match select(running, over).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("deadline", &self.deadline)
            .field("peer", &self.peer())
            .field("over", &self.is_over())
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// Has `look` look at the trace of the call that is being handled here.
#[inline]
pub(crate) fn with_trace<T>(look: impl FnOnce(&Trace) -> T) -> T {
    CURRENT.with_borrow(|current| look(&current.trace))
}

/// What the call that is being handled here means for one that it makes: adds to `metadata`, and
/// returns the deadline.
pub(crate) fn pass_on(metadata: &mut MetadataMap) -> Option<Instant> {
    CURRENT.with_borrow(|current| {
        if let Some(shared) = &current.shared
            && !shared.outgoing.is_empty()
        {
            add_outgoing(&shared.outgoing, metadata);
        }
        current.deadline
    })
}

fn add_outgoing(outgoing: &MetadataMap, metadata: &mut MetadataMap) {
    let own = std::mem::take(metadata).into_headers();
    let mut headers = outgoing.clone().into_headers();
    for name in own.keys() {
        headers.remove(name);
    }
    headers.extend(own);
    *metadata = MetadataMap::from_headers(headers);
}

pin_project_lite::pin_project! {
    /// A future that runs in a [`Context`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        context: Context,
        #[pin]
        inner: F,
    }
}

impl<F> fmt::Debug for Scoped<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context.fmt(formatter)
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::joining(this.context);
        this.inner.poll(context)
    }
}

/// A context that is current until this is dropped, also by a panic.
pub(crate) struct Entered<'a> {
    context: &'a mut Context,
    /// Keeps the call's span the current one.
    _span: Option<Box<dyn Any>>,
}

impl<'a> Entered<'a> {
    pub(crate) fn new(context: &'a mut Context) -> Self {
        let span = context.trace.span().map(|span| span.enter());
        Self::with(context, span)
    }

    /// For work on behalf of a call, beside its handler.
    fn joining(context: &'a mut Context) -> Self {
        let span = context.trace.span().and_then(|span| span.join());
        Self::with(context, span)
    }

    fn with(context: &'a mut Context, _span: Option<Box<dyn Any>>) -> Self {
        let entered = Self { context, _span };
        entered.swap_contexts()
    }

    fn swap_contexts(mut self) -> Self {
        self.swap();
        self
    }

    fn swap(&mut self) {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self.context));
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.swap();
        if let Trace::Recorded(span) = &self.context.trace
            && std::thread::panicking()
        {
            span.end(Code::Internal, "the handler panicked");
        }
    }
}

/// The context of a call, held by what handles it: dropped, the call is over.
#[derive(Debug, Default)]
pub(crate) struct Handling(pub(crate) Context);

impl Drop for Handling {
    fn drop(&mut self) {
        if let Some(shared) = &self.0.shared {
            shared.over.cancel();
        }
        if let Trace::Recorded(span) = &self.0.trace {
            // Only if nothing else has ended it.
            match self.0.time_left() {
                Some(Duration::ZERO) => span.end(Code::DeadlineExceeded, "Timeout expired"),
                _ => span.end(Code::Cancelled, "the call was given up"),
            }
        }
    }
}

pin_project_lite::pin_project! {
    /// A future that handles a call.
    pub(crate) struct Handled<F> {
        handling: Handling,
        #[pin]
        inner: F,
    }
}

impl<F: Future> Handled<F> {
    pub(crate) fn new(context: Context, inner: F) -> Self {
        Self {
            handling: Handling(context),
            inner,
        }
    }
}

impl<F> Handled<F> {
    /// What handles it.
    pub(crate) fn inner(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().inner
    }
}

impl<F: Future> Future for Handled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::new(&mut this.handling.0);
        this.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current_deadline() -> Option<Instant> {
        pass_on(&mut MetadataMap::new())
    }

    fn call_within(timeout: Duration) -> Context {
        Context::of_call(clock::now().checked_add(timeout), None, Trace::None)
    }

    #[tokio::test]
    async fn a_context_is_current_while_its_future_is_polled_and_only_then() {
        assert_eq!(current_deadline(), None);
        let call = call_within(Duration::from_secs(5));
        let stated = call.deadline();
        Handled::new(call, async {
            assert_eq!(current_deadline(), stated);
            let narrower = Context::current().with_timeout(Duration::from_secs(1));
            narrower
                .scope(async {
                    assert!(current_deadline() < stated);
                })
                .await;
            tokio::task::yield_now().await;
            assert_eq!(Context::current().deadline(), stated);
        })
        .await;
        assert_eq!(current_deadline(), None);
    }

    #[tokio::test]
    async fn whoever_asked_learns_that_the_call_is_over() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let handled = Handled::new(call_within(Duration::from_secs(5)), async {
            sender.send(Context::current()).unwrap();
            std::future::pending::<()>().await;
        });
        let handling = tokio::spawn(handled);
        let context = receiver.await.unwrap();
        assert!(!context.is_over());
        handling.abort();
        assert_eq!(context.until_over(std::future::pending::<()>()).await, None);
        assert!(context.is_over());
    }

    #[test]
    fn a_panic_leaves_no_context_behind() {
        let handled = Handled::new(call_within(Duration::from_secs(5)), async {
            panic!("of the handler");
        });
        let mut handled = Box::pin(handled);
        let mut context = task::Context::from_waker(task::Waker::noop());
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ready: task::Poll<()> = handled.as_mut().poll(&mut context);
        }));
        polled.unwrap_err();
        assert_eq!(current_deadline(), None);
    }

    #[tokio::test]
    async fn a_call_s_own_metadata_wins() {
        let mut outgoing = MetadataMap::new();
        outgoing.insert("x-tenant", "7".parse().unwrap());
        outgoing.insert("x-user", "ada".parse().unwrap());
        let context = Context::default().with_metadata(outgoing);
        let mut own = MetadataMap::new();
        own.insert("x-user", "grace".parse().unwrap());
        context.scope(async { pass_on(&mut own) }).await;
        assert_eq!(own.get("x-tenant").unwrap(), "7");
        let users: Vec<_> = own.get_all("x-user").iter().collect();
        assert_eq!(users, ["grace"]);
    }
}
