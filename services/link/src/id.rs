//! Order ids: 64 bits, unique within a service's life, and not to be guessed: an id is all that is asked for to
//! see an order or to cancel it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds of the network: with four it can't be told from a random permutation, even by a caller that may
/// ask both ways.
const ROUNDS: u8 = 4;

/// Hands out order ids.
///
/// A counter through a permutation that a secret key chooses: no id comes twice before the counter wraps, and
/// none tells of another, nor how many orders there were.
#[derive(Debug)]
pub struct OrderIds {
    next: AtomicU64,
    key: RandomState,
}

impl OrderIds {
    /// Takes a key from the system's random numbers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            key: RandomState::new(),
        }
    }

    /// An id that is not 0.
    pub fn next(&self) -> u64 {
        loop {
            let id = self.permuted(self.next.fetch_add(1, Ordering::Relaxed));
            if id != 0 {
                return id;
            }
        }
    }

    /// A Feistel network (Luby and Rackoff 1988) over SipHash, whose key nobody learns from what it gives.
    fn permuted(&self, number: u64) -> u64 {
        let [mut left, mut right] = halves(number);
        for round in 0..ROUNDS {
            let [_, mixed] = halves(self.key.hash_one((round, right)));
            (left, right) = (right, left ^ mixed);
        }
        u64::from(left) << 32 | u64::from(right)
    }
}

/// The upper and the lower 32 bits.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes)
}

impl Default for OrderIds {
    fn default() -> Self {
        Self::new()
    }
}

/// An order's id as users see it: 16 hexadecimal digits.
#[must_use]
pub fn format_order(order: u64) -> String {
    format!("{order:016x}")
}

/// The id that [`format_order`] wrote; `None` for anything else, and for 0.
#[must_use]
pub fn parse_order(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let order = u64::from_str_radix(text, 16).ok()?;
    (digits && order != 0).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_and_survive_formatting() {
        let ids = OrderIds::new();
        let seen: HashSet<u64> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 10_000);
        assert!(
            seen.iter()
                .all(|&id| parse_order(&format_order(id)) == Some(id))
        );
    }

    /// One who sees two ids in a row, and knows how they are made, has nothing to go on to the next.
    #[test]
    fn ids_do_not_follow_from_each_other() {
        let [ours, theirs] = [OrderIds::new(), OrderIds::new()];
        let seen: HashSet<u64> = (0..1000).map(|_| ours.next()).collect();
        let guessed = (0..1000).map(|_| theirs.next());
        assert_eq!(guessed.filter(|id| seen.contains(id)).count(), 0);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "1",
            "+000000000000001",
            "0000000000000000",
            "000000000000000g",
        ] {
            assert_eq!(parse_order(text), None, "{text}");
        }
    }
}
