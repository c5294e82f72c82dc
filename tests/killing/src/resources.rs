//! Counts the descriptors, mappings and tasks of this process.
//!
//! Descriptors and mappings go with the connection, so each round is judged by them. Tasks that look now and then
//! for something hold nothing of a connection, and end at their next look, up to a second later: a second for
//! each round would be all that a round takes, so they are judged for some rounds at once.

use std::time::{Duration, Instant};

use ringway_tests::{descriptors, mapped_regions};

/// The longest that the process may take to let go of a dead peer's resources.
const LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    descriptors: usize,
    mappings: usize,
    tasks: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        Self {
            descriptors: descriptors(),
            mappings: mapped_regions(),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        }
    }

    fn holds_no_more_than(self, base: Self) -> bool {
        self.descriptors <= base.descriptors && self.mappings <= base.mappings
    }

    /// Waits until the process holds no more descriptors and mappings than `self`; returns what it holds instead.
    pub(crate) async fn is_returned_to(self) -> Option<String> {
        self.becomes(|now| now.holds_no_more_than(self)).await
    }

    /// Waits until no more tasks are alive, either; returns what the process holds instead.
    pub(crate) async fn and_tasks_are_returned_to(self) -> Option<String> {
        self.becomes(|now| now.holds_no_more_than(self) && now.tasks <= self.tasks)
            .await
    }

    async fn becomes(self, is_reached: impl Fn(Self) -> bool) -> Option<String> {
        let began = Instant::now();
        while !is_reached(Self::now()) {
            if began.elapsed() > LIMIT {
                return Some(format!("left behind: {:?} after {self:?}", Self::now()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    }
}
