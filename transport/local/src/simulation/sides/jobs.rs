//! The jobs of the sides: the stages of calls and handlers, and what they wait for.

use super::*;

impl Simulation {
    pub(super) fn new_job(&mut self, script: usize, origin: Origin) -> usize {
        let job = Job {
            script,
            stage: 0,
            waiting: 0,
            origin,
            began: self.machine.now,
            queued: false,
        };
        match self.free.pop() {
            Some(at) => {
                self.jobs[at] = job;
                at
            }
            None => {
                self.jobs.push(job);
                self.jobs.len() - 1
            }
        }
    }

    pub(super) fn spawn(&mut self, thread: usize, job: usize) {
        let process = self.workers[thread].process;
        self.pools[process].push_back(job);
        let idle = (0..self.workers.len()).find(|other| {
            let of = &self.workers[*other];
            of.process == process && !of.drives && self.machine.place(*other) == Place::Parked
        });
        if let Some(other) = idle {
            self.workers[thread]
                .ops
                .push_front(Op::Unpark { thread: other });
        }
    }

    pub(super) fn note_call(&mut self, job: usize, call: CallOf) {
        let link = &mut self.links[call.link];
        if let Origin::Task(task) = self.jobs[job].origin {
            link.habits.note(&self.wakers[task], link.in_flight > 0);
        }
        link.in_flight += 1;
        link.sides[CLIENT].posture.note_opened();
    }

    pub(super) fn deliver(&mut self, thread: usize, link: usize, job: usize) {
        self.links[link].in_flight -= 1;
        let of = &mut self.jobs[job];
        of.waiting -= 1;
        let waiting = of.waiting;
        match of.origin {
            Origin::Call { .. } if waiting == 0 => {
                self.resume(thread, job);
            }
            Origin::Call { .. } => {}
            Origin::Task(_) if of.queued => {}
            Origin::Task(task) => {
                of.queued = true;
                let home = self.program.tasks[task].thread;
                self.workers[home].ready.push_back(job);
                if home != thread {
                    self.workers[thread]
                        .ops
                        .push_front(Op::Unpark { thread: home });
                }
            }
        }
    }

    /// After a stage's CPU: sends its calls, or goes on to the end.
    pub(super) fn end_stage(&mut self, thread: usize, job: usize) {
        let of = self.jobs[job];
        let script = &self.program.scripts[of.script];
        let calls = &script.stages[of.stage].calls;
        self.jobs[job].stage += 1;
        self.jobs[job].waiting = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let mut next: Vec<_> = calls
            .iter()
            .map(|call| Op::Send { job, call: *call })
            .collect();
        next.push(if !calls.is_empty() {
            Op::Await { job }
        } else if of.stage + 1 < script.stages.len() {
            Op::Stage { job }
        } else {
            Op::Finish { job }
        });
        next.into_iter()
            .rev()
            .for_each(|op| self.workers[thread].ops.push_front(op));
    }

    /// A task or handler that has sent its calls waits.
    pub(super) fn wait_for_answers(&mut self, thread: usize, job: usize) {
        let of = self.jobs[job];
        let calls = &self.program.scripts[of.script].stages[of.stage - 1].calls;
        let first = calls[0].link;
        let is_only = calls.len() == 1 && self.links[first].in_flight == 1;
        let Origin::Task(task) = of.origin else {
            return self.wait_for_doorbells(thread, job);
        };
        let looks = match self.rules.first_poll {
            FirstPoll::Never => false,
            FirstPoll::Always => true,
            FirstPoll::Learnt => self.links[first].habits.is_alone(&self.wakers[task]),
        };
        if looks {
            self.workers[thread].caller = Some(first);
        } else if is_only {
            let side = &mut self.links[first].sides[CLIENT];
            side.posture.request_poll_and_yield(&side.end);
            side.listed.get_or_insert(self.machine.now);
            let driver = side.driver;
            self.call(thread, driver);
        } else {
            self.wait_for_doorbells(thread, job);
        }
    }

    pub(super) fn wait_for_doorbells(&mut self, thread: usize, job: usize) {
        let of = self.jobs[job];
        let calls = self.program.scripts[of.script].stages[of.stage - 1]
            .calls
            .clone();
        for call in calls {
            self.with_posture(thread, call.link, CLIENT, |posture, end| {
                posture.wait_for_doorbell(end)
            });
        }
    }

    /// Asks a side's posture for something; what it finds there is listed, and whom it rings is rung.
    pub(super) fn with_posture(
        &mut self,
        thread: usize,
        link: usize,
        side: usize,
        ask: impl FnOnce(&SidePosture, &End) -> bool,
    ) {
        let other = &self.links[link].sides[1 - side].end;
        let seen = (other.word.get(), other.rung.get(), other.has_work());
        let of = &mut self.links[link].sides[side];
        of.end.other.set(seen);
        let work = ask(&of.posture, &of.end);
        let (driver, rings) = (of.driver, of.end.rings_other.take());
        if work {
            of.listed.get_or_insert(self.machine.now);
            self.call(thread, driver);
        }
        if rings {
            self.links[link].sides[1 - side].end.rung.set(true);
            let ring = Op::Ring {
                link,
                side: 1 - side,
            };
            self.workers[thread].ops.push_front(ring);
        }
    }

    /// Calls the driver of a link, if it is another thread.
    pub(super) fn call(&mut self, thread: usize, driver: usize) {
        if driver != thread {
            self.workers[thread]
                .ops
                .push_front(Op::Unpark { thread: driver });
        }
    }

    pub(super) fn finish(&mut self, thread: usize, job: usize) {
        let of = self.jobs[job];
        match of.origin {
            Origin::Call { link, job: caller } => {
                self.free.push(job);
                self.publish(thread, link, CLIENT, Record::Answer { job: caller });
            }
            Origin::Task(task) => {
                self.figures.done += 1;
                self.figures.latencies.push(self.machine.now - of.began);
                if let Some(every) = self.program.tasks[task].every {
                    self.free.push(job);
                    return self.machine.due_at(task, of.began + every);
                }
                self.jobs[job].stage = 0;
                self.jobs[job].began = self.machine.now;
                // It goes on without a break, as a task does that has its answer.
                self.workers[thread].ops.push_front(Op::Stage { job });
            }
        }
    }
}
