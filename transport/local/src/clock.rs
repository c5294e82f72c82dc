//! The clock that deadlines and timers go by: that of the tokio runtime at hand, which a test may have paused.

use std::time::Instant;

/// The time by the clock of the current runtime; outside of one, the system's.
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
