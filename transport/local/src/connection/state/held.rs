//! Charges the memory that a peer makes this side hold: messages that no task has read yet, and heads of calls in flight.
//! Windows bound it for each connection. Beyond [`FREE_BYTES`] a connection takes it from the budget of the peer's user,
//! who may have many connections.

use std::sync::Arc;

use ringway_ring::MemoryBudget;

/// The bytes that a connection holds without a look at the budget.
const FREE_BYTES: usize = 256 * 1024;
/// The bytes by which a connection takes from the budget, and gives back.
const STEP_BYTES: usize = 1024 * 1024;

/// Takes from a budget as much as a connection holds.
#[derive(Debug)]
pub(super) struct HeldMemory {
    budget: Option<Arc<MemoryBudget>>,
    /// The bytes that the connection may hold before it has to take more.
    covered: usize,
    /// The budget refused the last step: the connection takes in no further message.
    is_short: bool,
}

impl Default for HeldMemory {
    fn default() -> Self {
        Self {
            budget: None,
            covered: FREE_BYTES,
            is_short: false,
        }
    }
}

impl HeldMemory {
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

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use ringway_ring::BudgetLimits;

    use super::*;

    fn held(budget: &Arc<MemoryBudget>) -> HeldMemory {
        let mut held = HeldMemory::default();
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
