//! Who waits to send, in lines: first come, first served, as many as may be served now.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::error::Lack;

/// A place in a line. It is left when what was lacked was had, or is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    number: u64,
    lack: Lack,
}

/// The senders of a connection that wait, by what they lack. A call's own credit is waited for in its slot.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) room: Line,
    pub(super) credit: Line,
    pub(super) large_credit: Line,
    pub(super) memory: Line,
    tickets: u64,
}

impl Waiting {
    /// Returns true if nobody waits in any line.
    pub(super) fn is_empty(&self) -> bool {
        let lines = [&self.room, &self.credit, &self.large_credit, &self.memory];
        lines.iter().all(|line| line.waiters.is_empty())
    }

    /// The line of those that lack the same; `None` for what a call waits for in its slot.
    fn line(&mut self, lack: Lack) -> Option<&mut Line> {
        match lack {
            Lack::Room => Some(&mut self.room),
            Lack::Credit => Some(&mut self.credit),
            Lack::LargeCredit => Some(&mut self.large_credit),
            Lack::Memory => Some(&mut self.memory),
            Lack::CallCredit | Lack::Share => None,
        }
    }

    /// Waits in the line for `lack`, at the place that `ticket` stands for if that is in it.
    pub(super) fn join(
        &mut self,
        ticket: Option<Ticket>,
        lack: Lack,
        len: usize,
        waker: &Waker,
    ) -> Option<Ticket> {
        let kept = ticket.filter(|ticket| ticket.lack == lack);
        if kept.is_none() {
            ticket.into_iter().for_each(|left| self.leave(left));
        }
        let fresh = self.tickets + 1;
        let number = kept.map_or(fresh, |kept| kept.number);
        self.line(lack)?.join(number, len, waker);
        self.tickets = fresh;
        Some(Ticket { number, lack })
    }

    /// Leaves a line.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if let Some(line) = self.line(ticket.lack) {
            line.leave(ticket.number);
        }
    }

    /// Ends all waiting.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> {
        let lines = [
            &mut self.room,
            &mut self.credit,
            &mut self.large_credit,
            &mut self.memory,
        ];
        let waiters = lines.map(|line| std::mem::take(line).waiters);
        let waiters = waiters.into_iter().flat_map(BTreeMap::into_values);
        waiters.map(|waiter| waiter.waker)
    }
}

/// A line of waiters, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<u64, Waiter>,
    /// Those that were called and have not come back are not counted.
    uncalled: usize,
}

#[derive(Debug)]
struct Waiter {
    /// The bytes that it wants to send.
    len: usize,
    waker: Waker,
    /// It was woken, and has not come back since.
    called: bool,
}

impl Line {
    /// Returns true if waiters are in it that were not called.
    pub(super) fn awaits(&self) -> bool {
        self.uncalled > 0
    }

    fn join(&mut self, number: u64, len: usize, waker: &Waker) {
        self.leave(number);
        let waiter = Waiter {
            len,
            waker: waker.clone(),
            called: false,
        };
        self.waiters.insert(number, waiter);
        self.uncalled += 1;
    }

    fn leave(&mut self, number: u64) {
        let left = self.waiters.remove(&number);
        self.uncalled -= usize::from(left.is_some_and(|waiter| !waiter.called));
    }

    /// Calls waiters from the front on for as long as those called now, and their bytes, fit. One that was called
    /// before and has not come back keeps nobody from anything: its task may be stuck.
    pub(super) fn call(
        &mut self,
        mut fits: impl FnMut(usize, usize) -> bool,
        mut call: impl FnMut(&Waker),
    ) {
        if !self.awaits() {
            return;
        }
        let (mut waiters, mut bytes) = (0, 0);
        for waiter in self.waiters.values_mut().filter(|waiter| !waiter.called) {
            waiters += 1;
            bytes += waiter.len;
            if !fits(waiters, bytes) {
                return;
            }
            waiter.called = true;
            self.uncalled -= 1;
            call(&waiter.waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(line: &mut Line, room: usize) -> usize {
        let mut count = 0;
        line.call(|_, bytes| bytes <= room, |_| count += 1);
        count
    }

    fn join(waiting: &mut Waiting, ticket: Option<Ticket>) -> Option<Ticket> {
        waiting.join(ticket, Lack::Room, 10, Waker::noop())
    }

    #[test]
    fn waiters_are_called_in_turn_as_many_as_fit() {
        let mut waiting = Waiting::default();
        let [first, second, third] = [(); 3].map(|()| join(&mut waiting, None));
        assert_eq!(called(&mut waiting.room, 9), 0);
        assert_eq!(called(&mut waiting.room, 25), 2);
        assert_eq!(
            called(&mut waiting.room, 9),
            0,
            "the third one does not fit"
        );
        assert_eq!(called(&mut waiting.room, 10), 1);
        assert_eq!(called(&mut waiting.room, 100), 0, "all were called");
        // The first comes back in vain, and is the first again; the second has sent.
        assert_eq!(join(&mut waiting, first), first);
        second.into_iter().for_each(|left| waiting.leave(left));
        assert_eq!(called(&mut waiting.room, 15), 1);
        [first, third]
            .into_iter()
            .flatten()
            .for_each(|left| waiting.leave(left));
        assert!(waiting.is_empty() && !waiting.room.awaits());
    }

    #[test]
    fn a_waiter_stands_in_one_line() {
        let mut waiting = Waiting::default();
        let room = join(&mut waiting, None);
        let memory = waiting.join(room, Lack::Memory, 1, Waker::noop());
        assert!(!waiting.room.awaits() && waiting.memory.awaits());
        assert_eq!(waiting.join(memory, Lack::Share, 1, Waker::noop()), None);
        assert!(waiting.is_empty());
        waiting.join(None, Lack::Credit, 1, Waker::noop());
        assert_eq!(waiting.take_all().count(), 1);
        assert!(waiting.is_empty() && !waiting.credit.awaits());
    }
}
