//! Ends connections: at once, for a reason, or after their calls are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Connection;
use crate::error::Closed;
use crate::seldom::Seldom;
use crate::waiting;

/// The time between two looks of a draining connection at its calls.
const DRAIN_LOOK: Duration = Duration::from_millis(2);
/// The longest that a draining connection without calls waits for its client to take notice. A client
/// that is stopped or busy must not hold the server up: the calls that it sends later were certainly not
/// seen, so it sends them elsewhere.
const DRAIN_NOTICE: Duration = Duration::from_secs(1);

impl Connection {
    /// Ends the connection. Calls in flight end `UNAVAILABLE`.
    pub fn close(&self) {
        self.fail(Closed::ByUs);
    }

    /// Has the client go elsewhere, waits until every call is answered, and closes. What the client
    /// sent before it heard of it is served, too.
    pub async fn drain(&self) {
        self.lock().drain();
        let began = Instant::now();
        while self.is_open() {
            let told = began.elapsed() > DRAIN_NOTICE;
            if self.lock().has_drained(told) {
                self.close();
            } else {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        }
    }

    /// Ends a connection that no pass comes to any more.
    pub(crate) fn close_undriven(&self) {
        self.close();
        let left = self.pass.try_lock().map(|mut pass| pass.let_go());
        // Without the lock: what they own may be the user's.
        drop(left);
        self.backlog.clear();
    }

    pub(crate) fn fail(&self, why: Closed) {
        if !self.open.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Closed::PeerMisbehaved(reason) = &why {
            // A peer may come back and misbehave as often as it likes.
            static TOLD: Seldom = Seldom::new();
            if let Some(untold) = TOLD.ask(Instant::now()) {
                tracing::warn!(kind = ?self.kind, peer = ?self.peer, %reason, untold, "connection ended");
            }
        }
        let mut state = self.lock();
        self.note_readers_woken(&state);
        let ended = state.close(why);
        drop(state);
        {
            // The drop of a handler runs user code, which may block.
            let _inside = waiting::in_pass().then(|| self.driver().enter_user_code());
            ended.finish();
        }
        if let Some(blocks) = self.blocks() {
            blocks.hang_up();
        }
        self.watch.hang_up();
        self.ended.notify_waiters();
        self.mark_ready();
    }

    /// Keeps the connection alive until it ends.
    pub(crate) async fn hold_until_closed(self: Arc<Self>) {
        loop {
            let ended = self.ended.notified();
            if !self.is_open() {
                return;
            }
            ended.await;
        }
    }
}
