//! The role of driving: which task drives, whether it will look at its list once more, and how another takes over.
//!
//! A driver's task works under a *generation*. A task that is stuck in user code is replaced by the next
//! generation, and ends as soon as it goes on. Invariant: what was listed is driven by a task of the current
//! generation, or such a task has been called. loom checks it (`tests/loom/role.rs`).

use crate::sync::{AtomicBool, AtomicU32, Ordering, between_seq_cst};

/// Which task drives, and whether it is at work.
#[derive(Debug)]
pub struct DriverRole {
    /// The generation times two, and one while its task is at work: then it looks at its list again before it
    /// sleeps. Waking it would only have the runtime poll it once more, and wake another worker for that.
    word: AtomicU32,
    /// The list holds something.
    listed: AtomicBool,
}

/// A role as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleSnapshot(u32);

impl RoleSnapshot {
    /// Returns true if the task was at work.
    pub fn is_at_work(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Default for DriverRole {
    fn default() -> Self {
        Self {
            word: AtomicU32::new(0),
            listed: AtomicBool::new(false),
        }
    }
}

impl DriverRole {
    /// Returns the generation whose task drives.
    pub fn generation(&self) -> u32 {
        self.word.load(Ordering::Relaxed) >> 1
    }

    /// Returns the role as it is now.
    pub fn snapshot(&self) -> RoleSnapshot {
        RoleSnapshot(self.word.load(Ordering::SeqCst))
    }

    /// Says that the task of a generation is at work; false if it was replaced.
    pub fn begin_work(&self, generation: u32) -> bool {
        self.set_at_work(generation, true)
    }

    /// Says that the task of a generation sleeps; false if it was replaced. The task looks at
    /// [`Self::is_listed`] afterwards.
    pub fn finish_work(&self, generation: u32) -> bool {
        let is_current = self.set_at_work(generation, false);
        between_seq_cst();
        is_current
    }

    /// Notes that the list holds something, after it was put there. Returns true if the task has to be called.
    pub fn note_listed(&self) -> bool {
        self.listed.store(true, Ordering::SeqCst);
        between_seq_cst();
        self.word.load(Ordering::SeqCst) & 1 == 0
    }

    /// Returns true if the list holds something.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::SeqCst)
    }

    /// Returns true if the list holds something, which the caller empties now.
    pub fn take_listed(&self) -> bool {
        let listed = self.listed.load(Ordering::SeqCst);
        if listed {
            self.listed.store(false, Ordering::SeqCst);
        }
        listed
    }

    /// Replaces the task of a role that has not changed. Returns the new generation, whose task is not at work yet.
    pub fn take_over(&self, stuck: RoleSnapshot) -> Option<u32> {
        let generation = ((stuck.0 >> 1) + 1) & (u32::MAX >> 1);
        self.word
            .compare_exchange(stuck.0, generation << 1, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
            .then_some(generation)
    }

    fn set_at_work(&self, generation: u32, at_work: bool) -> bool {
        let role = |at_work| generation << 1 | u32::from(at_work);
        let (from, to) = (role(!at_work), role(at_work));
        match self
            .word
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => true,
            Err(found) => found == to,
        }
    }
}
