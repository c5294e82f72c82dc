//! A message that a peer may bring about as often as it likes goes into the log now and then.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So much time lies between two messages.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells when to say something again.
#[derive(Debug)]
pub(crate) struct Seldom(Mutex<Said>);

#[derive(Debug)]
struct Said {
    last: Option<Instant>,
    untold: u64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Said {
            last: None,
            untold: 0,
        }))
    }

    /// Returns how many messages were left out since the last one, if this one is to be said.
    pub(crate) fn ask(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        let is_due = said
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if !is_due {
            said.untold += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_message_and_a_number() {
        let (seldom, begin) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.ask(begin), Some(0));
        for _ in 0..1000 {
            assert_eq!(seldom.ask(begin + PAUSE / 2), None);
        }
        assert_eq!(seldom.ask(begin + PAUSE), Some(1000));
        assert_eq!(seldom.ask(begin + PAUSE * 2), Some(0));
    }
}
