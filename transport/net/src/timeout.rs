//! `grpc-timeout`, as gRPC's HTTP/2 mapping writes it
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), and the deadline that it makes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// The header's name.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";

/// The largest number of digits that the mapping allows.
const MAX_DIGITS: usize = 8;
const MAX_VALUE: u128 = 99_999_999;

/// Units and their lengths in nanoseconds, finest first.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// The time that the caller allows. What is malformed is ignored, as tonic ignores it.
///
/// ```
/// use std::time::Duration;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("grpc-timeout", "20m".parse().unwrap());
/// assert_eq!(ringway_net::timeout::of(&headers), Some(Duration::from_millis(20)));
/// ```
pub fn of(headers: &HeaderMap) -> Option<Duration> {
    // Looked up by a name that was parsed before, as each call asks for it.
    static NAME: HeaderName = HeaderName::from_static(TIMEOUT_HEADER);
    parse(headers.get(&NAME)?.as_bytes())
}

/// Reads a value of `grpc-timeout`: one to eight digits and a unit.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| *unit == *name as u8)?;
    let nanos = u128::from(count) * nanos;
    Some(Duration::new(
        u64::try_from(nanos / 1_000_000_000).ok()?,
        u32::try_from(nanos % 1_000_000_000).ok()?,
    ))
}

/// Writes a timeout in the finest unit in which it fits.
pub fn encode(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let (unit, length) = UNITS
        .into_iter()
        .find(|(_, length)| nanos / length <= MAX_VALUE)
        .unwrap_or(UNITS[5]);
    let count = (nanos / length).min(MAX_VALUE);
    HeaderValue::try_from(format!("{count}{unit}"))
        .unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

/// The status of a call whose time is over.
pub(crate) fn exceeded() -> Status {
    Status::deadline_exceeded("Timeout expired")
}

/// When a call has to be over, by the clock of its runtime.
#[derive(Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// `timeout` from now on; `None` where that is farther than the clock reaches.
    pub(crate) fn after(timeout: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(timeout)?;
        Some(Self {
            at,
            sleep: Box::pin(tokio::time::sleep_until(at)),
        })
    }

    /// By the clock: what is always ready must not outrun its timer.
    pub(crate) fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Whether it has passed; if not, the task is woken when it does.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> bool {
        self.sleep.as_mut().poll(cx) == Poll::Ready(()) || self.has_passed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse(b"20m"), Some(Duration::from_millis(20)));
        assert_eq!(
            parse(b"99999999H"),
            Some(Duration::from_secs(359_999_996_400))
        );
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
        for bad in [
            "82f",
            "123456789S",
            "-1S",
            "+1S",
            "S",
            "",
            "1",
            "1 S",
            "1.5S",
            "\u{e9}S",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_to_four_digits_at_least() {
        for nanos in [
            0,
            1,
            99_999_999,
            100_000_000,
            123_456_789_012,
            86_400_000_000_000,
        ] {
            let timeout = Duration::from_nanos(nanos);
            let back = parse(encode(timeout).as_bytes()).unwrap();
            let lost = timeout.checked_sub(back).unwrap();
            assert!(
                lost.as_nanos() * 10_000 <= timeout.as_nanos(),
                "{timeout:?} {back:?}"
            );
        }
        assert_eq!(encode(Duration::MAX), "99999999H");
    }
}
