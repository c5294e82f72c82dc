//! A tokio runtime for callers that have none: futures of channels may be polled by any executor, and a connection
//! may outlive the runtime that made it.
//!
//! It has one thread, which is started when it is first needed and ends with the process.

use std::future::Future;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::{pin::Pin, thread};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::task::JoinHandle;

/// The runtime at hand: the current one, or else the process's own.
///
/// # Panics
/// Outside of a runtime, where neither descriptors nor a thread for one can be had.
pub fn at_hand() -> Handle {
    Handle::try_current().unwrap_or_else(|_| own().clone())
}

/// Enters the process's own runtime, where there is no current one, until the guard is dropped.
#[must_use]
pub fn enter() -> Option<EnterGuard<'static>> {
    match Handle::try_current() {
        Ok(_) => None,
        Err(_) => Some(own().enter()),
    }
}

/// Spawns a task in the runtime at hand.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    at_hand().spawn(future)
}

/// Polls a future inside the process's own runtime wherever there is no current one.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Anywhere<F>(F);

/// Has `future` polled inside the process's own runtime wherever there is no current one.
pub fn anywhere<F: Future + Unpin>(future: F) -> Anywhere<F> {
    Anywhere(future)
}

impl<F: Future + Unpin> Future for Anywhere<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _around = enter();
        Pin::new(&mut self.0).poll(context)
    }
}

/// Returns true if it is the process's own.
pub(crate) fn is_own(runtime: &Handle) -> bool {
    OWN.get().is_some_and(|own| own.id() == runtime.id())
}

static OWN: OnceLock<Handle> = OnceLock::new();

/// The process's own runtime; the first caller starts it.
pub(crate) fn own() -> &'static Handle {
    OWN.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("ringway: no tokio runtime here, and none can be made");
        let handle = runtime.handle().clone();
        let serve = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new()
            .name("ringway-runtime".to_owned())
            .spawn(serve)
            .expect("ringway: no tokio runtime here, and no thread can be started for one");
        handle
    })
}
