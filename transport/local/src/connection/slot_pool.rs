//! The slots for calls that a server gives a client, shared among the client's connections to it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Connection;

/// The connections of one client to one server, which together have as many calls in flight as one may have. The first
/// one has all slots until another one needs some.
#[derive(Debug)]
pub struct SlotPool {
    slots: u32,
    members: Mutex<Vec<Weak<Connection>>>,
}

impl SlotPool {
    /// Returns the pool of a connection; a new pool, of that connection alone, where it has none.
    pub fn of(first: &Arc<Connection>) -> Arc<Self> {
        let pool = Arc::new(Self {
            slots: first.call_slots(),
            members: Mutex::new(vec![Arc::downgrade(first)]),
        });
        let pool = first.slot_pool.get_or_init(|| pool);
        Arc::clone(pool)
    }

    /// Adds a connection that has made no call yet: it borrows slots when it makes one.
    pub fn add(self: &Arc<Self>, further: &Arc<Connection>) {
        if further.slot_pool.set(Arc::clone(self)).is_ok() {
            further.lock().limit_calls(0);
            self.members.lock().push(Arc::downgrade(further));
        }
    }

    /// Gets `borrower` slots: those that nobody has since a member ended, or else half of those that the member with
    /// most of them does not use.
    fn lend(&self, borrower: &Connection) {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        let all: Vec<_> = members.iter().filter_map(Weak::upgrade).collect();
        let open = || all.iter().filter(|member| member.is_open());
        let given: u32 = open().map(|member| member.lock().call_limit()).sum();
        let mut free = self.slots.saturating_sub(given);
        let others = open().filter(|member| member.id() != borrower.id());
        if free == 0
            && let Some(lender) = others.max_by_key(|member| member.lock().unused_calls())
        {
            let mut lender = lender.lock();
            free = lender.unused_calls().div_ceil(2);
            let left = lender.call_limit().saturating_sub(free);
            lender.limit_calls(left);
        }
        if free > 0 {
            let mut borrower = borrower.lock();
            let limit = borrower.call_limit().saturating_add(free);
            borrower.limit_calls(limit);
        }
        // Before the connections: the last holder of one drops it, which takes other locks.
        drop(members);
    }
}

impl Connection {
    /// Gets slots of other connections of its client, where it has none left.
    #[cold]
    pub(crate) fn borrow_slots(&self) {
        if let Some(pool) = self.slot_pool.get() {
            pool.lend(self);
        }
    }
}
