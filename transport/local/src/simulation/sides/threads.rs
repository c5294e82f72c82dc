//! The threads of the sides: what they publish and take, whom they ring, and when they park.

use super::*;

impl Simulation {
    /// Publishes a record for one end of a link, and rings if it sleeps.
    pub(super) fn publish(&mut self, thread: usize, link: usize, side: usize, record: Record) {
        let now = self.machine.now;
        let line = self.machine.machine.costs.line;
        let of = &self.links[link].sides[side];
        of.end.ring.borrow_mut().push_back((now + line, record));
        if of.end.word.get() == Word::Asleep && !of.end.rung.replace(true) {
            self.workers[thread].ops.push_front(Op::Ring { link, side });
        }
        // Those that poll see it when its line has come.
        for other in 0..self.workers.len() {
            if let Some(Step::Poll(poll)) = self.workers[other].step
                && self.machine.place(other) == Place::Running
                && self.watches(other, poll.link, link, side)
                && poll.next > now + line
            {
                let next = now + line;
                self.workers[other].step = Some(Step::Poll(Poll { next, ..poll }));
                self.machine.end_step_at(other, next);
            }
        }
    }

    pub(super) fn watches(
        &self,
        thread: usize,
        caller: Option<usize>,
        link: usize,
        side: usize,
    ) -> bool {
        match caller {
            Some(polled) => polled == link && side == CLIENT,
            None => {
                let of = &self.links[link].sides[side];
                of.driver == thread && of.busy
            }
        }
    }

    pub(super) fn ring(&mut self, thread: usize, link: usize, side: usize) {
        self.figures.rings += 1;
        let driver = self.links[link].sides[side].driver;
        let of = &mut self.links[link].sides[side];
        if self.machine.place(driver) == Place::Parked {
            of.listed = Some(self.machine.now);
            let from = self.machine.cpu(thread);
            if self.machine.wake(driver, from) {
                let interrupt = self.machine.machine.costs.interrupt;
                self.workers[thread].ops.push_front(Op::Pay(interrupt));
            }
        } else {
            // Another worker hears of it, and lists it for the driver that is up.
            let heard = self.machine.now + self.machine.machine.costs.wake_idle;
            of.listed.get_or_insert(heard);
        }
    }

    pub(super) fn unpark(&mut self, thread: usize, other: usize) {
        match self.machine.place(other) {
            Place::Parked => {
                let from = self.machine.cpu(thread);
                self.machine.wake(other, from);
            }
            Place::Running if matches!(self.workers[other].step, Some(Step::Poll(_))) => {
                let now = self.machine.now;
                self.machine.end_step_at(other, now);
            }
            _ => {}
        }
    }

    /// The last look before sleep: announces it for all that the driver polled.
    pub(super) fn park(&mut self, thread: usize) {
        for at in 0..self.workers[thread].links.len() {
            let (link, side) = self.workers[thread].links[at];
            if self.links[link].sides[side].busy {
                self.links[link].sides[side].busy = false;
                self.with_posture(thread, link, side, |posture, end| {
                    posture.finish_driver_polling(end)
                });
            }
            // The reactor hears of what was rung for.
            let of = &mut self.links[link].sides[side];
            if of.listed.is_some() {
                of.listed = Some(self.machine.now);
            }
        }
        let worker = &self.workers[thread];
        let stays = !worker.ops.is_empty()
            || !worker.ready.is_empty()
            || !self.pools[worker.process].is_empty()
            || self.any_due(thread);
        if stays {
            return;
        }
        self.workers[thread].yielded = false;
        self.workers[thread].slept = true;
        self.machine.park(thread);
    }

    pub(super) fn any_due(&self, thread: usize) -> bool {
        let mut links = self.workers[thread].links.iter();
        links.any(|(link, side)| self.is_due(*link, *side))
    }

    pub(super) fn is_due(&self, link: usize, side: usize) -> bool {
        let of = &self.links[link].sides[side];
        let now = self.machine.now;
        let visible = || {
            let ring = of.end.ring.borrow();
            ring.front().is_some_and(|(at, _)| *at <= now)
        };
        of.listed.is_some_and(|at| at <= now) || (of.busy && visible())
    }

    pub(super) fn sees_anything(&self, thread: usize, caller: Option<usize>) -> bool {
        if !self.workers[thread].ready.is_empty() && self.rules.others_first {
            return true;
        }
        let process = self.workers[thread].process;
        match caller {
            Some(link) => {
                let ring = self.links[link].sides[CLIENT].end.ring.borrow();
                ring.front().is_some_and(|(at, _)| *at <= self.machine.now)
            }
            None => self.any_due(thread) || !self.pools[process].is_empty(),
        }
    }

    /// The thread has nothing in hand: takes what has come, runs tasks, polls, or parks.
    pub(super) fn decide(&mut self, thread: usize) {
        let tasks_wait = !self.workers[thread].ready.is_empty();
        if tasks_wait && self.rules.others_first {
            return self.run_tasks(thread);
        }
        if self.workers[thread].yielded {
            self.workers[thread].yielded = false;
            for at in 0..self.workers[thread].links.len() {
                let (link, side) = self.workers[thread].links[at];
                let of = &self.links[link].sides[side];
                if of.busy {
                    of.posture.resume(&of.end);
                }
            }
        }
        if self.take(thread) {
            return;
        }
        let process = self.workers[thread].process;
        if let Some(job) = self.pools[process].pop_front() {
            self.workers[thread].ops.push_back(Op::Stage { job });
            return;
        }
        if !self.begin_poll(thread) {
            if tasks_wait {
                return self.run_tasks(thread);
            }
            self.workers[thread].ops.push_back(Op::Park);
        }
    }

    /// Lets the tasks run that were woken; the driver polls after them.
    pub(super) fn run_tasks(&mut self, thread: usize) {
        let hot = self.workers[thread].place.is_hot(self.rules.policy) && self.may_spin();
        for at in 0..self.workers[thread].links.len() {
            let (link, side) = self.workers[thread].links[at];
            if !self.links[link].sides[side].busy {
                continue;
            }
            if hot && self.rules.yields {
                self.with_posture(thread, link, side, |posture, end| {
                    posture.yield_to_tasks(end)
                });
                self.workers[thread].yielded = true;
            } else {
                self.links[link].sides[side].busy = false;
                self.with_posture(thread, link, side, |posture, end| {
                    posture.finish_driver_polling(end)
                });
            }
        }
        while let Some(job) = self.workers[thread].ready.pop_front() {
            self.jobs[job].queued = false;
            if self.jobs[job].waiting == 0 {
                self.resume(thread, job);
            } else {
                // From its second poll on it looks by itself.
                let of = self.jobs[job];
                let link = self.program.scripts[of.script].stages[of.stage - 1].calls[0].link;
                let task = self.program.calls.task;
                self.workers[thread].ops.push_back(Op::Pay(task));
                self.workers[thread].caller = Some(link);
            }
        }
    }

    pub(super) fn resume(&mut self, thread: usize, job: usize) {
        let of = self.jobs[job];
        let stages = self.program.scripts[of.script].stages.len();
        let next = if of.stage < stages {
            Op::Stage { job }
        } else {
            Op::Finish { job }
        };
        self.workers[thread].ops.push_back(next);
    }

    /// Takes in what is due for this thread; false if nothing is.
    pub(super) fn take(&mut self, thread: usize) -> bool {
        let mut any = false;
        if let Some(link) = self.workers[thread].caller {
            let seen = self.take_records(thread, link, CLIENT);
            if seen {
                self.workers[thread].caller = None;
            }
            any |= seen;
        }
        for at in 0..self.workers[thread].links.len() {
            let (link, side) = self.workers[thread].links[at];
            if self.is_due(link, side) {
                any |= self.drive(thread, link, side);
            }
        }
        any
    }

    pub(super) fn drive(&mut self, thread: usize, link: usize, side: usize) -> bool {
        let now = self.machine.now;
        let of = &mut self.links[link].sides[side];
        let listed = of.listed.is_some_and(|at| at <= now);
        let mut requested = false;
        if listed {
            of.listed = None;
            if of.end.word.get() == Word::Yielded {
                of.end.rung.set(false);
            }
            requested = of.posture.accept_request(&of.end);
        }
        let brought = self.take_records(thread, link, side);
        let of = &mut self.links[link].sides[side];
        if brought || requested {
            if !of.busy {
                of.busy = true;
                of.posture.begin_driver_polling(&of.end);
            }
        } else if listed && !of.busy {
            self.with_posture(thread, link, side, |posture, end| {
                posture.rely_on_doorbell(end)
            });
        }
        brought
    }

    pub(super) fn take_records(&mut self, thread: usize, link: usize, side: usize) -> bool {
        let now = self.machine.now;
        let mut brought = false;
        loop {
            let mut ring = self.links[link].sides[side].end.ring.borrow_mut();
            let Some((_, record)) = ring.pop_front_if(|(at, _)| *at <= now) else {
                return brought;
            };
            drop(ring);
            brought = true;
            if side == CLIENT {
                let of = &mut self.links[link];
                of.delivered = of.delivered.wrapping_add(1);
            }
            let op = match record {
                Record::Request { script, job } => Op::Serve { link, script, job },
                Record::Answer { job } => Op::Deliver { link, job },
            };
            self.workers[thread].ops.push_back(op);
        }
    }
}
