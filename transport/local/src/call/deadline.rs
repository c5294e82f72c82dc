//! A call's deadline at its client's end.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

use tokio::time::Sleep;

use crate::clock;
use crate::runtime;

/// The time at which a call has to be over, by the clock of the runtime that polls it: where the driver's own timer
/// can't keep it, because the call is not open yet, or is made from another runtime. A timer is set only by a call
/// that waits.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline at a time; with `None`, one that never passes.
    pub(super) fn at(at: Option<Instant>) -> Self {
        Self { at, timer: None }
    }

    /// Returns true if it has passed by the clock: what is always ready must not outrun its timer.
    pub(super) fn has_passed(&self) -> bool {
        self.at.is_some_and(|at| at <= clock::now())
    }

    /// Returns true if it has passed; if not, the task is woken when it does.
    pub(super) fn poll_passed(&mut self, context: &mut Context<'_>) -> bool {
        let Some(at) = self.at else { return false };
        let timer = self.timer.get_or_insert_with(|| {
            let _around = runtime::enter();
            Box::pin(tokio::time::sleep_until(at.into()))
        });
        timer.as_mut().poll(context).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_by_the_clock_of_its_runtime() {
        let context = &mut Context::from_waker(Waker::noop());
        assert!(!Deadline::default().poll_passed(context));
        let hour = Duration::from_secs(3600);
        let mut deadline = Deadline::at(clock::now().checked_add(hour));
        assert!(!deadline.poll_passed(context) && !deadline.has_passed());
        tokio::time::advance(hour).await;
        assert!(deadline.has_passed() && deadline.poll_passed(context));
    }

    /// Its caller may be driven by an executor of another make.
    #[test]
    fn a_deadline_passes_outside_of_a_runtime() {
        let mut deadline = Deadline::at(clock::now().checked_add(Duration::from_millis(5)));
        let passed = std::future::poll_fn(|context| match deadline.poll_passed(context) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        block_on_by_parking(passed);
    }

    /// Parks the thread until the future is woken.
    fn block_on_by_parking(future: impl Future<Output = ()>) {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
        let mut future = std::pin::pin!(future);
        while future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            std::thread::park();
        }
    }
}
