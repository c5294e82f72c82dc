//! Keeps a forked child from what its parent shares with others.
//!
//! No mapping of a region goes into a child: two producers would publish over each other. But a child has the
//! parent's values, and what they would touch is not there. So at the fork, before anything else runs in the child,
//! private empty memory takes each mapping's place. Code that goes on in the child reads zeros, which no check takes
//! for a peer's words, and writes where nobody reads.
//!
//! A child that is made past the C library (clone(2) by hand) has neither.

use std::{
    ffi::c_void,
    hint::spin_loop,
    ptr,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The mappings of this process, behind a lock that the fork itself takes: the child has one thread, and must not
/// find it held by another.
struct Mapped {
    locked: AtomicBool,
    ranges: std::cell::UnsafeCell<Vec<(usize, usize)>>,
}

// SAFETY: `ranges` is reached by who holds the lock alone.
unsafe impl Sync for Mapped {}

static MAPPED: Mapped = Mapped {
    locked: AtomicBool::new(false),
    ranges: std::cell::UnsafeCell::new(Vec::new()),
};

impl Mapped {
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

    fn change(&self, change: impl FnOnce(&mut Vec<(usize, usize)>)) {
        self.lock();
        // SAFETY: the lock is held until `change` has returned, and it takes no reference away.
        change(unsafe { &mut *self.ranges.get() });
        self.unlock();
    }
}

/// Has a child find private memory in place of a mapping.
pub(crate) fn note_mapped(base: *mut c_void, len: usize) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        // SAFETY: the three functions take no argument and do not unwind; that of the child makes system calls and
        // touches nothing but a list that the first one has locked. A refusal leaves children as they were.
        unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(replace_in_child)) };
    });
    MAPPED.change(|ranges| ranges.push((base as usize, len)));
}

/// The end of [`note_mapped`], before the mapping goes.
pub(crate) fn note_unmapped(base: *mut c_void) {
    MAPPED.change(|ranges| {
        let at = ranges.iter().position(|(known, _)| *known == base as usize);
        at.map(|at| ranges.swap_remove(at));
    });
}

extern "C" fn lock() {
    MAPPED.lock();
}

extern "C" fn unlock() {
    MAPPED.unlock();
}

extern "C" fn replace_in_child() {
    // SAFETY: `lock` ran before the fork, and this is the child's only thread.
    for (base, len) in unsafe { &*MAPPED.ranges.get() } {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let base = ptr::with_exposed_provenance_mut(*base);
        // SAFETY: the range was a mapping of the parent's that the kernel left out of the child, whose values for it
        // are the only ones that reach there. What others' handlers of the fork have mapped there since is left alone:
        // by the flag, and before Linux 4.17, which takes it for a hint, by the mapping's lying elsewhere.
        let mapped = unsafe { mmap_anonymous(base, *len, prot, flags) };
        if let Ok(mapped) = mapped
            && mapped != base
        {
            // SAFETY: the mapping was just made, and nothing reaches it.
            let _ = unsafe { munmap(mapped, *len) };
        }
    }
    MAPPED.unlock();
}
