//! How many calls of a channel may be on their way, and how many may begin within a time.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use futures_util::future::BoxFuture;
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

    /// Waits for a call's turn, until its deadline at most.
    pub(crate) fn admit(
        &self,
        deadline: Option<StdInstant>,
    ) -> BoxFuture<'_, Result<Admitted, Status>> {
        Box::pin(self.admit_until(deadline))
    }

    async fn admit_until(&self, deadline: Option<StdInstant>) -> Result<Admitted, Status> {
        match deadline {
            None => Ok(self.turn().await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), self.turn())
                .await
                .map_err(|_| status::expired()),
        }
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
    use ringway_local::clock;

    use super::*;

    fn limited(limit: impl FnOnce(Endpoint) -> Endpoint) -> Admission {
        let endpoint = Endpoint::from_static("catalog:1");
        Admission::of(&limit(endpoint)).unwrap()
    }

    fn within(seconds: u64) -> Option<StdInstant> {
        clock::now().checked_add(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_above_the_limit_waits_for_another_ones_response() {
        let admission = limited(|endpoint| endpoint.concurrency_limit(1));
        let first = admission.admit(None).await.unwrap();
        let late = admission.admit(within(1)).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop(first);
        admission.admit(within(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_above_the_rate_wait_for_the_next_period() {
        let second = Duration::from_secs(1);
        let admission = limited(|endpoint| endpoint.rate_limit(2, second));
        let began = Instant::now();
        for calls in 1..=5 {
            admission.admit(within(10)).await.unwrap();
            let periods = (calls - 1) / 2;
            assert_eq!(began.elapsed().as_secs(), periods);
        }
    }
}
