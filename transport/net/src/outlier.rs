//! Instances of a service that answer, but badly: put aside for a while.
//!
//! After the consecutive-failures rule of Envoy's outlier detection, with the times of gRPC's
//! (proposal A50): <https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md>.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When an instance is put aside, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierOptions {
    /// Calls in a row that end `UNAVAILABLE`, after which an instance is put aside. Default: 5.
    pub consecutive_failures: u32,
    /// How long it is put aside the first time; each further time in a row adds as much again.
    /// Default: 30 s.
    pub base_time: Duration,
    /// The longest it is put aside. Default: 300 s.
    pub max_time: Duration,
}

impl Default for OutlierOptions {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
        }
    }
}

/// How an instance has done lately.
///
/// ```
/// use std::time::Instant;
/// use ringway_net::{OutlierOptions, Record};
///
/// let (record, now) = (Record::default(), Instant::now());
/// let options = OutlierOptions::default();
/// for _ in 0..5 {
///     assert!(!record.is_aside(now));
///     record.note_failed(&options, now);
/// }
/// assert!(record.is_aside(now));
/// assert!(!record.is_aside(now + options.base_time));
/// ```
#[derive(Debug, Default)]
pub struct Record {
    failures: AtomicU32,
    /// Whether `aside` has anything to say.
    marked: AtomicBool,
    aside: Mutex<Aside>,
}

#[derive(Debug, Default)]
struct Aside {
    until: Option<Instant>,
    times: u32,
}

impl Record {
    /// A call was served.
    pub fn note_served(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.marked.load(Ordering::Relaxed) {
            self.forgive(Instant::now());
        }
    }

    /// A call ended `UNAVAILABLE`; true if it is put aside for that.
    pub fn note_failed(&self, options: &OutlierOptions, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let enough = failures >= options.consecutive_failures;
        if enough {
            self.failures.store(0, Ordering::Relaxed);
            self.put_aside(options, now);
        }
        enough
    }

    /// Whether it should be given no calls, if there are others.
    pub fn is_aside(&self, now: Instant) -> bool {
        self.marked.load(Ordering::Relaxed)
            && self.aside.lock().until.is_some_and(|until| now < until)
    }

    fn put_aside(&self, options: &OutlierOptions, now: Instant) {
        let mut aside = self.aside.lock();
        aside.times = aside.times.saturating_add(1);
        let time = options.base_time.saturating_mul(aside.times);
        aside.until = now.checked_add(time.min(options.max_time));
        self.marked.store(true, Ordering::Relaxed);
    }

    /// It came back and serves: the next time is a first time again.
    fn forgive(&self, now: Instant) {
        let mut aside = self.aside.lock();
        if aside.until.is_none_or(|until| until <= now) {
            *aside = Aside::default();
            self.marked.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_time_is_longer_until_it_serves_again() {
        let (record, options) = (Record::default(), OutlierOptions::default());
        let fail = |now| assert!((0..5).any(|_| record.note_failed(&options, now)));
        let mut now = Instant::now();
        fail(now);
        now += options.base_time;
        assert!(!record.is_aside(now));
        fail(now);
        assert!(record.is_aside(now + options.base_time));
        now += options.base_time * 2;
        assert!(!record.is_aside(now));
        record.forgive(now);
        fail(now);
        assert!(!record.is_aside(now + options.base_time));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let (record, options) = (Record::default(), OutlierOptions::default());
        let now = Instant::now();
        for _ in 0..20 {
            for _ in 0..4 {
                record.note_failed(&options, now);
            }
            record.note_served();
        }
        assert!(!record.is_aside(now));
    }
}
