//! Who looks at a connection's ring, who sleeps, and how the driver is called.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};
use std::task::Waker;

use ringway_wire::code;

use super::Connection;
use crate::driver::Driver;
use crate::link::shm::Blocks;

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
            if self.driver_looks.swap(true, Ordering::SeqCst) {
                // It counts already.
                self.lookers.fetch_sub(1, Ordering::SeqCst);
            }
            self.step_in();
        }
        looks
    }

    /// Notes that a descriptor or the timer wants to be looked at.
    pub(crate) fn stir(&self) {
        self.stirred.store(true, Ordering::SeqCst);
        self.mark_ready();
    }

    /// Returns true if it is `driver` that drives the connection.
    pub(crate) fn is_driven_by(&self, driver: &Arc<Driver>) -> bool {
        Arc::ptr_eq(&self.driver, driver)
    }

    /// The driver's task has ended with its runtime: nothing is on its list, and nobody looks for it. What that
    /// runtime polled in passes is gone with it.
    pub(crate) fn lose_driver(&self) {
        self.listed.store(false, Ordering::SeqCst);
        self.stirred.store(true, Ordering::SeqCst);
        if self.look_wanted.swap(false, Ordering::SeqCst) {
            self.lookers.fetch_sub(1, Ordering::SeqCst);
        }
        if self.driver_looks.swap(false, Ordering::SeqCst) {
            self.lookers.fetch_sub(1, Ordering::SeqCst);
        }
        if self.is_client() {
            let gone = self.lock().take_inline_work();
            for (id, work) in gone {
                drop(work);
                let reader = self.lock().give_up(id, code::CANCELLED);
                reader.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Has the driver's task run in the runtime at hand where its own has ended.
    #[inline]
    pub(crate) fn ensure_driven(&self) {
        self.driver.ensure_driven();
    }

    /// Puts the connection on the driver's list, also if it stood on that of a driver that was replaced.
    pub(crate) fn list_anew(&self) {
        self.listed.store(false, Ordering::SeqCst);
        self.cease_to_look_as_driver();
        self.mark_ready();
    }

    /// The driver looks at the ring from here on, on behalf of all that wait.
    pub(crate) fn look_as_driver(&self) {
        if !self.driver_looks.swap(true, Ordering::SeqCst) {
            self.keep_awake();
        }
    }

    /// The end of [`Self::look_as_driver`]. A driver that was replaced does not look any more, whatever it finds
    /// when it goes on: so the doorbell is armed in any case.
    pub(crate) fn cease_to_look_as_driver(&self) {
        if self.driver_looks.swap(false, Ordering::SeqCst) {
            self.lookers.fetch_sub(1, Ordering::SeqCst);
        }
        self.rely_on_doorbell();
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
