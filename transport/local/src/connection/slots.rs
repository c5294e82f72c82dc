//! What a connection keeps for each call beside the core's own state.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::BytesMut;
use ringway_wire::CallId;

use super::handlers::HandlerFuture;
use super::inbound::Inbound;
use crate::link::Position;

/// How a poll ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    Pending,
    Done,
}

/// One call's place. It is used again by later calls, so that a hot call allocates nothing.
#[derive(Default)]
pub(crate) struct Slot {
    /// The call that lives here.
    pub(crate) id: Option<CallId>,
    /// What has arrived and was not taken yet.
    pub(crate) inbox: VecDeque<Inbound>,
    /// Who waits for something to arrive.
    pub(crate) reader: Option<Waker>,
    /// Who waits for credit.
    pub(crate) writer: Option<Waker>,
    /// It waits for the call's share of the connection's credit, and is listed with all that do.
    pub(crate) awaits_share: bool,
    /// The future that does the call's work.
    pub(crate) handler: Option<HandlerFuture>,
    /// A message of which pieces are missing.
    pub(crate) pieces: BytesMut,
    /// Where the request ends in what the link was given.
    pub(crate) sent: Option<Position>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Slot")
            .field("id", &self.id)
            .field("inbox", &self.inbox.len())
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// Whether the call's end has arrived, though nobody has taken it yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.inbox.back().is_some_and(Inbound::ends_call)
    }

    /// Makes the place free. Returns the handler: its drop is not for whoever holds a lock.
    pub(crate) fn vacate(&mut self) -> Option<HandlerFuture> {
        self.id = None;
        self.inbox.clear();
        self.reader = None;
        self.writer = None;
        self.awaits_share = false;
        self.sent = None;
        self.pieces = BytesMut::new();
        self.handler.take()
    }
}
