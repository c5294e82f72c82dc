//! Who sleeps, and who must be rung for.
//!
//! No wakeup is lost, by Dekker's argument. The sleeper stores its word, fences, looks at the ring,
//! and sleeps if it sees nothing. The other side publishes, fences, and looks at the word. Both
//! fences are SeqCst, so one comes first in the single order of all such fences: if the sleeper's,
//! the other side sees the word and rings; if the publisher's, the sleeper sees what was published
//! and does not sleep. Release and Acquire alone would allow both to miss each other, because each
//! side's store may still wait in its store buffer when its load is served.
//!
//! The word is a counter and not a flag, so that a sleeper costs one doorbell and not one per
//! message: a value that was rung for is not rung for again.

use crate::{
    memory::{Own, Peer},
    sync::{AtomicU32, Ordering, fence},
};

/// Which of the two reasons to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The consumer waits for records.
    Records,
    /// The producer waits for ring space or for released blocks.
    Room,
}

/// This side's sleep word: says to the peer's producer whether a doorbell is needed.
///
/// A handle without a lock, for whichever thread is about to sleep. Several may share it: it is armed
/// as long as the last call was [`arm`](Self::arm).
#[derive(Debug, Clone)]
pub struct SleepWord {
    own: Own,
    reason: Reason,
}

impl SleepWord {
    pub(crate) fn new(own: Own, reason: Reason) -> Self {
        Self { own, reason }
    }

    /// Announces sleep. The caller must look again afterwards (and after every wakeup), and only sleep
    /// if there is nothing. Arming again starts a new sleep, which is rung for anew.
    pub fn arm(&self) {
        self.change(|word| word.wrapping_add(1) | 1);
        fence(Ordering::SeqCst);
    }

    /// Announces that this side looks by itself again. Late or missing, it only costs a doorbell.
    pub fn disarm(&self) {
        self.change(|word| word.wrapping_add(1) & !1);
    }

    /// Reading back is sound here: the page is this side's own, which the kernel lets nobody else
    /// write, and a wrong value could only cost or save a doorbell.
    fn change(&self, next: impl Fn(u32) -> u32) {
        let word = self.word();
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            // Relaxed: nothing is handed over with the word, and `arm` fences by itself.
            match word.compare_exchange_weak(seen, next(seen), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => seen = current,
            }
        }
    }

    fn word(&self) -> &AtomicU32 {
        match self.reason {
            Reason::Records => self.own.sleep_word(),
            Reason::Room => self.own.room_word(),
        }
    }
}

/// The other end: looks whether the peer sleeps, and remembers for which sleep it has rung.
#[derive(Debug)]
pub(crate) struct Bell {
    reason: Reason,
    /// Even values are never rung for, so zero means "none yet".
    rung_for: u32,
}

impl Bell {
    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            rung_for: 0,
        }
    }

    /// After publishing: whether the peer sleeps and was not yet rung for.
    pub(crate) fn must_ring(&mut self, peer: &Peer) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: the fence above does all the ordering. A hostile word buys its owner one doorbell
        // (a write to an eventfd that cannot block) per value that it shows us.
        let word = match self.reason {
            Reason::Records => peer.sleep_word(),
            Reason::Room => peer.room_word(),
        }
        .load(Ordering::Relaxed);
        let ring = word & 1 == 1 && word != self.rung_for;
        if ring {
            self.rung_for = word;
        }
        ring
    }
}
