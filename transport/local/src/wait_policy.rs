//! The wait policy of a program: what it is called in the environment, and which of two prevails.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

/// Chooses between polling and parking while a program waits for its peers on local paths.
///
/// ```
/// use std::time::Duration;
///
/// use ringway_local::WaitPolicy;
///
/// let policy: WaitPolicy = "spin:20us".parse()?;
/// assert_eq!(policy, WaitPolicy::Spin(Duration::from_micros(20)));
/// # Ok::<(), ringway_local::UnknownWaitPolicy>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Learns from the last waits whether polling pays.
    #[default]
    Adaptive,
    /// Never polls: the least CPU, and a wake for each message.
    Park,
    /// Polls for so long before it parks, whatever comes of it.
    Spin(Duration),
}

/// The environment variable that sets the policy of a program.
pub(crate) const VARIABLE: &str = "RINGWAY_WAIT";
/// The longest fixed budget.
const LONGEST_SPIN: Duration = Duration::from_secs(1);

impl WaitPolicy {
    /// The policy that `RINGWAY_WAIT` names: `adaptive`, `park` or `spin:20us`. Adaptive where it is not set; one
    /// that can't be understood is said once, as a warning.
    pub fn from_environment() -> Self {
        static POLICY: OnceLock<WaitPolicy> = OnceLock::new();
        *POLICY.get_or_init(|| {
            let Some(value) = std::env::var_os(VARIABLE) else {
                return Self::default();
            };
            value.to_string_lossy().parse().unwrap_or_else(|error| {
                tracing::warn!(%error, "{VARIABLE} is ignored");
                Self::default()
            })
        })
    }
}

impl WaitPolicy {
    /// The one of two that polls longer; adaptive counts between parking and a fixed time.
    pub(crate) fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Park, other) => other,
            (Self::Spin(one), Self::Spin(two)) => Self::Spin(one.max(two)),
            (Self::Adaptive, Self::Spin(_)) => other,
            _ => self,
        }
    }
}

/// A text that names no wait policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no wait policy: adaptive, park, or spin:TIME with a time of up to 1s, as spin:20us"
)]
pub struct UnknownWaitPolicy(String);

impl FromStr for WaitPolicy {
    type Err = UnknownWaitPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownWaitPolicy> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            "park" => Ok(Self::Park),
            _ => text
                .strip_prefix("spin:")
                .and_then(parse_time)
                .filter(|time| *time <= LONGEST_SPIN)
                .map(Self::Spin)
                .ok_or_else(|| UnknownWaitPolicy(text.to_owned())),
        }
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|symbol: char| !symbol.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit_at);
    let count = count.parse().ok()?;
    match unit {
        "ns" => Some(Duration::from_nanos(count)),
        "us" => Some(Duration::from_micros(count)),
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        _ => None,
    }
}

impl fmt::Display for WaitPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive => formatter.write_str("adaptive"),
            Self::Park => formatter.write_str("park"),
            Self::Spin(time) => write!(formatter, "spin:{}us", time.as_micros()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["adaptive", "park", "spin:20us"] {
            let policy: WaitPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        assert_eq!(
            "spin:1ms".parse(),
            Ok(WaitPolicy::Spin(Duration::from_millis(1)))
        );
        for text in ["", "spin", "spin:", "spin:20", "spin:2m", "spin:2s", "Park"] {
            let error = text.parse::<WaitPolicy>().unwrap_err();
            assert!(error.to_string().contains("spin:20us"), "{error}");
        }
    }
}
