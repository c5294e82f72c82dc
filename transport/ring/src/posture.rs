//! The posture of one side of a connection: which of its threads poll, and the announcement that its peer reads.
//!
//! | posture | announced | the peer rings |
//! | --- | --- | --- |
//! | polling | a caller or the driver polls the ring | never |
//! | yielded | the driver runs tasks, and polls after them | before it parks, if its records were not taken |
//! | asleep | no thread of this side polls | for the next record, once |
//!
//! Invariant: while a record lies in the ring, one thread of this side polls, or is about to, or the peer has rung
//! or is going to. loom checks it over this code together with the doorbell's (`tests/loom/posture.rs`).
//!
//! Each method that may leave the side without a poller announces first and looks at the ring afterwards. It
//! returns true where something lies there: the driver has to come.

use crate::sync::{AtomicBool, AtomicU32, Ordering, between_seq_cst, fence};

/// The link that a posture is announced over.
pub trait Announce {
    /// Announces sleep, with a fence behind it: the peer rings for what it publishes from now on.
    fn announce_sleep(&self);
    /// Announces that this side polls again by itself, with a fence behind it.
    fn announce_yield(&self);
    /// Announces that this side polls. Late or missing, it only costs a doorbell.
    fn announce_polling(&self);
    /// Returns true if sleep is announced.
    fn is_asleep(&self) -> bool;
    /// Rings for a peer that has yielded and has left records of this side.
    fn ring_before_sleep(&self);
    /// Returns true if anything lies there that a pass would take.
    fn has_work(&self) -> bool;
}

/// The posture of one side, for all of its threads, without a lock.
#[derive(Debug)]
pub struct SidePosture {
    /// Threads that poll, the driver included from the request for its poll on. The peer rings while it is zero.
    pollers: AtomicU32,
    /// The driver polls: counted in `pollers`.
    driver_polls: AtomicBool,
    /// The driver is to poll: counted in `pollers`.
    poll_requested: AtomicBool,
    /// Sleep or a yield was announced: there is something to take back.
    announced: AtomicBool,
    /// Calls opened so far, counted round and round.
    opened: AtomicU32,
}

impl Default for SidePosture {
    fn default() -> Self {
        Self {
            pollers: AtomicU32::new(0),
            driver_polls: AtomicBool::new(false),
            poll_requested: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            opened: AtomicU32::new(0),
        }
    }
}

impl SidePosture {
    /// Counts a call. Called under the lock that guards the side's calls.
    #[inline]
    pub fn note_opened(&self) {
        let opened = self.opened.load(Ordering::Relaxed).wrapping_add(1);
        self.opened.store(opened, Ordering::Relaxed);
    }

    /// Returns the number of calls opened so far, counted round and round.
    #[inline]
    pub fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Has one more thread poll: the peer need not ring.
    #[inline]
    pub fn begin_polling(&self, link: &impl Announce) {
        self.pollers.fetch_add(1, Ordering::SeqCst);
        between_seq_cst();
        if self.announced.load(Ordering::SeqCst) {
            self.resume(link);
        }
    }

    /// Ends [`Self::begin_polling`]. The last poller announces sleep.
    #[must_use]
    pub fn finish_polling(&self, link: &impl Announce) -> bool {
        self.pollers.fetch_sub(1, Ordering::SeqCst);
        self.rely_on_doorbell(link)
    }

    /// Ends [`Self::begin_polling`] of a caller that has its answer. `quiet` says that no other call was in flight,
    /// as of which opening: then no task waits, and the next one that does announces sleep. The comparison comes
    /// after this caller has ceased to poll: a call opened meanwhile either is seen here, or its task sees that no
    /// thread polls. Sleep that is announced all the same, by a task whose look this poll has crossed, may have
    /// been rung for already: it is announced anew.
    #[must_use]
    #[inline]
    pub fn finish_answered(&self, link: &impl Announce, quiet: Option<u32>) -> bool {
        self.pollers.fetch_sub(1, Ordering::SeqCst);
        between_seq_cst();
        if quiet != Some(self.opened.load(Ordering::SeqCst)) || link.is_asleep() {
            return self.rely_on_doorbell(link);
        }
        false
    }

    /// Has the driver poll from here on, on behalf of all tasks.
    pub fn begin_driver_polling(&self, link: &impl Announce) {
        if !self.driver_polls.swap(true, Ordering::SeqCst) {
            self.begin_polling(link);
        }
    }

    /// Ends [`Self::begin_driver_polling`]. Sleep is announced in any case: a driver that was replaced does not poll
    /// any more, whatever it finds when it goes on.
    #[must_use]
    pub fn finish_driver_polling(&self, link: &impl Announce) -> bool {
        if self.driver_polls.swap(false, Ordering::SeqCst) {
            self.pollers.fetch_sub(1, Ordering::SeqCst);
        }
        self.rely_on_doorbell(link)
    }

    /// Requests a poll of the driver, which counts as a poller until [`Self::accept_request`]. Returns true if none
    /// was requested yet. The caller has the driver come.
    pub fn request_poll(&self) -> bool {
        let first = !self.poll_requested.load(Ordering::SeqCst)
            && !self.poll_requested.swap(true, Ordering::SeqCst);
        if first {
            self.pollers.fetch_add(1, Ordering::SeqCst);
        }
        first
    }

    /// Requests a poll of the driver for a task that parks without having polled. The side is yielded until the
    /// driver comes, and the peer need not ring. The caller has the driver come.
    pub fn request_poll_and_yield(&self, link: &impl Announce) {
        if self.request_poll() {
            self.announced.store(true, Ordering::SeqCst);
            link.announce_yield();
        }
    }

    /// Has the driver take up a request, if there is one. Returns true if it polls from here on.
    pub fn accept_request(&self, link: &impl Announce) -> bool {
        let requested = self.poll_requested.load(Ordering::SeqCst)
            && self.poll_requested.swap(false, Ordering::SeqCst);
        if requested {
            if self.driver_polls.swap(true, Ordering::SeqCst) {
                // It counts already.
                self.pollers.fetch_sub(1, Ordering::SeqCst);
            }
            self.resume(link);
        }
        requested
    }

    /// Announces that the driver runs tasks and polls after them. Returns true if there is something to do first.
    #[must_use]
    pub fn yield_to_tasks(&self, link: &impl Announce) -> bool {
        self.announced.store(true, Ordering::SeqCst);
        link.announce_yield();
        link.has_work()
    }

    /// Has a poller go on after [`Self::yield_to_tasks`].
    pub fn resume(&self, link: &impl Announce) {
        if self.announced.swap(false, Ordering::SeqCst) {
            link.announce_polling();
        }
    }

    /// Has the peer ring for a task that parks, unless a thread polls or the peer was asked already: if it has rung
    /// since, the driver comes and asks anew.
    #[must_use]
    pub fn wait_for_doorbell(&self, link: &impl Announce) -> bool {
        fence(Ordering::SeqCst);
        if link.is_asleep() {
            link.ring_before_sleep();
            return false;
        }
        self.sleep_unless_polled(link)
    }

    /// Has the peer ring for what it sends from now on, unless a thread polls. Called last before sleep.
    #[must_use]
    pub fn rely_on_doorbell(&self, link: &impl Announce) -> bool {
        // A poller may just cease: it compares `opened` then.
        fence(Ordering::SeqCst);
        self.sleep_unless_polled(link)
    }

    /// Called behind a fence.
    fn sleep_unless_polled(&self, link: &impl Announce) -> bool {
        if self.pollers.load(Ordering::SeqCst) > 0 {
            return false;
        }
        // Always anew, whatever was announced: the peer rings once for each sleep, and may have rung for the last
        // one already. A poller that has begun meanwhile announces sleep again when it ends.
        self.announced.store(true, Ordering::SeqCst);
        link.announce_sleep();
        link.ring_before_sleep();
        link.has_work()
    }
}
