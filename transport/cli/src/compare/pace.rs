//! When calls start: one after the other, or on a schedule that does not wait for answers.
//!
//! The schedule of a paced lane is drawn beforehand, so to speak: an answer that is late does not
//! put off the calls behind it, and each latency counts from where its call should have started.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// When the calls of one lane start.
#[derive(Debug)]
pub(crate) struct Schedule {
    deadline: Instant,
    pace: Option<Pace>,
}

impl Schedule {
    /// Each call as soon as it is asked for.
    pub(crate) fn at_once(deadline: Instant) -> Self {
        Schedule {
            deadline,
            pace: None,
        }
    }

    /// So many calls a second from now on, with exponential gaps.
    ///
    /// # Errors
    /// When the kernel has no timer left. Must be called within a tokio runtime.
    pub(crate) fn paced(rate: f64, seed: u64, deadline: Instant) -> io::Result<Self> {
        let pace = Pace {
            timer: Timer::new()?,
            gaps: Gaps::new(rate, seed),
            next: Instant::now(),
        };
        Ok(Schedule {
            deadline,
            pace: Some(pace),
        })
    }

    /// Waits for the start of the next call and gives the time from which its latency counts;
    /// none after the deadline.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Instant>> {
        let Some(pace) = &mut self.pace else {
            let now = Instant::now();
            return Ok((now < self.deadline).then_some(now));
        };
        pace.next += pace.gaps.draw();
        let start = pace.next;
        pace.timer.sleep_until(start.min(self.deadline)).await?;
        Ok((start < self.deadline).then_some(start))
    }
}

#[derive(Debug)]
struct Pace {
    timer: Timer,
    gaps: Gaps,
    next: Instant,
}

/// A timer of the kernel's own resolution: tokio's wheel turns a millisecond at a time. It wakes
/// the runtime as a socket would, so no thread stands between it and the call.
#[derive(Debug)]
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Its successor is unsafe for the sake of types that may change or close their descriptor
        // while it is watched. An `OwnedFd` does neither.
        #[expect(deprecated)]
        AsyncFd::new(timer).map(Timer)
    }

    async fn sleep_until(&self, when: Instant) -> io::Result<()> {
        let left = when.saturating_duration_since(Instant::now());
        // A timer set to zero would never fire.
        if left.is_zero() {
            return Ok(());
        }
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once(left))?;
        let mut expirations = [0; 8];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?));
            match read {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

fn once(after: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        },
    }
}

/// Gaps of a Poisson process. Seeded, so that each path gets the same schedule.
#[derive(Debug)]
struct Gaps {
    mean_s: f64,
    state: u64,
}

impl Gaps {
    fn new(rate: f64, seed: u64) -> Self {
        Gaps {
            mean_s: rate.recip(),
            state: seed,
        }
    }

    fn draw(&mut self) -> Duration {
        let gap_s = -self.mean_s * (1.0 - self.uniform()).ln();
        // Rates far below one call a year end here.
        Duration::try_from_secs_f64(gap_s).unwrap_or(Duration::from_secs(1 << 25))
    }

    /// Uniform in `[0, 1)`, by splitmix64.
    #[allow(clippy::cast_precision_loss)]
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_with_the_mean_asked_for() {
        let mut gaps = Gaps::new(1000.0, 7);
        let drawn: Vec<f64> = (0..100_000).map(|_| gaps.draw().as_secs_f64()).collect();
        let mean = drawn.iter().sum::<f64>() / 100_000.0;
        assert!((mean - 0.001).abs() < 0.000_02, "{mean}");
        // An exponential exceeds its mean with probability 1/e.
        let above = drawn.iter().filter(|&&gap| gap > 0.001).count();
        assert!((36_000..37_600).contains(&above), "{above}");
    }

    #[tokio::test]
    async fn starts_are_scheduled_and_never_early() {
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut schedule = Schedule::paced(2000.0, 1, deadline).unwrap();
        let mut starts = Vec::new();
        while let Some(start) = schedule.next().await.unwrap() {
            assert!(Instant::now() >= start);
            starts.push(start);
        }
        assert!(starts.is_sorted() && !starts.is_empty());
        assert!(Instant::now() >= deadline);
    }

    #[tokio::test]
    async fn a_late_answer_puts_nothing_off() {
        let deadline = Instant::now() + Duration::from_millis(100);
        let mut schedule = Schedule::paced(100_000.0, 1, deadline).unwrap();
        schedule.next().await.unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let next = schedule.next().await.unwrap().unwrap();
        assert!(next.elapsed() > Duration::from_millis(15));
    }
}
