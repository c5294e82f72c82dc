//! The role of driving: what is listed is driven, whichever task has the role.

use std::sync::Arc;

use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use super::model;
use crate::DriverRole;

/// A driver whose list holds what is counted here.
#[derive(Default)]
struct Driver {
    role: DriverRole,
    list: Mutex<u32>,
    driven: AtomicU32,
    /// The task of the current generation was called, and runs once more.
    called: AtomicBool,
}

impl Driver {
    fn list(&self) {
        *self.list.lock().unwrap() += 1;
        if self.role.note_listed() {
            self.called.store(true, Ordering::SeqCst);
        }
    }

    /// A task's whole poll, as `Driver::poll` in the crate above has it.
    fn poll(&self, generation: u32) {
        while self.role.begin_work(generation) {
            let taken = if self.role.take_listed() {
                std::mem::take(&mut *self.list.lock().unwrap())
            } else {
                0
            };
            if taken > 0 && self.role.generation() != generation {
                return self.list();
            }
            self.driven.fetch_add(taken, Ordering::SeqCst);
            if !self.role.finish_work(generation) || !self.role.is_listed() {
                return;
            }
        }
    }

    fn leaves_nothing(&self) -> bool {
        *self.list.lock().unwrap() == 0 || self.called.load(Ordering::SeqCst)
    }
}

/// A driver that goes to sleep sees what is listed meanwhile, or is called.
#[test]
fn what_is_listed_is_driven() {
    model(|| {
        let driver = Arc::new(Driver::default());
        let lister = Arc::clone(&driver);
        let lister = thread::spawn(move || lister.list());
        driver.poll(0);
        lister.join().unwrap();
        assert!(driver.leaves_nothing());
    });
}

/// A task that is replaced, and goes on at any moment, neither loses what it holds nor drives beside its successor.
#[test]
fn what_a_replaced_task_holds_is_driven() {
    model(|| {
        let driver = Arc::new(Driver::default());
        driver.list();
        driver.called.store(false, Ordering::SeqCst);
        let watchdog = Arc::clone(&driver);
        let watchdog = thread::spawn(move || {
            let stuck = watchdog.role.snapshot();
            let generation = stuck
                .is_at_work()
                .then(|| watchdog.role.take_over(stuck))
                .flatten();
            if let Some(generation) = generation {
                // All connections are listed anew, and the new task is spawned.
                watchdog.list();
                watchdog.called.store(false, Ordering::SeqCst);
                watchdog.poll(generation);
                assert!(!watchdog.role.begin_work(0), "the old one is out");
            }
        });
        driver.poll(0);
        watchdog.join().unwrap();
        assert!(driver.driven.load(Ordering::SeqCst) > 0 || driver.called.load(Ordering::SeqCst));
        assert!(driver.leaves_nothing());
    });
}
