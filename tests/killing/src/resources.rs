//! Counts the descriptors, mappings, tasks and memory of this process.

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

    fn is_within(self, base: Self) -> bool {
        self.descriptors <= base.descriptors
            && self.mappings <= base.mappings
            && self.tasks <= base.tasks
    }

    /// Waits until the process holds no more than before; what it holds instead.
    pub(crate) async fn returns_to(base: Self) -> Option<String> {
        let began = Instant::now();
        while !Self::now().is_within(base) {
            if began.elapsed() > LIMIT {
                return Some(format!("left behind: {:?} after {base:?}", Self::now()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    }
}
