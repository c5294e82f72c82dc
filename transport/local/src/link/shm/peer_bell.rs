//! The doorbell of a peer, which it shares with whoever rings.
//!
//! `O_NONBLOCK` belongs to the open file, so a peer may clear it at any time, fill the counter, and so hold up the
//! thread that rings. No doorbell that a ringer has for itself wakes as cheaply (a pipe can be held up as well, by
//! its reader's splice(2); a socket costs half a microsecond more), so this one is watched: each thread says which
//! doorbell it rings, and the [watchdog](crate::watchdog) empties one that holds a thread up for longer than a tick.
//! Its connection ends then.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ringway_sys::EventFd;

use crate::watchdog;

/// The ringer of each thread that has ever rung.
static RINGERS: Mutex<Vec<Weak<Ringer>>> = Mutex::new(Vec::new());

thread_local! {
    static RINGER: Arc<Ringer> = Ringer::register();
}

/// A doorbell that is rung for a peer.
#[derive(Debug)]
pub(crate) struct PeerBell {
    bell: EventFd,
    number: u64,
    /// It has held up a thread, and is not rung any more.
    blocks: AtomicBool,
}

impl PeerBell {
    pub(crate) fn new(bell: EventFd) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            bell,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            blocks: AtomicBool::new(false),
        }
    }

    /// Wakes the peer.
    pub(crate) fn ring(&self) -> io::Result<()> {
        if self.has_blocked() {
            return Ok(());
        }
        watchdog::note_work();
        let marked = RINGER.try_with(|ringer| ringer.begin(self.number));
        let rung = self.bell.ring();
        if marked.is_ok() {
            // A thread that ends has no ringer any more.
            let _ = RINGER.try_with(|ringer| ringer.end());
        }
        rung
    }

    /// Whether it has held a thread up.
    pub(crate) fn has_blocked(&self) -> bool {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Returns true if it is the one that `held` waits at, and really was in its way.
    pub(crate) fn frees(&self, held: Held) -> bool {
        if self.number != held.bell {
            return false;
        }
        let was_full = self.bell.relieve();
        // Without `/proc` or a kernel that can empty it, there is nothing to be done for the thread.
        if matches!(was_full, Ok(true)) {
            self.blocks.store(true, Ordering::Relaxed);
        }
        self.has_blocked()
    }
}

/// What a thread rings just now.
#[derive(Debug, Default)]
struct Ringer {
    /// The doorbell's number; 0 while it rings none.
    bell: AtomicU64,
    /// How often it has rung, round and round. Both are written by the thread alone.
    rings: AtomicU32,
}

impl Ringer {
    fn register() -> Arc<Self> {
        let ringer = Arc::default();
        let mut ringers = RINGERS.lock();
        ringers.retain(|ringer| ringer.strong_count() > 0);
        ringers.push(Arc::downgrade(&ringer));
        ringer
    }

    fn begin(&self, bell: u64) {
        let rings = self.rings.load(Ordering::Relaxed).wrapping_add(1);
        self.rings.store(rings, Ordering::Relaxed);
        self.bell.store(bell, Ordering::Release);
    }

    fn end(&self) {
        self.bell.store(0, Ordering::Release);
    }

    fn held(self: &Arc<Self>) -> Option<Held> {
        let bell = self.bell.load(Ordering::Acquire);
        (bell != 0).then(|| Held {
            thread: Arc::as_ptr(self).addr(),
            bell,
            rings: self.rings.load(Ordering::Relaxed),
        })
    }
}

/// A thread that rings, at one of its rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    thread: usize,
    bell: u64,
    rings: u32,
}

/// All threads that ring just now: at two looks at the same ring, one is held up, or has no CPU.
pub(crate) fn ringing() -> Vec<Held> {
    let ringers = RINGERS.lock();
    let alive = ringers.iter().filter_map(Weak::upgrade);
    alive.filter_map(|ringer| ringer.held()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    fn only(bell: &PeerBell) -> Option<Held> {
        ringing().into_iter().find(|held| held.bell == bell.number)
    }

    #[test]
    fn a_full_doorbell_holds_nobody_up_for_long() {
        let bell = Arc::new(PeerBell::new(EventFd::new().unwrap()));
        bell.ring().unwrap();
        assert!(only(&bell).is_none(), "it is rung");
        rustix::io::write(&bell.bell, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        fcntl_setfl(&bell.bell, OFlags::empty()).unwrap();
        let rings = Arc::clone(&bell);
        let thread = std::thread::spawn(move || rings.ring());
        let began = Instant::now();
        let held = loop {
            if let Some(held) = only(&bell) {
                break held;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "it does not ring");
        };
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(only(&bell), Some(held), "it hangs");
        let other = PeerBell::new(EventFd::new().unwrap());
        assert!(!other.frees(held), "which is not in the way");
        assert!(bell.frees(held));
        thread.join().unwrap().unwrap();
        // And blocks nobody again.
        rustix::io::write(&bell.bell, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        bell.ring().unwrap();
    }

    #[test]
    fn a_thread_that_merely_rings_keeps_its_connection() {
        let bell = PeerBell::new(EventFd::new().unwrap());
        RINGER.with(|ringer| ringer.begin(bell.number));
        let held = only(&bell).unwrap();
        assert!(!bell.frees(held) && !bell.has_blocked());
        RINGER.with(|ringer| ringer.end());
    }
}
