//! How many calls of a channel may be on their way, and how many may begin within a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::endpoint::Endpoint;
use crate::status;

/// Whose turn it is to begin, where a channel has limits.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Option<Arc<Semaphore>>,
    rate: Option<Rate>,
}

/// A call's permission to be on its way, until its response begins.
#[derive(Debug)]
pub(crate) struct Admitted {
    _permit: Option<OwnedSemaphorePermit>,
}

/// So many calls within each period.
#[derive(Debug)]
struct Rate {
    limit: u64,
    period: Duration,
    now: Mutex<Period>,
}

#[derive(Debug)]
struct Period {
    until: Option<Instant>,
    left: u64,
}

impl Admission {
    /// What an endpoint limits, if it limits anything.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        let permits = endpoint.concurrency_limit.map(|limit| {
            let limit = limit.min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(limit))
        });
        let rate = endpoint.rate_limit.map(|(limit, period)| Rate {
            limit,
            period,
            now: Mutex::new(Period {
                until: None,
                left: 0,
            }),
        });
        (permits.is_some() || rate.is_some()).then_some(Self { permits, rate })
    }

    /// Waits for a call's turn, for as long as the call may take; takes what it waited off that.
    pub(crate) async fn admit(&self, time_left: &mut Option<Duration>) -> Result<Admitted, Status> {
        let Some(limit) = *time_left else {
            return Ok(self.turn().await);
        };
        let began = Instant::now();
        let admitted = tokio::time::timeout(limit, self.turn()).await;
        *time_left = Some(limit.saturating_sub(began.elapsed()));
        admitted.map_err(|_| status::expired())
    }

    async fn turn(&self) -> Admitted {
        let permit = match &self.permits {
            // It is never closed.
            Some(permits) => Arc::clone(permits).acquire_owned().await.ok(),
            None => None,
        };
        if let Some(rate) = &self.rate {
            rate.turn().await;
        }
        Admitted { _permit: permit }
    }
}

impl Rate {
    async fn turn(&self) {
        while let Some(until) = self.take() {
            sleep_until(until).await;
        }
    }

    /// Takes one call of this period's, or says when the next one begins.
    fn take(&self) -> Option<Instant> {
        let mut period = self.now.lock();
        let now = Instant::now();
        if period.until.is_none_or(|until| now >= until) {
            *period = Period {
                until: Some(now + self.period),
                left: self.limit,
            };
        }
        match period.left.checked_sub(1) {
            Some(left) => {
                period.left = left;
                None
            }
            None => period.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(limit: impl FnOnce(Endpoint) -> Endpoint) -> Admission {
        let endpoint = Endpoint::from_static("catalog:1");
        Admission::of(&limit(endpoint)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_above_the_limit_waits_for_another_ones_response() {
        let admission = limited(|endpoint| endpoint.concurrency_limit(1));
        let first = admission.admit(&mut None).await.unwrap();
        let mut time = Some(Duration::from_secs(1));
        let late = admission.admit(&mut time).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop(first);
        let mut time = Some(Duration::from_secs(1));
        admission.admit(&mut time).await.unwrap();
        assert_eq!(time, Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_above_the_rate_wait_for_the_next_period() {
        let second = Duration::from_secs(1);
        let admission = limited(|endpoint| endpoint.rate_limit(2, second));
        let began = Instant::now();
        for calls in 1..=5 {
            let mut time = Some(Duration::from_secs(10));
            admission.admit(&mut time).await.unwrap();
            let periods = (calls - 1) / 2;
            assert_eq!(began.elapsed().as_secs(), periods);
        }
    }
}
