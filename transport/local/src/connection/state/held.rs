//! What a connection's peer makes this side hold: messages that nobody has read yet, and heads of calls in flight.
//! Windows bound it for each connection. Beyond a little it is taken from the budget of the peer's user as well, since
//! a user may have many connections.

use std::sync::Arc;

use ringway_ring::MemoryBudget;

/// Held without a look at the budget.
const FREE_BYTES: usize = 256 * 1024;
/// What is taken from the budget at a time, and given back.
const STEP_BYTES: usize = 1024 * 1024;

/// What of the budget a connection has taken for what it holds.
#[derive(Debug)]
pub(super) struct Held {
    budget: Option<Arc<MemoryBudget>>,
    /// Up to here nothing is to be done.
    covered: usize,
    /// What this side holds is more than the budget leaves it: nothing more is to be taken in.
    is_short: bool,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            budget: None,
            covered: FREE_BYTES,
            is_short: false,
        }
    }
}

impl Held {
    /// Takes from `budget` from now on.
    pub(super) fn set_budget(&mut self, budget: Arc<MemoryBudget>) {
        self.give_back();
        self.budget = Some(budget);
    }

    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Takes note of how much is held.
    #[inline]
    pub(super) fn note(&mut self, bytes: usize) {
        if bytes > self.covered || self.is_short || self.covers_too_much(bytes) {
            self.settle(bytes);
        }
    }

    #[inline]
    fn covers_too_much(&self, bytes: usize) -> bool {
        self.covered > FREE_BYTES
            && (bytes <= FREE_BYTES / 2 || bytes + 2 * STEP_BYTES < self.covered)
    }

    #[cold]
    fn settle(&mut self, bytes: usize) {
        let Some(budget) = &self.budget else {
            return;
        };
        let wanted = match bytes {
            0..=FREE_BYTES => FREE_BYTES,
            more => more.next_multiple_of(STEP_BYTES),
        };
        if wanted > self.covered {
            self.is_short = !budget.spend(wanted - self.covered);
            if self.is_short {
                return;
            }
        } else {
            self.is_short = false;
            budget.give_back(self.covered - wanted);
        }
        self.covered = wanted;
    }

    fn give_back(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.covered - FREE_BYTES);
        }
        self.covered = FREE_BYTES;
        self.is_short = false;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use ringway_ring::BudgetLimits;

    use super::*;

    fn held(budget: &Arc<MemoryBudget>) -> Held {
        let mut held = Held::default();
        held.set_budget(Arc::clone(budget));
        held
    }

    #[test]
    fn connections_of_a_user_share_a_budget() {
        let limits = BudgetLimits {
            max_bytes: 4 * STEP_BYTES,
            max_files: 0,
        };
        let budget = Arc::new(MemoryBudget::new(limits));
        let [mut one, mut other] = [held(&budget), held(&budget)];
        one.note(FREE_BYTES);
        assert_eq!(budget.used_bytes(), 0);
        one.note(4 * STEP_BYTES);
        assert!(!one.is_short() && budget.used_bytes() > 3 * STEP_BYTES);
        other.note(STEP_BYTES);
        assert!(other.is_short());
        other.note(FREE_BYTES);
        assert!(!other.is_short(), "what is free is always there");
        other.note(STEP_BYTES);
        one.note(0);
        assert_eq!(budget.used_bytes(), 0);
        other.note(STEP_BYTES);
        assert!(!other.is_short() && budget.used_bytes() > 0);
        drop((one, other));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_comes_and_goes_is_not_settled_each_time() {
        let limits = BudgetLimits {
            max_bytes: usize::MAX,
            max_files: 0,
        };
        let budget = Arc::new(MemoryBudget::new(limits));
        let mut held = held(&budget);
        held.note(2 * STEP_BYTES);
        let used = budget.used_bytes();
        for bytes in [STEP_BYTES, 2 * STEP_BYTES, STEP_BYTES + 1] {
            held.note(bytes);
            assert_eq!(budget.used_bytes(), used);
        }
    }
}
