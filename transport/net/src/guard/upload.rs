//! The requests of a call, which end with it.
//!
//! hyper pipes a request's body to its stream in a task of its own, and does not stop when the call
//! is dropped after its response has begun: an endless source then feeds a handler for ever. It asks
//! its executor to run that task right after it has polled the body for the first time, on the same
//! task and thread. So the first poll leaves the call's token where [`CallExecutor`] finds it, and the
//! task ends with the call: HTTP/2 then resets the stream with `CANCEL`.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use crate::spawn::{Task, spawn, spawn_task};

thread_local! {
    /// The upload that was polled for the first time last, and by which task.
    static FIRST_POLLED: Cell<Option<(tokio::task::Id, CancellationToken)>> =
        const { Cell::new(None) };
}

/// Spawns on tokio; a task that pipes an upload ends with its call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallExecutor;

impl hyper::rt::Executor<Task> for CallExecutor {
    fn execute(&self, task: Task) {
        match FIRST_POLLED.take() {
            Some((id, over)) if tokio::task::try_id() == Some(id) => {
                spawn(async move {
                    let over = std::pin::pin!(over.cancelled());
                    // Whichever ends first: the other one is dropped.
                    match select(over, task).await {
                        Either::Left(_) | Either::Right(_) => {}
                    }
                });
            }
            _ => spawn_task(task),
        }
    }
}

/// What a call and its upload know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) over: CancellationToken,
    /// Why the caller's own side refused one of its requests.
    pub(super) refused: Mutex<Option<Status>>,
}

/// Tells the upload when the call is dropped.
#[derive(Debug)]
pub(super) struct Hold(pub(super) Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.over.cancel();
    }
}

/// A request's body that breaks off with its call, and never seems to end then.
pub(super) struct Upload {
    inner: Body,
    shared: Arc<Shared>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    polled: bool,
}

impl Upload {
    pub(super) fn new(inner: Body, shared: &Arc<Shared>) -> Self {
        Self {
            inner,
            over: Box::pin(shared.over.clone().cancelled_owned()),
            shared: Arc::clone(shared),
            polled: false,
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !std::mem::replace(&mut self.polled, true)
            && let Some(task) = tokio::task::try_id()
        {
            FIRST_POLLED.set(Some((task, self.shared.over.clone())));
        }
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(cancelled())));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(status)) => {
                *self.shared.refused.lock() = Some(status);
                Some(Err(cancelled()))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// hyper looks for an error of h2 to tell with which reason the stream is reset.
fn cancelled() -> Status {
    let mut status = Status::cancelled("the call was given up");
    status.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
    status
}
