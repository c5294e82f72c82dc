//! What a connection keeps for each call beside the core's own state.

use std::collections::VecDeque;
use std::task::Waker;

use ringway_wire::CallId;

use super::handlers::Work;
use super::inbound::Inbound;
use super::state::Ticket;
use crate::link::Position;

/// A call to which nothing has happened while so many others were made on its connection is idle: a watch,
/// or a subscription.
const ACTIVE_FOR_CALLS: u64 = 64;
/// So many places are looked at for one that is not: a call that lives beyond them counts as active.
const PLACES_LOOKED_AT: usize = 64;

/// The places of all calls of a connection.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// How many have a call.
    held: usize,
}

impl Slots {
    /// A place for a call that begins, as the last of so many `calls`. A task that still reads requests of the
    /// call before it is `left` behind, to be woken.
    pub(crate) fn occupy(&mut self, id: CallId, calls: u64, left: &mut Vec<Waker>) -> &mut Slot {
        let index = id.slot() as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[index];
        if slot.id.is_some() {
            // A call that ended in this very pass, and whose holder has not let go of it yet: its end
            // is not the new one's, and its handler is on its way to be dropped.
            left.extend(slot.reader.take());
            let _gone = slot.vacate();
        } else {
            self.held += 1;
        }
        slot.id = Some(id);
        slot.touched = calls;
        slot
    }

    /// That of a call which has not left it.
    pub(crate) fn get(&mut self, id: CallId) -> Option<&mut Slot> {
        self.at(id.slot()).filter(|slot| slot.id == Some(id))
    }

    /// That with a number, whoever has it.
    pub(crate) fn at(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)
    }

    /// Those of all calls.
    pub(crate) fn held(&mut self) -> impl Iterator<Item = (CallId, &mut Slot)> {
        let held = |slot| {
            let slot: &mut Slot = slot;
            slot.id.map(|id| (id, slot))
        };
        self.slots.iter_mut().filter_map(held)
    }

    /// Makes a call's place free. Returns its handler: its drop is not for whoever holds a lock.
    pub(crate) fn vacate(&mut self, id: CallId) -> Option<Option<Work>> {
        let handler = self.get(id)?.vacate();
        self.held -= 1;
        Some(handler)
    }

    /// Whether anything has happened to another call than `id` while the last few of so many `calls` were
    /// made. One that has its answer counts as well, until that is taken.
    pub(crate) fn others_are_active(&self, id: Option<CallId>, calls: u64) -> bool {
        let own = id.and_then(|id| self.slots.get(id.slot() as usize));
        let others = self.held - usize::from(own.is_some_and(|slot| slot.id == id));
        if others == 0 {
            return false;
        }
        let near = self.slots.iter().take(PLACES_LOOKED_AT);
        let idle = near.filter(|slot| slot.id.is_some() && slot.id != id);
        // One by one: where many are in flight, the first one is active.
        others
            > idle
                .take_while(|slot| calls - slot.touched > ACTIVE_FOR_CALLS)
                .count()
    }
}

/// One call's place. It is used again by later calls, so that a hot call allocates nothing.
#[derive(Default)]
pub(crate) struct Slot {
    /// The call that lives here.
    id: Option<CallId>,
    /// How many calls had been made on the connection when something last happened to this one.
    pub(crate) touched: u64,
    /// What has arrived and was not taken yet.
    pub(crate) inbox: VecDeque<Inbound>,
    /// Who waits for something to arrive.
    pub(crate) reader: Option<Waker>,
    /// Who waits for credit.
    pub(crate) writer: Option<Waker>,
    /// Its place in the line of those that lack what it lacks.
    pub(crate) ticket: Option<Ticket>,
    /// It waits for the call's share of the connection's credit, and is listed with all that do.
    pub(crate) awaits_share: bool,
    /// The future that does the call's work, or the task that it is; empty while it is polled in a pass.
    pub(crate) handler: Option<Work>,
    /// The handler was woken while it was not here.
    pub(crate) woken_meanwhile: bool,
    /// A message of which pieces are missing.
    pub(crate) pieces: Vec<u8>,
    /// Where the request ends in what the link was given.
    pub(crate) sent: Option<Position>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Slot")
            .field("id", &self.id)
            .field("inbox", &self.inbox.len())
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// The call that lives here.
    pub(crate) fn id(&self) -> Option<CallId> {
        self.id
    }

    /// Whether the call's end has arrived, though nobody has taken it yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.inbox.back().is_some_and(Inbound::ends_call)
    }

    /// Makes the place free. Returns the handler.
    fn vacate(&mut self) -> Option<Work> {
        self.id = None;
        self.inbox.clear();
        self.reader = None;
        self.writer = None;
        self.ticket = None;
        self.awaits_share = false;
        self.woken_meanwhile = false;
        self.sent = None;
        self.pieces = Vec::new();
        self.handler.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(slot: u64) -> CallId {
        CallId::from_wire(1 << 32 | slot).unwrap()
    }

    #[test]
    fn a_call_that_nothing_has_happened_to_for_long_is_idle() {
        let mut slots = Slots::default();
        assert!(!slots.others_are_active(None, 0));
        slots.occupy(call(0), 1, &mut Vec::new());
        assert!(slots.others_are_active(None, 1 + ACTIVE_FOR_CALLS));
        assert!(!slots.others_are_active(None, 2 + ACTIVE_FOR_CALLS));
        assert!(!slots.others_are_active(Some(call(0)), 1), "it is no other");
        slots.get(call(0)).unwrap().touched = 100;
        assert!(slots.others_are_active(None, 100));
        assert!(slots.others_are_active(Some(call(1)), 100));
    }

    /// Whoever makes several calls at once may have the first one's answer before it makes the second.
    #[test]
    fn a_call_counts_until_its_answer_is_taken() {
        let mut slots = Slots::default();
        slots
            .occupy(call(0), 1, &mut Vec::new())
            .inbox
            .push_back(Inbound::Expired);
        assert!(slots.others_are_active(None, 1));
        assert!(slots.vacate(call(0)).is_some());
        assert!(slots.vacate(call(0)).is_none(), "vacated already");
        assert!(!slots.others_are_active(None, 1));
    }

    #[test]
    fn a_place_taken_over_is_held_once() {
        let mut slots = Slots::default();
        let slot = slots.occupy(call(0), 1, &mut Vec::new());
        slot.reader = Some(Waker::noop().clone());
        let mut left = Vec::new();
        let next = CallId::from_wire(2 << 32).unwrap();
        slots.occupy(next, 2, &mut left);
        assert_eq!(left.len(), 1, "whoever reads its requests is told");
        assert!(slots.get(call(0)).is_none());
        assert!(slots.vacate(call(0)).is_none());
        assert_eq!(slots.held().count(), 1);
        slots.vacate(next);
        assert!(!slots.others_are_active(None, 2));
    }

    #[test]
    fn among_many_calls_some_are_active() {
        let mut slots = Slots::default();
        let many = PLACES_LOOKED_AT as u64;
        for slot in 0..many {
            slots.occupy(call(slot), 1, &mut Vec::new());
        }
        assert!(!slots.others_are_active(None, 1_000));
        slots.occupy(call(many), 1, &mut Vec::new());
        assert!(slots.others_are_active(None, 1_000));
    }
}
