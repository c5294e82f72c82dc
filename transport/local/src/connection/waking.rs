//! Who looks at a connection's ring, who sleeps, and how the driver is called. The rules of it are
//! [`SidePosture`]'s, which loom checks; here they meet the link and the driver.

use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Waker;

use ringway_wire::code;

use ringway_ring::Announce;
use ringway_ring::failpoint::{self, Step};

use super::{Connection, Inbound};
use crate::driver::{Crew, Driver};
use crate::link::shm::Blocks;

impl Announce for Connection {
    fn announce_sleep(&self) {
        self.watch.arm();
        self.watch.arm_for_room(self.memory_awaited());
        failpoint::reached(Step::Asleep);
        self.tallies.sleeps.add_one();
    }

    fn announce_yield(&self) {
        self.watch.step_out();
    }

    fn announce_polling(&self) {
        self.watch.disarm();
    }

    fn is_asleep(&self) -> bool {
        self.watch.is_armed()
    }

    fn ring_before_sleep(&self) {
        if self.watch.ring_before_sleep() {
            self.tallies.rings.add_one();
        }
    }

    fn has_work(&self) -> bool {
        self.watch.has_work()
            || (self.memory_awaited() && self.blocks().is_some_and(Blocks::may_have_room))
    }
}

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
            self.list(connection);
        }
    }

    fn list(&self, connection: Arc<Self>) {
        if !self.driver().add_ready(Arc::clone(&connection))
            && self.driven_by.swap(0, Ordering::SeqCst) != 0
        {
            // It was given to a driver whose task has ended meanwhile.
            self.driver().add_ready(connection);
        }
    }

    /// Has the driver look at the ring for somebody who waits and did not look. Until it comes, this side is
    /// away, not asleep.
    pub(crate) fn ask_for_a_look(&self) {
        self.posture.request_poll_and_yield(self);
        self.mark_ready();
    }

    /// Whether tasks were woken that have not all had their turn.
    pub(crate) fn others_first(&self) -> bool {
        self.driver().others_first()
    }

    /// Lets tasks run that this thread has woken, and has the driver look at the ring after them.
    pub(crate) fn let_others_run(&self) {
        let unasked = self.posture.request_poll();
        self.driver()
            .let_others_run(unasked.then(|| Weak::clone(&self.me)));
    }

    /// The driver takes it from its list: from here on it can be listed anew. True if the driver is to look
    /// at the ring: it does from here on, as if it had said [`Self::keep_awake`].
    pub(crate) fn unlist(&self) -> bool {
        self.listed.store(false, Ordering::SeqCst);
        self.posture.accept_request(self)
    }

    /// Notes that a descriptor or the timer wants to be looked at.
    pub(crate) fn stir(&self) {
        self.stirred.store(true, Ordering::SeqCst);
        self.mark_ready();
    }

    /// Returns true if it is `driver` that drives the connection.
    pub(crate) fn is_driven_by(&self, driver: &Driver) -> bool {
        ptr::eq(Arc::as_ptr(self.driver()), driver)
    }

    /// Returns true if it is one of this runtime's drivers.
    pub(crate) fn is_driven_by_one_of(&self, crew: &Arc<Crew>) -> bool {
        Arc::ptr_eq(&self.crew, crew)
    }

    /// Has another of its runtime's drivers drive it from here on.
    pub(crate) fn move_to_driver(&self, number: usize) {
        // First: who finds it unlisted after that puts it on the new one's list.
        self.driven_by.store(number, Ordering::SeqCst);
        self.list_anew();
    }

    /// What drives it.
    #[inline]
    pub(super) fn driver(&self) -> &Arc<Driver> {
        self.crew.driver(self.driven_by.load(Ordering::SeqCst))
    }

    /// The driver's task has ended with its runtime: nothing is on its list, and nobody looks for it. What that
    /// runtime polled in passes is gone with it.
    pub(crate) fn lose_driver(&self) {
        self.unlist();
        self.stirred.store(true, Ordering::SeqCst);
        self.cease_to_look_as_driver();
        if self.is_client() {
            let gone = self.lock().take_inline_work();
            for (id, work) in gone {
                drop(work);
                let cancelled = Inbound::reset(code::CANCELLED);
                let reader = self.give_up(id, code::CANCELLED, cancelled);
                reader.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Has the driver's task run in the runtime at hand where its own has ended.
    #[inline]
    pub(crate) fn ensure_driven(&self) {
        self.crew.ensure_driven();
    }

    /// Returns true if this thread is inside the runtime that drives it.
    pub(crate) fn is_driven_here(&self) -> bool {
        self.crew.home().is_here()
    }

    /// Puts the connection on the driver's list, also if it stood on that of a driver that was replaced.
    pub(crate) fn list_anew(&self) {
        self.listed.store(false, Ordering::SeqCst);
        self.cease_to_look_as_driver();
        self.mark_ready();
    }

    /// The driver looks at the ring from here on, on behalf of all that wait.
    pub(crate) fn look_as_driver(&self) {
        self.posture.begin_driver_polling(self);
    }

    /// The end of [`Self::look_as_driver`]. A driver that was replaced does not look any more, whatever it finds
    /// when it goes on: so the doorbell is armed in any case.
    pub(crate) fn cease_to_look_as_driver(&self) {
        let work = self.posture.finish_driver_polling(self);
        self.have_it_driven(work);
    }

    /// Somebody looks at the ring by itself from here on: the peer need not ring.
    pub(crate) fn keep_awake(&self) {
        self.posture.begin_polling(self);
    }

    /// The end of [`Self::keep_awake`]. The last one arms the doorbell.
    pub(crate) fn let_sleep(&self) {
        let work = self.posture.finish_polling(self);
        self.have_it_driven(work);
    }

    /// Whoever looks goes to run tasks, and will look again after them; false if there is something to
    /// do first.
    pub(crate) fn step_out(&self) -> bool {
        !self.posture.yield_to_tasks(self)
    }

    /// Whoever stepped out looks again.
    pub(crate) fn step_in(&self) {
        self.posture.resume(self);
    }

    /// Ends [`Self::keep_awake`] of a caller that has its answer. `quiet` says that no other call was in flight, as
    /// of which opening.
    pub(crate) fn let_sleep_if_awaited(&self, quiet: Option<u32>) {
        let work = self.posture.finish_answered(self, quiet);
        self.have_it_driven(work);
    }

    /// Has the peer ring for whoever waits from now on, unless somebody looks, or has asked for it already.
    pub(crate) fn wait_for_doorbell(&self) {
        let work = self.posture.wait_for_doorbell(self);
        self.have_it_driven(work);
    }

    /// Has the peer ring for what it sends from now on, unless somebody looks; then looks once
    /// more. Whoever goes to sleep calls it last.
    pub(crate) fn rely_on_doorbell(&self) {
        let work = self.posture.rely_on_doorbell(self);
        self.have_it_driven(work);
    }

    fn have_it_driven(&self, work: bool) {
        if work {
            self.mark_ready();
        }
    }

    fn memory_awaited(&self) -> bool {
        self.blocks().is_some_and(Blocks::is_awaited)
    }
}
