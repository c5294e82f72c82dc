//! A message that a peer may bring about as often as it likes goes into the log once a second.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// From when messages are timed.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tells when to say something again.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// The second of the last message, counted from 1.
    last: AtomicU64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
        }
    }

    /// Returns true if the message is to be said: as the first one within this second.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_at(BEGIN.elapsed().as_secs())
    }

    fn is_due_at(&self, second: u64) -> bool {
        self.last.swap(second + 1, Ordering::Relaxed) != second + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_message_a_second() {
        let seldom = Seldom::new();
        let said = |second| (0..1000).filter(|_| seldom.is_due_at(second)).count();
        assert_eq!([0, 0, 1, 7].map(said), [1, 0, 1, 1]);
    }
}
