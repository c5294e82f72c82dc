//! In place of `fork` on other systems than Linux, where no path leads to another process but the network.

use std::os::fd::AsFd;

/// Tells a process from those that were forked from it: here it does not.
#[inline]
#[must_use]
pub fn generation() -> u32 {
    0
}

/// A descriptor that children keep here.
#[derive(Debug)]
pub struct NotInChildren;

impl NotInChildren {
    /// Notes nothing.
    #[must_use]
    pub fn note(_: &impl AsFd) -> Self {
        Self
    }

    /// Returns false: nothing was noted.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        false
    }
}
