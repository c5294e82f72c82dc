//! How long to wait between attempts to connect: gRPC's connection backoff.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md>.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How the time between attempts to connect grows. The defaults are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffOptions {
    /// From the first attempt to the second. Default: 1 s.
    pub initial: Duration,
    /// What each further time is multiplied with. Default: 1.6.
    pub multiplier: f64,
    /// Share by which each time varies either way, so that clients of a server that was away do
    /// not all come back at once. Default: 0.2.
    pub jitter: f64,
    /// The longest time, before it varies. Default: 120 s.
    pub max: Duration,
    /// The longest time while calls come, before it varies: a server that is back should not be missed
    /// for as long as it was away. Default: 500 ms, where gRPC makes no difference.
    pub max_while_called: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 1.6,
            jitter: 0.2,
            max: Duration::from_secs(120),
            max_while_called: Duration::from_millis(500),
        }
    }
}

/// Returns a random factor around one, at most `share` away from it and never negative.
pub fn varied_by(share: f64) -> f64 {
    // Each has keys of its own, and a hash's upper half is as good as a random number's.
    let random = RandomState::new().hash_one(()) >> 32;
    #[allow(clippy::cast_precision_loss, reason = "32 bits")]
    let unit = random as f64 / f64::from(u32::MAX);
    (1.0 + share * (2.0 * unit - 1.0)).max(0.0)
}

/// The attempts since the last one that succeeded.
#[derive(Clone, Debug)]
pub struct Backoff {
    options: BackoffOptions,
    base: Duration,
}

impl Backoff {
    /// No attempt has failed yet.
    pub fn new(options: BackoffOptions) -> Self {
        Self {
            options,
            base: options.initial,
        }
    }

    /// The time from the beginning of the attempt that failed to that of the next.
    pub fn next_delay(&mut self) -> Duration {
        self.next_delays().at_most
    }

    /// The times after which the next attempt may and must begin.
    pub(crate) fn next_delays(&mut self) -> Delays {
        let (base, options) = (self.base, self.options);
        self.base = base.mul_f64(options.multiplier.max(1.0)).min(options.max);
        let varied = varied_by(options.jitter);
        let at_most = base.min(options.max).mul_f64(varied);
        Delays {
            at_most,
            if_called: at_most.min(options.max_while_called.mul_f64(varied)),
        }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.base = self.options.initial;
    }
}

/// Times from the beginning of an attempt that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    /// From when a call may have the next attempt made.
    pub(crate) if_called: Duration,
    /// When it is made in any case.
    pub(crate) at_most: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff) -> f64 {
        backoff.next_delay().as_secs_f64()
    }

    #[test]
    fn it_grows_as_grpc_says_and_starts_anew_once_connected() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        let mut expected = 1.0_f64;
        for _ in 0..20 {
            let found = seconds(&mut backoff);
            assert!(
                (expected * 0.8..=expected * 1.2).contains(&found),
                "{found} instead of {expected}"
            );
            expected = (expected * 1.6).min(120.0);
        }
        backoff.reset();
        assert!((0.8..=1.2).contains(&seconds(&mut backoff)));
    }

    #[test]
    fn it_varies_both_ways() {
        let first = || seconds(&mut Backoff::new(BackoffOptions::default()));
        let found: Vec<f64> = (0..200).map(|_| first()).collect();
        assert!(found.iter().any(|found| *found < 0.95));
        assert!(found.iter().any(|found| *found > 1.05));
    }
}
