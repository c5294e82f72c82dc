//! What a service remembers of the calls it has executed, so that a repeated
//! one is answered and not executed again.

use std::collections::{HashMap, VecDeque};

/// The latest entries by order id; the oldest go when it is full.
///
/// ```
/// let mut recent = shop_link::Recent::new(2);
/// for order in 1..=3 {
///     recent.insert(order, "placed");
/// }
/// assert_eq!(recent.get_mut(1), None);
/// assert_eq!(recent.get_mut(3), Some(&mut "placed"));
/// ```
#[derive(Debug)]
pub struct Recent<V> {
    entries: HashMap<u64, V>,
    by_age: VecDeque<u64>,
    capacity: usize,
}

impl<V> Recent<V> {
    /// Remembers at most `capacity` orders.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_age: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// What is remembered of an order.
    pub fn get_mut(&mut self, order: u64) -> Option<&mut V> {
        self.entries.get_mut(&order)
    }

    /// Remembers or replaces; replacing makes nothing younger.
    pub fn insert(&mut self, order: u64, value: V) {
        if self.entries.insert(order, value).is_some() {
            return;
        }
        self.by_age.push_back(order);
        if self.by_age.len() > self.capacity
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// How many orders are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_grows_past_its_capacity() {
        let mut recent = Recent::new(10);
        for order in 0..1000 {
            recent.insert(order, order);
            recent.insert(order, order + 1);
            assert!(recent.len() <= 10);
        }
        assert_eq!(recent.get_mut(999), Some(&mut 1000));
        assert_eq!(recent.get_mut(989), None);
    }
}
