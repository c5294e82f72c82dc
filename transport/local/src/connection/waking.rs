//! Who looks at a connection's ring, who sleeps, and how the driver is called.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Connection;
use crate::driver::Driver;
use crate::link::shm::Blocks;

/// A peer that is awake is rung for when it has taken nothing for so long. A timer costs some 10 us of CPU, and a
/// conversation leaves records for a moment all the time.
const REMIND_AFTER: Duration = Duration::from_millis(4);
/// The time to the second ring, which has a stuck driver taken over.
const REMIND_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// The longest time between two rings for a peer that does not come up.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl Connection {
    /// Whether a pass would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.watch.has_work()
    }

    /// Whether the peer was rung for, and can hardly come up before this thread makes way.
    pub(crate) fn peer_waits_for_this_cpu(&self) -> bool {
        self.watch.peer_waits_for_this_cpu()
    }

    /// Puts the connection on the driver's list, unless it is there.
    pub(crate) fn mark_ready(&self) {
        if !self.listed.swap(true, Ordering::SeqCst)
            && let Some(connection) = self.me.upgrade()
        {
            self.driver.add_ready(connection);
        }
    }

    /// Has the driver look at the ring for somebody who waits and did not look. Until it comes, this side is
    /// away, not asleep.
    pub(crate) fn ask_for_a_look(&self) {
        if self.promise_look() {
            self.armed.store(true, Ordering::SeqCst);
            self.watch.step_out();
        }
        self.mark_ready();
    }

    /// The driver is to look, and counts as one who does from here on, until [`Self::unlist`] hands that over.
    /// True if it was not to look yet.
    fn promise_look(&self) -> bool {
        let first = !self.look_wanted.load(Ordering::SeqCst)
            && !self.look_wanted.swap(true, Ordering::SeqCst);
        if first {
            self.lookers.fetch_add(1, Ordering::SeqCst);
        }
        first
    }

    /// Whether tasks were woken that have not all had their turn.
    pub(crate) fn others_first(&self) -> bool {
        self.driver.others_first()
    }

    /// Lets tasks run that this thread has woken, and has the driver look at the ring after them.
    pub(crate) fn let_others_run(&self) {
        let unasked = self.promise_look();
        self.driver
            .let_others_run(unasked.then(|| Weak::clone(&self.me)));
    }

    /// The driver takes it from its list: from here on it can be listed anew. True if the driver is to look
    /// at the ring: it does from here on, as if it had said [`Self::keep_awake`].
    pub(crate) fn unlist(&self) -> bool {
        self.listed.store(false, Ordering::SeqCst);
        let looks = self.look_wanted.load(Ordering::SeqCst)
            && self.look_wanted.swap(false, Ordering::SeqCst);
        if looks {
            self.step_in();
        }
        looks
    }

    /// Notes that a descriptor or the timer wants to be looked at.
    pub(crate) fn stir(&self) {
        self.stirred.store(true, Ordering::SeqCst);
        self.call_driver();
    }

    /// Puts the connection on the driver's list, and has it done in time even if the driver is stuck in the
    /// user's code.
    pub(crate) fn call_driver(&self) {
        let at_work = self.driver.is_at_work();
        self.mark_ready();
        if at_work && self.watch.is_rung_when_stuck() {
            self.driver.note_ring();
        } else if at_work {
            self.driver.guard();
        }
    }

    /// Returns true if it is `driver` that drives the connection.
    pub(crate) fn is_driven_by(&self, driver: &Arc<Driver>) -> bool {
        Arc::ptr_eq(&self.driver, driver)
    }

    /// Puts the connection on the driver's list, also if it stood on that of a driver that was replaced.
    pub(crate) fn list_anew(&self) {
        self.listed.store(false, Ordering::SeqCst);
        self.mark_ready();
    }

    /// Somebody looks at the ring by itself from here on: the peer need not ring.
    pub(crate) fn keep_awake(&self) {
        self.lookers.fetch_add(1, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.watch.disarm();
        }
    }

    /// The end of [`Self::keep_awake`]. The last one arms the doorbell.
    pub(crate) fn let_sleep(&self) {
        self.lookers.fetch_sub(1, Ordering::SeqCst);
        self.rely_on_doorbell();
    }

    /// Whoever looks goes to run tasks, and will look again after them; false if there is something to
    /// do first.
    pub(crate) fn step_out(&self) -> bool {
        self.armed.store(true, Ordering::SeqCst);
        self.watch.step_out();
        !self.has_work()
    }

    /// Whoever stepped out looks again.
    pub(crate) fn step_in(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.watch.disarm();
        }
    }

    /// The same for a caller that has its answer. `quiet` says that no other call was in flight, as
    /// of which opening: then nobody waits, and whoever comes to wait arms the doorbell. Compared
    /// only after this side has ceased to look, so that a call opened meanwhile either is seen here
    /// or sees that nobody looks. A doorbell that is armed all the same, by somebody whom this look has
    /// crossed, may have been rung for while the driver relied on the look: it is armed anew.
    pub(crate) fn let_sleep_if_awaited(&self, quiet: Option<u32>) {
        self.lookers.fetch_sub(1, Ordering::SeqCst);
        if quiet != Some(self.opened.load(Ordering::SeqCst)) || self.watch.is_armed() {
            self.rely_on_doorbell();
        }
    }

    /// Has the peer ring for whoever waits from now on, unless somebody looks, or has asked for it already:
    /// if the peer has rung since, the driver comes and asks anew.
    pub(crate) fn wait_for_doorbell(&self) {
        fence(Ordering::SeqCst);
        if !self.watch.is_armed() {
            self.arm_unless_somebody_looks();
        } else {
            self.ring_before_sleep();
        }
    }

    fn ring_before_sleep(&self) {
        if self.watch.ring_before_sleep() {
            self.tallies.rings.add_one();
        } else {
            self.remind_peer();
        }
    }

    /// Has the peer rung for in a while if it still leaves lying what was sent: awake, it may be stuck in its
    /// user's code.
    pub(crate) fn remind_peer(&self) {
        if let Some(left_at) = self.watch.records_left_at()
            && !self.reminding.load(Ordering::SeqCst)
            && !self.reminding.swap(true, Ordering::SeqCst)
        {
            self.driver.spawn(remind(Weak::clone(&self.me), left_at));
        }
    }

    /// Has the peer ring for what it sends from now on, unless somebody looks; then looks once
    /// more. Whoever goes to sleep calls it last.
    pub(crate) fn rely_on_doorbell(&self) {
        // Whoever looks may just cease to: it compares `opened` then (`let_sleep_if_awaited`).
        fence(Ordering::SeqCst);
        self.arm_unless_somebody_looks();
    }

    /// Call it after a fence.
    fn arm_unless_somebody_looks(&self) {
        if self.lookers.load(Ordering::SeqCst) > 0 {
            return;
        }
        // Always anew, whatever `armed` says: the peer rings once for each time, and may have rung
        // for the last one already. Somebody who came to look meanwhile arms again when it leaves.
        self.armed.store(true, Ordering::SeqCst);
        self.watch.arm();
        let memory_awaited = self.blocks().is_some_and(Blocks::is_awaited);
        self.watch.arm_for_room(memory_awaited);
        self.ring_before_sleep();
        self.tallies.sleeps.add_one();
        if self.has_work() || (memory_awaited && self.blocks().is_some_and(Blocks::may_have_room)) {
            self.mark_ready();
        }
    }
}

/// Rings a peer that takes nothing, until it takes all.
async fn remind(connection: Weak<Connection>, mut left_at: u64) {
    let mut pause = REMIND_AFTER;
    let mut next_pause = REMIND_AGAIN_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        let Some(connection) = connection
            .upgrade()
            .filter(|connection| connection.is_open())
        else {
            return;
        };
        let Some(left_now) = connection.watch.records_left_at() else {
            connection.reminding.store(false, Ordering::SeqCst);
            // A task that has left records since has found this one at work.
            connection.remind_peer();
            return;
        };
        if left_now == left_at {
            connection.watch.ring();
            connection.tallies.rings.add_one();
            pause = next_pause;
            next_pause = (next_pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = REMIND_AFTER;
            next_pause = REMIND_AGAIN_AFTER;
        }
        left_at = left_now;
    }
}
