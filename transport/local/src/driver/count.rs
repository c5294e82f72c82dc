//! How many drivers a runtime has.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that fixes the number.
const VARIABLE: &str = "RINGWAY_DRIVERS";

/// The number of drivers of each runtime with several workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverCount {
    /// One, and more where one is busy for most of its time.
    Adaptive,
    /// So many, to which new connections are dealt out in turn, and with which they stay.
    Fixed(NonZeroUsize),
    /// A few, that hand their connections round without end: for tests.
    Restless,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no number of drivers: adaptive, or a number from 1 on")]
pub(crate) struct UnknownDriverCount(String);

impl FromStr for DriverCount {
    type Err = UnknownDriverCount;

    fn from_str(text: &str) -> Result<Self, UnknownDriverCount> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            "restless" => Ok(Self::Restless),
            _ => text
                .parse()
                .map(Self::Fixed)
                .map_err(|_| UnknownDriverCount(text.to_owned())),
        }
    }
}

impl DriverCount {
    /// The number that `RINGWAY_DRIVERS` names: `adaptive`, or a number. Adaptive where it is not set; one that
    /// can't be understood is said once, as a warning.
    pub(crate) fn from_environment() -> Self {
        static COUNT: OnceLock<DriverCount> = OnceLock::new();
        *COUNT.get_or_init(|| {
            let Some(value) = std::env::var_os(VARIABLE) else {
                return Self::Adaptive;
            };
            value.to_string_lossy().parse().unwrap_or_else(|error| {
                tracing::warn!(%error, "{VARIABLE} is ignored");
                Self::Adaptive
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        assert_eq!("adaptive".parse(), Ok(DriverCount::Adaptive));
        assert_eq!("restless".parse(), Ok(DriverCount::Restless));
        let two = NonZeroUsize::new(2).unwrap();
        assert_eq!("2".parse(), Ok(DriverCount::Fixed(two)));
        for text in ["", "0", "-1", "two", "1.5"] {
            let error = text.parse::<DriverCount>().unwrap_err();
            assert!(error.to_string().contains("adaptive"), "{error}");
        }
    }
}
