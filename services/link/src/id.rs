//! Order ids: 64 bits, unique within a service's life, not in sequence.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out order ids.
///
/// A counter through a bijection, so that no id comes twice before the counter
/// wraps, and that none tells how many orders there were.
#[derive(Debug)]
pub struct OrderIds {
    next: AtomicU64,
}

impl OrderIds {
    /// Starts at a random place.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: AtomicU64::new(RandomState::new().hash_one(std::process::id())),
        }
    }

    /// An id that is not 0.
    pub fn next(&self) -> u64 {
        loop {
            let id = scatter(self.next.fetch_add(1, Ordering::Relaxed));
            if id != 0 {
                return id;
            }
        }
    }
}

impl Default for OrderIds {
    fn default() -> Self {
        Self::new()
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014), a bijection.
fn scatter(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
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
