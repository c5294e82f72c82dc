//! How many calls of one local connection are handled at once.
//!
//! As with tonic, a call counts until its response begins, and one above the limit waits. Its deadline
//! runs meanwhile: the connection ends a call that nobody has answered in time.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{self, Poll};

use parking_lot::Mutex;
use ringway_local::{HandlerFuture, Started};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::answer::Refused;
use crate::context::Handled;
use crate::dispatch::{context_of, nothing};
use crate::services::Services;

/// Services whose calls take turns.
pub(crate) struct Limited {
    services: Services,
    limit: usize,
    load_shed: bool,
    /// By connection; gone once none of its calls is left.
    connections: Mutex<HashMap<u64, Weak<Semaphore>>>,
}

/// Connections that are remembered before those without calls are forgotten.
const FORGET_ABOVE: usize = 64;

/// Some server of this process has a limit.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The permit of the call that is being handled here.
    static PERMIT: Cell<Option<OwnedSemaphorePermit>> = const { Cell::new(None) };
}

impl Limited {
    pub(crate) fn new(services: Services, limit: usize, load_shed: bool) -> Self {
        ANY.store(true, Ordering::Relaxed);
        Self {
            services,
            limit: limit.min(Semaphore::MAX_PERMITS),
            load_shed,
            connections: Mutex::default(),
        }
    }

    /// Handles a call once it is its turn.
    pub(crate) fn start(self: &Arc<Self>, started: &mut Option<Started>) -> HandlerFuture {
        let Some(connection) = started
            .as_ref()
            .map(|started| started.call.connection().id())
        else {
            return nothing();
        };
        let permits = self.of_connection(connection);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return self.handle(started, Some(permit));
        }
        let Some(waiting) = started.take() else {
            return nothing();
        };
        if self.load_shed {
            return shed(waiting);
        }
        let limited = Arc::clone(self);
        Box::pin(async move {
            // It is never closed.
            let permit = permits.acquire_owned().await.ok();
            limited.handle(&mut Some(waiting), permit).await;
        })
    }

    fn handle(
        &self,
        started: &mut Option<Started>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> HandlerFuture {
        let handler = self.services.begin(started);
        Box::pin(Permitted { handler, permit })
    }

    fn of_connection(&self, connection: u64) -> Arc<Semaphore> {
        let mut connections = self.connections.lock();
        if let Some(known) = connections.get(&connection).and_then(Weak::upgrade) {
            return known;
        }
        if connections.len() > FORGET_ABOVE {
            connections.retain(|_, permits| permits.strong_count() > 0);
        }
        let fresh = Arc::new(Semaphore::new(self.limit));
        connections.insert(connection, Arc::downgrade(&fresh));
        fresh
    }
}

fn shed(started: Started) -> HandlerFuture {
    let status = Status::resource_exhausted("too many concurrent calls on this connection");
    let context = context_of(&started);
    let call = started.call;
    Box::pin(Handled::new(context, Refused { call, status }.answer()))
}

/// A handler that has a permit until its response begins.
struct Permitted {
    handler: HandlerFuture,
    permit: Option<OwnedSemaphorePermit>,
}

impl Future for Permitted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        let outer = PERMIT.replace(self.permit.take());
        let polled = self.handler.as_mut().poll(context);
        self.permit = PERMIT.replace(outer);
        polled
    }
}

/// The response of the call that is being handled here begins: another call may be.
#[inline]
pub(crate) fn response_begins() {
    if ANY.load(Ordering::Relaxed) {
        drop(PERMIT.take());
    }
}
