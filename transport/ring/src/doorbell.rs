//! Who sleeps, and who must be rung for.
//!
//! No wakeup is lost, by Dekker's argument. The sleeper stores its word, fences, looks at the ring,
//! and sleeps if it sees nothing. The other side publishes, fences, and looks at the word. Both
//! fences are SeqCst, so one comes first in the single order of all such fences: if the sleeper's,
//! the other side sees the word and rings; if the publisher's, the sleeper sees what was published
//! and does not sleep. Release and Acquire alone would allow both to miss each other, because each
//! side's store may still wait in its store buffer when its load is served.
//!
//! Beside the word stands the CPU on which its owner went to sleep. The kernel often wakes a thread
//! where it slept. If that is where the ringer runs, the sleeper cannot come up before the ringer
//! makes way, so to look for its answer would be in vain: [`PeerSleep`] tells.
//!
//! The word is a counter and not a flag, so that a sleeper costs one doorbell and not one per
//! message: a value that was rung for is not rung for again. Its two lowest bits say how the owner
//! waits:
//!
//! | bits | the owner | rung |
//! | --- | --- | --- |
//! | 0 | looks at the ring | never |
//! | 1 | sleeps | at once |
//! | 2 | is away: runs what it was woken for, and will look again by itself | when the peer goes to sleep and finds that its records were not taken |
//!
//! Being away saves the doorbells of a busy conversation, and the ring before sleep bounds how long
//! a record may lie there if the owner does not come back soon.

use std::sync::Arc;

use crate::{
    memory::{Own, Peer},
    sync::{AtomicU32, Ordering, fence},
};

/// How the owner of a word waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Posture {
    Looking = 0,
    Asleep = 1,
    Away = 2,
}

const POSTURE_BITS: u32 = 3;

/// How a peer waits, as far as the other side can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepPosture {
    /// It polls its ring, or runs and will poll again.
    Awake,
    /// It went to sleep and was rung for.
    Rung,
    /// It sleeps.
    Asleep,
}

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
        if self.reason == Reason::Records {
            // Relaxed: a hint. One that comes late is wrong once.
            self.own.sleep_cpu().store(current_cpu(), Ordering::Relaxed);
        }
        self.change(Posture::Asleep);
        fence(Ordering::SeqCst);
    }

    /// Whether sleep is announced. It may have been rung for since.
    pub fn is_armed(&self) -> bool {
        // Relaxed: nothing is handed over with the word.
        self.word().load(Ordering::Relaxed) & POSTURE_BITS == Posture::Asleep as u32
    }

    /// Announces that this side looks by itself again. Late or missing, it only costs a doorbell.
    pub fn disarm(&self) {
        self.change(Posture::Looking);
    }

    /// Announces that this side will look again by itself, but perhaps not soon. The caller must look
    /// once more afterwards, as for [`arm`](Self::arm).
    pub fn step_out(&self) {
        self.change(Posture::Away);
        fence(Ordering::SeqCst);
    }

    /// After a doorbell: if this side is away, it is so anew, and rung for anew.
    pub fn renew_absence(&self) {
        let away = |word: u32| word & POSTURE_BITS == Posture::Away as u32;
        let next = |word| away(word).then(|| Self::next(word, Posture::Away));
        // Relaxed: nothing is handed over with the word, and who is away comes back by itself. Whoever has
        // changed it meanwhile knows better.
        let _ = self
            .word()
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Whether this side has said that it is away.
    pub fn is_away(&self) -> bool {
        // Relaxed: nothing is handed over with the word.
        self.word().load(Ordering::Relaxed) & POSTURE_BITS == Posture::Away as u32
    }

    /// Reading back is sound here: the page is this side's own, which the kernel lets nobody else
    /// write, and a wrong value could only cost or save a doorbell.
    fn change(&self, posture: Posture) {
        let word = self.word();
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            // Relaxed: nothing is handed over with the word, and `arm` fences by itself.
            match word.compare_exchange_weak(
                seen,
                Self::next(seen, posture),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(current) => seen = current,
            }
        }
    }

    /// The word's value after `word`, for another posture or for the same one anew.
    fn next(word: u32, posture: Posture) -> u32 {
        (word | POSTURE_BITS).wrapping_add(1) | posture as u32
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
    /// Zero is never rung for, so it means "none yet".
    rung_for: Arc<AtomicU32>,
}

impl Bell {
    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            rung_for: Arc::new(AtomicU32::new(0)),
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
        word & POSTURE_BITS == Posture::Asleep as u32 && is_first_ring(&self.rung_for, word)
    }

    pub(crate) fn rung_for(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.rung_for)
    }
}

/// Whether `word` was not rung for before; notes that it is now.
fn is_first_ring(rung_for: &AtomicU32, word: u32) -> bool {
    // Relaxed, and no exchange: two threads at once may ring twice, which harms nobody.
    let first = rung_for.load(Ordering::Relaxed) != word;
    if first {
        rung_for.store(word, Ordering::Relaxed);
    }
    first
}

/// What this side knows of the peer's sleep, for any thread, without a lock. Hints only: the peer
/// writes the words, and a wrong one costs time, nothing else.
#[derive(Debug, Clone)]
pub struct PeerSleep {
    own: Own,
    peer: Peer,
    rung_for: Arc<AtomicU32>,
}

impl PeerSleep {
    pub(crate) fn new(own: Own, peer: Peer, rung_for: Arc<AtomicU32>) -> Self {
        Self {
            own,
            peer,
            rung_for,
        }
    }

    /// Before this side sleeps, after it has armed its own word: whether the peer is away and has
    /// not taken everything, so that it needs a doorbell. True once per absence.
    pub fn must_be_rung_before_sleep(&self) -> bool {
        // Relaxed: the arming's fence comes between whatever was published and this look, and the
        // peer's between its word and its own.
        let word = self.peer.sleep_word().load(Ordering::Relaxed);
        word & POSTURE_BITS == Posture::Away as u32
            && self.peer.consumer_cursor() != self.own.producer_index()
            && is_first_ring(&self.rung_for, word)
    }

    /// How the peer waits. A hint: the peer writes the word.
    pub fn posture(&self) -> SleepPosture {
        let word = self.peer.sleep_word().load(Ordering::Relaxed);
        if word & POSTURE_BITS != Posture::Asleep as u32 {
            SleepPosture::Awake
        } else if word == self.rung_for.load(Ordering::Relaxed) {
            SleepPosture::Rung
        } else {
            SleepPosture::Asleep
        }
    }

    /// Whether the peer was rung for, has not come up yet, and went to sleep on the CPU that this
    /// thread runs on: then it will hardly come up before this thread makes way.
    pub fn waits_for_this_cpu(&self) -> bool {
        let word = self.peer.sleep_word().load(Ordering::Relaxed);
        word & POSTURE_BITS == Posture::Asleep as u32
            && word == self.rung_for.load(Ordering::Relaxed)
            && self.peer.sleep_cpu().load(Ordering::Relaxed) == current_cpu()
    }
}

#[cfg(all(target_os = "linux", not(loom)))]
fn current_cpu() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}

#[cfg(any(loom, not(target_os = "linux")))]
fn current_cpu() -> u32 {
    0
}
