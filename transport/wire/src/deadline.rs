//! Deadlines of calls, earliest first. A call without one costs nothing; one that ends early
//! leaves its entry behind, and the heap is swept when most entries are such leftovers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::CallId;

/// Sweeping a heap smaller than this is not worth it.
const SWEEP_ABOVE: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, CallId)>>,
    live: usize,
}

impl Deadlines {
    /// Adds the deadline of a call; `is_live` tells entries of calls that still run.
    pub(crate) fn insert(&mut self, at: Instant, call: CallId, is_live: impl Fn(CallId) -> bool) {
        self.live += 1;
        if self.heap.len() >= SWEEP_ABOVE && self.heap.len() > 2 * self.live {
            self.heap.retain(|Reverse((_, call))| is_live(*call));
        }
        self.heap.push(Reverse((at, call)));
    }

    /// A call that had a deadline ended.
    pub(crate) fn forget(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    /// The earliest deadline of a call that still runs.
    pub(crate) fn next(&mut self, is_live: impl Fn(CallId) -> bool) -> Option<Instant> {
        while let Some(Reverse((at, call))) = self.heap.peek() {
            if is_live(*call) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the next call whose deadline has come. It may have ended meanwhile.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<CallId> {
        let Reverse((at, call)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(call)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
