//! Sends that are put off, so that one carries many frames.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::Stream;

thread_local! {
    /// Links that this thread is to flush.
    static PUT_OFF: RefCell<Vec<Arc<Stream>>> = const { RefCell::new(Vec::new()) };
}

/// Flushes `stream` when the pass that this thread is in ends.
pub(super) fn after_this_pass(stream: &Arc<Stream>) {
    PUT_OFF.with_borrow_mut(|streams| streams.push(Arc::clone(stream)));
}

/// Flushes `stream` when this thread's runtime has run every task that is ready now, or a pass
/// has ended on this thread; at once outside of a runtime's worker.
pub(super) fn after_ready_tasks(stream: &Arc<Stream>) {
    after_this_pass(stream);
    let waker = Waker::from(Arc::new(Flush));
    // Polled once, it hands our waker to the scheduler, which wakes it when it runs out of tasks.
    let yielding = pin!(tokio::task::yield_now());
    let _ = yielding.poll(&mut Context::from_waker(&waker));
}

/// Sends what this thread has put off.
pub(crate) fn flush_now() {
    while let Some(stream) = PUT_OFF.with_borrow_mut(Vec::pop) {
        stream.flush();
    }
}

struct Flush;

impl Wake for Flush {
    fn wake(self: Arc<Self>) {
        flush_now();
    }
}
