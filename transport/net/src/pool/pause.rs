//! The pause after an attempt that failed, to connect or to resolve: as long as the backoff says, and no
//! longer than some time while calls come.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout_at};

use crate::backoff::Delays;

/// How long a call waits for the attempt that it has cut a pause short for. One that is refused, or that
/// succeeds, has ended by then; one that meets silence holds up no call for longer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// The pause after each failed attempt at one thing.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    times: Mutex<Option<Times>>,
    wanted: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// From when calls may cut it short.
    may_end: Instant,
    must_end: Instant,
    /// When a call did.
    cut: Option<Instant>,
}

impl Pause {
    /// Begins anew, after an attempt that began at `began` and failed.
    pub(crate) fn begin(&self, began: Instant, delays: Delays) {
        *self.times.lock() = Some(Times {
            may_end: began + delays.if_called,
            must_end: began + delays.at_most,
            cut: None,
        });
    }

    /// Takes note of a call that would go on if the next attempt succeeded: makes that attempt due, if
    /// enough time has passed. Returns true while the caller should wait for what comes of it.
    pub(crate) fn cut_short(&self) -> bool {
        let (mut times, now) = (self.times.lock(), Instant::now());
        let Some(times) = times.as_mut().filter(|times| times.may_end <= now) else {
            return false;
        };
        let cut = *times.cut.get_or_insert_with(|| {
            self.wanted.notify_one();
            now.min(times.must_end)
        });
        now < cut + PATIENCE
    }

    /// Waits until the next attempt is due.
    pub(crate) async fn over(&self) {
        let Some(Times { must_end, .. }) = *self.times.lock() else {
            return;
        };
        loop {
            // A note that was left for the pause before ends none of this one.
            let told = timeout_at(must_end, self.wanted.notified()).await.is_ok();
            let is_cut = self.times.lock().is_some_and(|times| times.cut.is_some());
            if is_cut || !told {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: Delays = Delays {
        if_called: Duration::from_millis(500),
        at_most: Duration::from_secs(60),
    };

    #[tokio::test(start_paused = true)]
    async fn it_is_as_long_as_the_backoff_while_nobody_calls() {
        let (pause, began) = (Pause::default(), Instant::now());
        pause.begin(began, DELAYS);
        pause.over().await;
        assert_eq!(began.elapsed(), DELAYS.at_most);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_cut_it_short_once_enough_time_has_passed() {
        let (pause, began) = (Pause::default(), Instant::now());
        for _ in 0..3 {
            pause.begin(Instant::now(), DELAYS);
            let calling = async {
                while !pause.cut_short() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::join!(pause.over(), calling);
        }
        assert_eq!(began.elapsed(), 3 * DELAYS.if_called);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_short_attempt_and_not_for_a_long_one() {
        let pause = Pause::default();
        pause.begin(Instant::now(), DELAYS);
        tokio::time::advance(DELAYS.if_called).await;
        assert!(pause.cut_short());
        tokio::time::advance(PATIENCE / 2).await;
        assert!(pause.cut_short());
        tokio::time::advance(PATIENCE / 2).await;
        assert!(!pause.cut_short());
    }
}
