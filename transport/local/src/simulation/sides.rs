//! The sides of links in virtual time: who polls, parks and rings, by the shipped rules.
//!
//! How long a place polls is decided by [`Learned`], what the peer is told by [`SidePosture`], and which first poll
//! may look by [`Habits`]: all three are the code that ships. This file is the driver's and the callers' loop around
//! them, with CPU time in place of work.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::machine::{Event, Machine, Nanos, Place, Scheduler};
use super::program::{CallOf, Program};
use crate::habits::Habits;
use crate::shared_cpu::{SIT_OUT, SharedCpu};
use crate::spin::{Learned, Outcome, PeerPosture, Spin, SpinRules, WaitPolicy};
use ringway_ring::{Announce, SidePosture};

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// How all sides of a simulation wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) policy: WaitPolicy,
    pub(super) spin: SpinRules,
    /// Which first polls look: those of callers that make one call at a time, none, or all.
    pub(super) first_poll: FirstPoll,
    /// Tasks that a pass has woken run before this thread polls again.
    pub(super) others_first: bool,
    /// A driver that runs tasks is yielded, not asleep.
    pub(super) yields: bool,
    /// A side makes way for a peer that was rung for and slept on this CPU.
    pub(super) waits_for_this_cpu: bool,
    /// Now and then it polls on nevertheless, so that the kernel takes one of the two elsewhere.
    pub(super) sits_out: bool,
    /// The rules know what the peer does.
    pub(super) posture_known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstPoll {
    Learnt,
    Never,
    Always,
}

impl Rules {
    /// What ships, under a policy.
    pub(super) const fn shipped(policy: WaitPolicy) -> Self {
        Self {
            policy,
            spin: SpinRules::SHIPPED,
            first_poll: FirstPoll::Learnt,
            others_first: true,
            yields: true,
            waits_for_this_cpu: true,
            sits_out: true,
            posture_known: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Polling,
    Asleep,
    Yielded,
}

#[derive(Debug, Clone, Copy)]
enum Record {
    Request { script: usize, job: usize },
    Answer { job: usize },
}

/// One end of a link: what its sleep word says, and what lies in its ring.
#[derive(Debug)]
struct End {
    word: Cell<Word>,
    rung: Cell<bool>,
    /// The other end is to be rung for, by the thread that runs.
    rings_other: Cell<bool>,
    other: Cell<(Word, bool, bool)>,
    ring: RefCell<VecDeque<(Nanos, Record)>>,
}

impl Announce for End {
    fn announce_sleep(&self) {
        self.word.set(Word::Asleep);
        self.rung.set(false);
    }

    fn announce_yield(&self) {
        if self.word.get() != Word::Yielded {
            self.word.set(Word::Yielded);
            self.rung.set(false);
        }
    }

    fn announce_polling(&self) {
        if self.word.get() != Word::Yielded {
            self.word.set(Word::Polling);
        }
    }

    fn is_asleep(&self) -> bool {
        self.word.get() == Word::Asleep
    }

    fn ring_before_sleep(&self) {
        let (word, rung, left) = self.other.get();
        if word == Word::Yielded && left && !rung {
            self.rings_other.set(true);
        }
    }

    fn has_work(&self) -> bool {
        !self.ring.borrow().is_empty()
    }
}

struct Side {
    end: End,
    posture: SidePosture,
    driver: usize,
    /// The driver polls it.
    busy: bool,
    /// It stands on the driver's list, from then on.
    listed: Option<Nanos>,
}

struct Link {
    sides: [Side; 2],
    place: Learned,
    habits: Habits,
    shared_cpu: SharedCpu,
    /// Counts what was taken in at the client's end.
    delivered: u32,
    in_flight: u32,
    lock_free_at: Nanos,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Task(usize),
    Call { link: usize, job: usize },
}

#[derive(Debug, Clone, Copy)]
struct Job {
    script: usize,
    stage: usize,
    waiting: u32,
    origin: Origin,
    began: Nanos,
    queued: bool,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Pay(Nanos),
    Serve {
        link: usize,
        script: usize,
        job: usize,
    },
    Deliver {
        link: usize,
        job: usize,
    },
    Stage {
        job: usize,
    },
    Send {
        job: usize,
        call: CallOf,
    },
    Await {
        job: usize,
    },
    Finish {
        job: usize,
    },
    Ring {
        link: usize,
        side: usize,
    },
    Unpark {
        thread: usize,
    },
    Park,
    Compute,
}

/// A poll in progress: of the driver, or of a caller on one link.
#[derive(Debug, Clone, Copy)]
struct Poll {
    /// `None` of one that sits out the sharing of a CPU.
    spin: Option<Spin>,
    since: Nanos,
    until: Nanos,
    /// When it looks next.
    next: Nanos,
    link: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Op { op: Op, left: Nanos },
    Poll(Poll),
}

struct Worker {
    process: usize,
    drives: bool,
    links: Vec<(usize, usize)>,
    place: Learned,
    ops: VecDeque<Op>,
    ready: VecDeque<usize>,
    step: Option<Step>,
    step_since: Nanos,
    /// A caller that looks by itself, on this link.
    caller: Option<usize>,
    yielded: bool,
    slept: bool,
}

/// What a simulation came to, after its first part.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) done: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Vec<Nanos>,
    pub(super) cpu_seconds: f64,
    pub(super) rings: u64,
    pub(super) wakes: u64,
    pub(super) switches: u64,
}

impl Figures {
    pub(super) fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.done.max(1) as f64
    }

    pub(super) fn percentile_us(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len().max(1) - 1) * percent / 100;
        sorted.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e3)
    }
}

struct Name(#[expect(dead_code, reason = "keeps names apart")] usize);

impl Wake for Name {
    fn wake(self: Arc<Self>) {}
}

/// A program on a machine.
pub(super) struct Simulation {
    machine: Scheduler,
    rules: Rules,
    program: Program,
    links: Vec<Link>,
    workers: Vec<Worker>,
    pools: Vec<VecDeque<usize>>,
    jobs: Vec<Job>,
    free: Vec<usize>,
    wakers: Vec<Waker>,
    figures: Figures,
}

impl Simulation {
    /// A program whose threads slept last on `homes`.
    pub(super) fn new(machine: Machine, rules: Rules, program: &Program, homes: &[usize]) -> Self {
        let end = || End {
            word: Cell::new(Word::Polling),
            rung: Cell::new(false),
            rings_other: Cell::new(false),
            other: Cell::new((Word::Polling, false, false)),
            ring: RefCell::default(),
        };
        let side = |driver| Side {
            end: end(),
            posture: SidePosture::default(),
            driver,
            busy: false,
            listed: None,
        };
        let links: Vec<_> = program
            .links
            .iter()
            .map(|link| Link {
                sides: link.drivers.map(side),
                place: Learned::new(&rules.spin),
                habits: Habits::default(),
                shared_cpu: SharedCpu::default(),
                delivered: 0,
                in_flight: 0,
                lock_free_at: 0,
            })
            .collect();
        for side in links.iter().flat_map(|link| &link.sides) {
            let _ = side.posture.rely_on_doorbell(&side.end);
        }
        let links_of = |thread| {
            let ends = program.links.iter().enumerate();
            ends.flat_map(move |(link, of)| {
                let mine = move |side: &usize| of.drivers[*side] == thread;
                (0..2).filter(mine).map(move |side| (link, side))
            })
        };
        let workers = program
            .threads
            .iter()
            .enumerate()
            .map(|(thread, of)| Worker {
                process: of.process,
                drives: of.drives,
                links: links_of(thread).collect(),
                place: Learned::new(&rules.spin),
                ops: of.busy.then_some(Op::Compute).into_iter().collect(),
                ready: VecDeque::new(),
                step: None,
                step_since: 0,
                caller: None,
                yielded: false,
                slept: true,
            });
        let processes = program.threads.iter().map(|of| of.process).max();
        let mut this = Self {
            machine: Scheduler::new(machine, homes),
            rules,
            links,
            workers: workers.collect(),
            pools: vec![VecDeque::new(); processes.map_or(0, |last| last + 1)],
            jobs: Vec::new(),
            free: Vec::new(),
            wakers: (0..program.tasks.len())
                .map(|task| Waker::from(Arc::new(Name(task))))
                .collect(),
            program: program.clone(),
            figures: Figures::default(),
        };
        for (task, of) in program.tasks.iter().enumerate() {
            let job = this.new_job(of.script, Origin::Task(task));
            this.workers[of.thread].ready.push_back(job);
        }
        for (thread, home) in homes.iter().enumerate() {
            let starts = program.threads[thread].busy || !this.workers[thread].ready.is_empty();
            if starts && this.machine.place(thread) == Place::Parked {
                this.machine.wake(thread, *home);
            }
        }
        this
    }

    /// Runs for a while that counts for nothing, then for one that is measured.
    pub(super) fn run(mut self, warm_up: Nanos, measured: Nanos) -> Figures {
        self.run_until(warm_up);
        let (cpu, wakes, switches) = (self.cpu_ns(), self.machine.wakes, self.machine.switches);
        self.figures = Figures::default();
        self.run_until(warm_up + measured);
        let mut figures = std::mem::take(&mut self.figures);
        figures.seconds = measured as f64 / 1e9;
        figures.cpu_seconds = (self.cpu_ns() - cpu) as f64 / 1e9;
        figures.wakes = self.machine.wakes - wakes;
        figures.switches = self.machine.switches - switches;
        figures
    }

    fn run_until(&mut self, end: Nanos) {
        while self.machine.now < end {
            match self.machine.next() {
                Event::OnCpu(thread) => self.on_cpu(thread),
                Event::OffCpu(thread) => self.off_cpu(thread),
                Event::Due(task) => self.begin_task(task),
                Event::StepEnd(thread) => self.end_step(thread),
            }
        }
    }

    /// CPU of all but the threads that compute for ever.
    fn cpu_ns(&self) -> Nanos {
        let threads = self.program.threads.iter().enumerate();
        let counted = threads.filter(|(_, of)| !of.busy);
        counted.map(|(thread, _)| self.machine.cpu_ns(thread)).sum()
    }

    fn on_cpu(&mut self, thread: usize) {
        let switch = self.machine.machine.costs.switch;
        let now = self.machine.now;
        match self.workers[thread].step {
            None => {
                let worker = &mut self.workers[thread];
                let rouse = if std::mem::take(&mut worker.slept) {
                    self.machine.machine.costs.rouse
                } else {
                    0
                };
                worker.ops.push_front(Op::Pay(switch + rouse));
                self.go_on(thread);
            }
            Some(Step::Op { op, left }) => {
                let left = left + switch;
                self.workers[thread].step = Some(Step::Op { op, left });
                self.workers[thread].step_since = now;
                self.machine.end_step_at(thread, now + left);
            }
            Some(Step::Poll(poll)) => {
                let until = if self.sees_anything(thread, poll.link) {
                    now + switch
                } else {
                    poll.until.max(now + switch)
                };
                self.workers[thread].step = Some(Step::Poll(Poll {
                    next: until,
                    ..poll
                }));
                self.machine.end_step_at(thread, until);
            }
        }
    }

    /// What is left of a step is done when the thread runs again.
    fn off_cpu(&mut self, thread: usize) {
        let now = self.machine.now;
        let worker = &mut self.workers[thread];
        let since = worker.step_since;
        if let Some(Step::Op { left, .. }) = &mut worker.step {
            *left = left.saturating_sub(now - since);
        }
    }

    fn begin_task(&mut self, task: usize) {
        let of = self.program.tasks[task];
        let job = self.new_job(of.script, Origin::Task(task));
        self.jobs[job].queued = true;
        self.workers[of.thread].ready.push_back(job);
        if self.machine.place(of.thread) == Place::Parked {
            let cpu = self.machine.cpu(of.thread);
            self.machine.wake(of.thread, cpu);
        } else {
            self.unpark(of.thread, of.thread);
        }
    }

    fn end_step(&mut self, thread: usize) {
        let now = self.machine.now;
        match self.workers[thread].step.take() {
            Some(Step::Op { op, .. }) => {
                self.apply(thread, op);
                if self.machine.place(thread) == Place::Running {
                    self.go_on(thread);
                }
            }
            Some(Step::Poll(poll)) => {
                let found = self.sees_anything(thread, poll.link);
                let outcome = if found {
                    Outcome::Found(Duration::from_nanos(now - poll.since))
                } else {
                    Outcome::Missed
                };
                self.end_poll(thread, poll, outcome);
                self.go_on(thread);
            }
            None => {}
        }
    }

    fn go_on(&mut self, thread: usize) {
        while self.workers[thread].step.is_none() {
            let Some(op) = self.workers[thread].ops.pop_front() else {
                self.decide(thread);
                continue;
            };
            let left = self.cost(op);
            let now = self.machine.now;
            self.workers[thread].step = Some(Step::Op { op, left });
            self.workers[thread].step_since = now;
            self.machine.end_step_at(thread, now + left);
        }
    }

    fn cost(&mut self, op: Op) -> Nanos {
        let (calls, costs) = (self.program.calls, self.machine.machine.costs);
        match op {
            Op::Pay(nanos) => nanos,
            Op::Serve { .. } => calls.serve,
            Op::Deliver { link, .. } => calls.deliver + self.lock(link),
            Op::Stage { job } => {
                let of = self.jobs[job];
                let task = match of.origin {
                    Origin::Task(_) => calls.task,
                    Origin::Call { .. } => 0,
                };
                task + self.program.scripts[of.script].stages[of.stage].cpu
            }
            Op::Send { call, .. } => calls.send + self.lock(call.link),
            Op::Finish { job } => self.program.scripts[self.jobs[job].script].end,
            Op::Ring { .. } | Op::Unpark { .. } => costs.ring,
            Op::Await { .. } => 0,
            Op::Park => costs.park,
            Op::Compute => 1_000_000_000,
        }
    }

    /// The time that a thread waits for a link's lock, which it holds for a while then.
    fn lock(&mut self, link: usize) -> Nanos {
        let (now, lock) = (self.machine.now, self.program.calls.lock);
        let link = &mut self.links[link];
        let begin = link.lock_free_at.max(now);
        link.lock_free_at = begin + lock;
        begin - now
    }

    fn apply(&mut self, thread: usize, op: Op) {
        match op {
            Op::Pay(_) => {}
            Op::Compute => self.workers[thread].ops.push_front(Op::Compute),
            Op::Serve { link, script, job } => {
                let job = self.new_job(script, Origin::Call { link, job });
                if self.program.scripts[script].spawned {
                    self.spawn(thread, job);
                } else {
                    self.workers[thread].ops.push_front(Op::Stage { job });
                }
            }
            Op::Deliver { link, job } => self.deliver(thread, link, job),
            Op::Stage { job } => self.end_stage(thread, job),
            Op::Send { job, call } => {
                self.note_call(job, call);
                let request = Record::Request {
                    script: call.script,
                    job,
                };
                self.publish(thread, call.link, SERVER, request);
            }
            Op::Await { job } => self.wait_for_answers(thread, job),
            Op::Finish { job } => self.finish(thread, job),
            Op::Ring { link, side } => self.ring(thread, link, side),
            Op::Unpark { thread: other } => self.unpark(thread, other),
            Op::Park => self.park(thread),
        }
    }

    fn new_job(&mut self, script: usize, origin: Origin) -> usize {
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

    fn spawn(&mut self, thread: usize, job: usize) {
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

    fn note_call(&mut self, job: usize, call: CallOf) {
        let link = &mut self.links[call.link];
        if let Origin::Task(task) = self.jobs[job].origin {
            link.habits.note(&self.wakers[task], link.in_flight > 0);
        }
        link.in_flight += 1;
        link.sides[CLIENT].posture.note_opened();
    }

    fn deliver(&mut self, thread: usize, link: usize, job: usize) {
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
    fn end_stage(&mut self, thread: usize, job: usize) {
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
    fn wait_for_answers(&mut self, thread: usize, job: usize) {
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

    fn wait_for_doorbells(&mut self, thread: usize, job: usize) {
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
    fn with_posture(
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
    fn call(&mut self, thread: usize, driver: usize) {
        if driver != thread {
            self.workers[thread]
                .ops
                .push_front(Op::Unpark { thread: driver });
        }
    }

    fn finish(&mut self, thread: usize, job: usize) {
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

    /// Publishes a record for one end of a link, and rings if it sleeps.
    fn publish(&mut self, thread: usize, link: usize, side: usize, record: Record) {
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

    fn watches(&self, thread: usize, caller: Option<usize>, link: usize, side: usize) -> bool {
        match caller {
            Some(polled) => polled == link && side == CLIENT,
            None => {
                let of = &self.links[link].sides[side];
                of.driver == thread && of.busy
            }
        }
    }

    fn ring(&mut self, thread: usize, link: usize, side: usize) {
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

    fn unpark(&mut self, thread: usize, other: usize) {
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
    fn park(&mut self, thread: usize) {
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

    fn any_due(&self, thread: usize) -> bool {
        let mut links = self.workers[thread].links.iter();
        links.any(|(link, side)| self.is_due(*link, *side))
    }

    fn is_due(&self, link: usize, side: usize) -> bool {
        let of = &self.links[link].sides[side];
        let now = self.machine.now;
        let visible = || {
            let ring = of.end.ring.borrow();
            ring.front().is_some_and(|(at, _)| *at <= now)
        };
        of.listed.is_some_and(|at| at <= now) || (of.busy && visible())
    }

    fn sees_anything(&self, thread: usize, caller: Option<usize>) -> bool {
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
    fn decide(&mut self, thread: usize) {
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
    fn run_tasks(&mut self, thread: usize) {
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

    fn resume(&mut self, thread: usize, job: usize) {
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
    fn take(&mut self, thread: usize) -> bool {
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

    fn drive(&mut self, thread: usize, link: usize, side: usize) -> bool {
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

    fn take_records(&mut self, thread: usize, link: usize, side: usize) -> bool {
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

    fn may_spin(&self) -> bool {
        self.machine.machine.cpus > 1
    }

    /// Begins to poll, if the rules say so.
    fn begin_poll(&mut self, thread: usize) -> bool {
        let caller = self.workers[thread].caller.take();
        if !self.may_spin() {
            return false;
        }
        if let Some(link) = caller
            && let Some((spin, budget)) = self.begin_caller(thread, link)
        {
            let side = &self.links[link].sides[CLIENT];
            side.posture.begin_polling(&side.end);
            self.poll(thread, spin, budget, Some(link));
            return true;
        }
        if let Some(link) = caller {
            self.with_posture(thread, link, CLIENT, |posture, end| {
                posture.wait_for_doorbell(end)
            });
        }
        let busy: Vec<_> = self.workers[thread]
            .links
            .iter()
            .copied()
            .filter(|(link, side)| self.links[*link].sides[*side].busy)
            .collect();
        if busy.is_empty() {
            return false;
        }
        let Some(peer) = self.peer(thread, &busy) else {
            return false;
        };
        let worker = &mut self.workers[thread];
        let (spin, place) = worker
            .place
            .begin(&self.rules.spin, self.rules.policy, peer);
        worker.place = place;
        let Some(spin) = spin else {
            return false;
        };
        self.poll(thread, Some(spin), spin.budget, None);
        true
    }

    /// The poll of a caller, as `Call::look_as` begins it.
    fn begin_caller(&mut self, thread: usize, link: usize) -> Option<(Option<Spin>, Duration)> {
        let Some(peer) = self.peer(thread, &[(link, CLIENT)]) else {
            let of = &self.links[link];
            let sits_out = self.rules.sits_out
                && self.rules.policy != WaitPolicy::Park
                && of.shared_cpu.polls_on(of.delivered);
            return sits_out.then_some((None, SIT_OUT));
        };
        let place = self.links[link].place;
        let (spin, place) = place.begin(&self.rules.spin, self.rules.policy, peer);
        self.links[link].place = place;
        spin.map(|spin| (Some(spin), spin.budget))
    }

    fn poll(&mut self, thread: usize, spin: Option<Spin>, budget: Duration, link: Option<usize>) {
        let now = self.machine.now;
        let budget = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        let until = now + budget;
        let next = self.next_line(thread, link).unwrap_or(until).min(until);
        let poll = Poll {
            spin,
            since: now,
            until,
            next,
            link,
        };
        self.workers[thread].step = Some(Step::Poll(poll));
        self.machine.end_step_at(thread, next);
    }

    /// When the first record that is published already will be seen.
    fn next_line(&self, thread: usize, caller: Option<usize>) -> Option<Nanos> {
        let front = |link: usize, side: usize| {
            let ring = self.links[link].sides[side].end.ring.borrow();
            ring.front().map(|(at, _)| *at)
        };
        match caller {
            Some(link) => front(link, CLIENT),
            None => {
                let links = self.workers[thread].links.iter();
                let of = links.filter_map(|(link, side)| {
                    let end = &self.links[*link].sides[*side];
                    let polled = end.busy.then(|| front(*link, *side)).flatten();
                    end.listed.into_iter().chain(polled).min()
                });
                of.min()
            }
        }
    }

    fn end_poll(&mut self, thread: usize, poll: Poll, outcome: Outcome) {
        let Some(link) = poll.link else {
            let worker = &mut self.workers[thread];
            if let Some(spin) = poll.spin {
                worker.place = worker.place.learn(&self.rules.spin, spin, outcome);
            }
            if outcome == Outcome::Missed {
                self.workers[thread].ops.push_back(Op::Park);
            }
            return;
        };
        let found = outcome != Outcome::Missed;
        let brought = found && self.take_records(thread, link, CLIENT);
        if let Some(spin) = poll.spin
            && (brought || !found)
        {
            let place = self.links[link].place;
            self.links[link].place = place.learn(&self.rules.spin, spin, outcome);
        }
        let in_flight = self.links[link].in_flight;
        self.with_posture(thread, link, CLIENT, |posture, end| {
            if brought {
                // The one that was taken just now is counted still.
                let quiet = (in_flight <= 1).then(|| posture.opened());
                posture.finish_answered(end, quiet)
            } else {
                posture.finish_polling(end)
            }
        });
    }

    /// What the nearest peer does; `None` where one waits for this very CPU.
    fn peer(&self, thread: usize, ends: &[(usize, usize)]) -> Option<PeerPosture> {
        let mut nearest = PeerPosture::Asleep;
        for (link, side) in ends {
            let other = &self.links[*link].sides[1 - side];
            let posture = match (other.end.word.get(), other.end.rung.get()) {
                (Word::Asleep, true) => PeerPosture::ComingUp,
                (Word::Asleep, false) => PeerPosture::Asleep,
                _ => PeerPosture::Runs,
            };
            let here = self.machine.cpu(other.driver) == self.machine.cpu(thread);
            if self.rules.waits_for_this_cpu && posture == PeerPosture::ComingUp && here {
                return None;
            }
            nearest = nearest.nearer(if self.rules.posture_known {
                posture
            } else {
                PeerPosture::Unknown
            });
        }
        Some(nearest)
    }
}
