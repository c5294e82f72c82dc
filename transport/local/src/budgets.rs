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
/// user alone is let in. Where others are, it is half of that, and all users together have that part of the memory.
const BYTES_PART: u64 = 2;
const FILES_PART: u64 = 4;

static MEANS: LazyLock<Means> = LazyLock::new(Means::of_this_process);

static BUDGETS: LazyLock<Budgets> = LazyLock::new(|| Budgets::new(&MEANS));

/// Budgets by uid and limits: servers of one process may be set up differently.
#[derive(Debug)]
struct Budgets {
    whole: Arc<MemoryBudget>,
    parts: Mutex<HashMap<(u32, BudgetLimits), Arc<MemoryBudget>>>,
}

/// The budget of `uid`, by the settings and by what this process has.
pub(crate) fn budget_of(uid: u32, config: &LocalConfig) -> Arc<MemoryBudget> {
    BUDGETS.of(uid, limits(config, &MEANS))
}

/// Takes note of what peers have given back. To be called now and then.
pub(crate) fn settle() {
    BUDGETS.settle();
}

impl Budgets {
    fn new(means: &Means) -> Self {
        let whole = BudgetLimits {
            max_bytes: part(means.memory, BYTES_PART),
            max_files: usize::MAX,
        };
        Self {
            whole: Arc::new(MemoryBudget::new(whole)),
            parts: Mutex::default(),
        }
    }

    fn of(&self, uid: u32, limits: BudgetLimits) -> Arc<MemoryBudget> {
        let mut parts = self.parts.lock();
        let part = || {
            let whole = Arc::clone(&self.whole);
            Arc::new(MemoryBudget::part_of(whole, limits))
        };
        Arc::clone(parts.entry((uid, limits)).or_insert_with(part))
    }

    fn settle(&self) {
        MemoryBudget::settle();
        let in_use = |budget: &Arc<_>| Arc::strong_count(budget) > 1;
        self.parts
            .lock()
            .retain(|_, budget| in_use(budget) || budget.used_bytes() > 0);
    }
}

fn part(of: u64, parts: u64) -> usize {
    usize::try_from(of / parts).unwrap_or(usize::MAX)
}

fn limits(config: &LocalConfig, means: &Means) -> BudgetLimits {
    let users = if config.peers.allows_others() { 2 } else { 1 };
    BudgetLimits {
        max_bytes: config
            .max_memory_per_uid
            .min(part(means.memory, BYTES_PART * users)),
        max_files: part(means.descriptors, FILES_PART * users),
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
        let budgets = Budgets::new(&MEANS);
        let limits = limits(&LocalConfig::default(), &MEANS);
        let one = budgets.of(7, limits);
        assert!(Arc::ptr_eq(&one, &budgets.of(7, limits)));
        assert!(!Arc::ptr_eq(&one, &budgets.of(8, limits)));
        budgets.settle();
        assert_eq!(budgets.parts.lock().len(), 1);
        drop(one);
        budgets.settle();
        assert!(budgets.parts.lock().is_empty());
    }
}
