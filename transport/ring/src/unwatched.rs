//! In place of `file_watch` on other systems than Linux, where no memory file is ever made.

use std::{os::fd::AsFd, sync::Arc};

use crate::MemoryBudget;

pub(crate) fn watch(_: impl AsFd, _: &Arc<MemoryBudget>, _: u64) -> bool {
    false
}

pub(crate) fn settle() {}
