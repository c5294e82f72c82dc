//! The runtime in which a driver has its task.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use crate::runtime;

/// Where a driver is at home: in a runtime, or for now nowhere.
#[derive(Debug)]
pub(crate) struct Home {
    runtime: Mutex<Option<Handle>>,
    /// Counts the changes: what was registered with a former runtime has to be registered anew.
    changes: AtomicU32,
    /// It is nowhere, or in the process's own runtime: any other is better.
    astray: AtomicBool,
}

impl Home {
    pub(super) fn at(runtime: &Handle) -> Self {
        Self {
            runtime: Mutex::new(Some(runtime.clone())),
            changes: AtomicU32::new(0),
            astray: AtomicBool::new(runtime::is_own(runtime)),
        }
    }

    /// The runtime; `None` where that has ended.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.lock().clone()
    }

    /// Returns true if it is this runtime.
    pub(crate) fn is(&self, id: Id) -> bool {
        let runtime = self.runtime.lock();
        runtime.as_ref().is_some_and(|runtime| runtime.id() == id)
    }

    /// Returns true if this thread is inside of it.
    pub(crate) fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| self.is(here.id()))
    }

    /// Changes whenever the runtime does.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(super) fn is_astray(&self) -> bool {
        self.astray.load(Ordering::Relaxed)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.runtime.lock().is_none()
    }

    /// Moves to a runtime; false if it is at home in one that is as good.
    pub(super) fn move_to(&self, runtime: &Handle) -> bool {
        let mut home = self.runtime.lock();
        let is_own = runtime::is_own(runtime);
        if home
            .as_ref()
            .is_some_and(|home| is_own || !runtime::is_own(home))
        {
            return false;
        }
        *home = Some(runtime.clone());
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.astray.store(is_own, Ordering::SeqCst);
        true
    }

    /// Notes that the runtime has ended.
    pub(super) fn lose(&self) {
        *self.runtime.lock() = None;
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.astray.store(true, Ordering::SeqCst);
    }
}
