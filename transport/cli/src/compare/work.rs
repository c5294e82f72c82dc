//! The work of a handler under test: `--handler-us`, `--handler-sleep-us`.
//!
//! An echo measures the transport. A real handler computes or blocks, and then the server decides the
//! figures: which of its threads runs the handler, and which calls wait behind it.

use std::fmt;
use std::time::Duration;

use clap::Args;
use ringway_report::words::time;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// A second: rounds are shorter, and a call that takes longer than their overrun counts as stuck.
const EACH_US_MAX: i64 = 1_000_000;

/// Steps of arithmetic between two readings of the clock, some tens of nanoseconds: the reading is a
/// system call.
const STEPS: u64 = 32;

/// The time that each handler takes before it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args, Serialize)]
pub(crate) struct HandlerWork {
    /// Have each handler compute for so many microseconds of its thread's CPU time before it answers:
    /// once a call, of streams once a stream, of bidi once a message
    #[arg(long, value_name = "US", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=EACH_US_MAX))]
    pub(crate) handler_us: u32,

    /// Have each handler block its thread for so many microseconds (`std::thread::sleep`) before it
    /// answers, after what --handler-us asks for
    #[arg(long, value_name = "US", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=EACH_US_MAX))]
    pub(crate) handler_sleep_us: u32,
}

impl HandlerWork {
    /// Returns the arguments that have another process of the comparison do this work.
    pub(crate) fn arguments(self) -> [String; 4] {
        let (compute_us, sleep_us) = (self.handler_us, self.handler_sleep_us);
        [
            "--handler-us".to_owned(),
            compute_us.to_string(),
            "--handler-sleep-us".to_owned(),
            sleep_us.to_string(),
        ]
    }

    /// Returns how long the work takes on a thread that never waits for a CPU.
    pub(crate) fn duration(self) -> Duration {
        micros(self.handler_us) + micros(self.handler_sleep_us)
    }

    /// Returns true for a handler that answers at once.
    pub(crate) fn is_none(self) -> bool {
        self == HandlerWork::default()
    }

    /// Computes, then blocks the thread, as a handler that knows nothing of its runtime does.
    pub(crate) fn perform(self) {
        if self.handler_us > 0 {
            compute(micros(self.handler_us));
        }
        if self.handler_sleep_us > 0 {
            std::thread::sleep(micros(self.handler_sleep_us));
        }
    }
}

impl fmt::Display for HandlerWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |us: u32| time(f64::from(us) * 1e3);
        match (self.handler_us, self.handler_sleep_us) {
            (0, 0) => f.write_str("handlers that answer at once"),
            (us, 0) => write!(f, "handlers that compute for {}", said(us)),
            (0, us) => write!(f, "handlers that block for {}", said(us)),
            (compute_us, sleep_us) => write!(
                f,
                "handlers that compute for {} and block for {}",
                said(compute_us),
                said(sleep_us)
            ),
        }
    }
}

fn micros(us: u32) -> Duration {
    Duration::from_micros(us.into())
}

/// Uses `work` of this thread's CPU time. Time in which the thread waits for a CPU does not count, so
/// the work is equally much on a crowded machine.
fn compute(work: Duration) {
    let end = thread_cpu_time() + work;
    let mut state = 1_u64;
    while thread_cpu_time() < end {
        for _ in 0..STEPS {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

/// Returns this thread's user and system time, clock_gettime(2).
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn work(handler_us: u32, handler_sleep_us: u32) -> HandlerWork {
        HandlerWork {
            handler_us,
            handler_sleep_us,
        }
    }

    #[test]
    fn computing_takes_cpu_time_and_blocking_takes_none() {
        let (begun, before) = (Instant::now(), thread_cpu_time());
        work(3_000, 0).perform();
        let computed = thread_cpu_time() - before;
        assert!(computed >= Duration::from_millis(3), "{computed:?}");
        assert!(begun.elapsed() >= Duration::from_millis(3));

        let (begun, before) = (Instant::now(), thread_cpu_time());
        work(0, 20_000).perform();
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let computed = thread_cpu_time() - before;
        assert!(computed < Duration::from_millis(10), "{computed:?}");
    }

    #[test]
    fn work_is_said_in_words() {
        assert_eq!(work(0, 0).to_string(), "handlers that answer at once");
        assert_eq!(work(100, 0).to_string(), "handlers that compute for 100 µs");
        assert_eq!(
            work(20, 2_000).to_string(),
            "handlers that compute for 20.0 µs and block for 2.00 ms"
        );
    }
}
