//! Budgets of memory, one for the peers of each user in all of their connections: shared memory that this process makes
//! for them, which stays charged to it while they keep it, and messages of theirs that no task has read. No user's
//! processes may take up more than a part of what this one has.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use ringway_ring::{BudgetLimits, MemoryBudget};
use ringway_sys::Means;

use crate::config::LocalConfig;

/// The part of the memory, and of the descriptors, that the processes of one user may take up at most, where this
/// user alone is let in. Where others are, it is half of that.
const BYTES_PART: u64 = 2;
const FILES_PART: u64 = 4;

static BUDGETS: LazyLock<Budgets> = LazyLock::new(Budgets::default);

/// Budgets by uid and limits: servers of one process may be set up differently.
#[derive(Debug, Default)]
struct Budgets(Mutex<HashMap<(u32, BudgetLimits), Arc<MemoryBudget>>>);

/// The budget of `uid`, by the settings and by what this process has.
pub(crate) fn budget_of(uid: u32, config: &LocalConfig) -> Arc<MemoryBudget> {
    static MEANS: LazyLock<Means> = LazyLock::new(Means::of_this_process);
    BUDGETS.of(uid, limits(config, &MEANS))
}

/// Takes note of what peers have given back. To be called now and then.
pub(crate) fn settle() {
    BUDGETS.settle();
}

impl Budgets {
    fn of(&self, uid: u32, limits: BudgetLimits) -> Arc<MemoryBudget> {
        let mut budgets = self.0.lock();
        let budget = budgets
            .entry((uid, limits))
            .or_insert_with(|| Arc::new(MemoryBudget::new(limits)));
        Arc::clone(budget)
    }

    fn settle(&self) {
        MemoryBudget::settle();
        let in_use = |budget: &Arc<_>| Arc::strong_count(budget) > 1;
        self.0
            .lock()
            .retain(|_, budget| in_use(budget) || budget.used_bytes() > 0);
    }
}

fn limits(config: &LocalConfig, means: &Means) -> BudgetLimits {
    let users = if config.peers.allows_others() { 2 } else { 1 };
    let part = |of: u64, parts: u64| usize::try_from(of / parts / users).unwrap_or(usize::MAX);
    BudgetLimits {
        max_bytes: config
            .max_memory_per_uid
            .min(part(means.memory, BYTES_PART)),
        max_files: part(means.descriptors, FILES_PART),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::UidPolicy;

    use super::*;

    const MEANS: Means = Means {
        descriptors: 1024,
        mappings: 65_530,
        memory: 1 << 30,
    };

    #[test]
    fn a_user_has_a_part_of_what_there_is() {
        let own = LocalConfig::default();
        let expected = |max_bytes, max_files| BudgetLimits {
            max_bytes,
            max_files,
        };
        assert_eq!(limits(&own, &MEANS), expected(1 << 29, 256));
        let anyone = LocalConfig {
            peers: UidPolicy::Anyone,
            ..own.clone()
        };
        assert_eq!(limits(&anyone, &MEANS), expected(1 << 28, 128));
        let small = LocalConfig {
            max_memory_per_uid: 1 << 20,
            ..own
        };
        assert_eq!(limits(&small, &MEANS), expected(1 << 20, 256));
    }

    #[test]
    fn a_budget_is_one_for_all_connections_and_goes_with_the_last() {
        let budgets = Budgets::default();
        let limits = limits(&LocalConfig::default(), &MEANS);
        let one = budgets.of(7, limits);
        assert!(Arc::ptr_eq(&one, &budgets.of(7, limits)));
        assert!(!Arc::ptr_eq(&one, &budgets.of(8, limits)));
        budgets.settle();
        assert_eq!(budgets.0.lock().len(), 1);
        drop(one);
        budgets.settle();
        assert!(budgets.0.lock().is_empty());
    }
}
