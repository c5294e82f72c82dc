//! Keeps a forked child from the connections of its parent.
//!
//! A descriptor that a child inherits keeps the peer from hearing of the parent's death, for as long as the child
//! lives. So at the fork, before anything else runs in the child, an open `/dev/null` takes the place of each that
//! was noted here. A program that is started afterwards inherits none anyway: all are close-on-exec.
//!
//! A child that is made past the C library (clone(2) by hand) keeps them.

use std::cell::UnsafeCell;
use std::fs::File;
use std::hint::spin_loop;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::{DupFlags, dup3};

/// How many forks lie between this process and the first one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Tells a process from those that were forked from it: what was made under another generation is not its own.
///
/// Counts from the first [`NotInChildren`] on.
#[inline]
#[must_use]
pub fn generation() -> u32 {
    // Relaxed: it changes where there is one thread.
    GENERATION.load(Ordering::Relaxed)
}

/// The noted descriptors, behind a lock that the fork itself takes: the child has one thread, and must not find it
/// held by another.
struct Noted {
    locked: AtomicBool,
    list: UnsafeCell<List>,
}

struct List {
    numbers: Vec<RawFd>,
    /// What children get in place of each.
    null: Option<File>,
}

// SAFETY: `list` is reached by who holds the lock alone.
unsafe impl Sync for Noted {}

static NOTED: Noted = Noted {
    locked: AtomicBool::new(false),
    list: UnsafeCell::new(List {
        numbers: Vec::new(),
        null: None,
    }),
};

impl Noted {
    fn lock(&self) {
        // Held for some nanoseconds, or for the length of a fork.
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
            spin_loop();
        }
    }

    fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    fn change(&self, change: impl FnOnce(&mut List)) {
        self.lock();
        // SAFETY: the lock is held until `change` has returned, and it takes no reference away.
        change(unsafe { &mut *self.list.get() });
        self.unlock();
    }
}

/// Forks without exec, for tests. The child runs `work` and exits with what that returns, with 101 where it panics, or
/// by SIGALRM after a minute. Returns the child's process id.
///
/// # Errors
/// What fork(2) fails with.
#[doc(hidden)]
pub fn run_in_child(work: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the child has this thread alone. What other threads held stays held in it: the C library readies its
    // allocator, and the caller's `work` makes a runtime of its own.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: it takes a number alone; a child that hangs is ended by the signal.
            unsafe { libc::alarm(60) };
            let worked = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: it ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(worked.unwrap_or(101)) }
        }
        child => Ok(child),
    }
}

/// A descriptor that no forked child keeps, for as long as this value lives.
#[derive(Debug)]
pub struct NotInChildren {
    number: RawFd,
    generation: u32,
}

impl NotInChildren {
    /// Notes an open descriptor. Drop the value before the descriptor is closed.
    #[must_use]
    pub fn note(descriptor: &impl AsFd) -> Self {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            // Without it (no /dev, no descriptors) children know that they are such, and keep what they have.
            let null = File::open("/dev/null").ok();
            NOTED.change(|list| list.null = null);
            // SAFETY: the three functions take no argument and do not unwind; that of the child makes system calls
            // and touches nothing but a list that the first one has locked. A refusal leaves children as they were.
            unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(replace_in_child)) };
        });
        let number = descriptor.as_fd().as_raw_fd();
        NOTED.change(|list| list.numbers.push(number));
        Self {
            number,
            generation: generation(),
        }
    }

    /// Returns true in a child that was forked since.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.generation != generation()
    }
}

impl Drop for NotInChildren {
    fn drop(&mut self) {
        NOTED.change(|list| {
            let at = list
                .numbers
                .iter()
                .position(|number| *number == self.number);
            at.map(|at| list.numbers.swap_remove(at));
        });
    }
}

extern "C" fn lock() {
    NOTED.lock();
}

extern "C" fn unlock() {
    NOTED.unlock();
}

extern "C" fn replace_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // SAFETY: `lock` ran before the fork, and this is the child's only thread.
    let list = unsafe { &*NOTED.list.get() };
    for number in &list.numbers {
        // SAFETY: the number is open, since its note is dropped before it is closed. Its owner keeps it: this value
        // is never dropped.
        let mut owned = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(*number) });
        if let Some(null) = &list.null {
            let _ = dup3(null, &mut owned, DupFlags::CLOEXEC);
        }
    }
    NOTED.unlock();
}
