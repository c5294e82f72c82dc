//! The sides of links in virtual time: who polls, parks and rings, by the shipped rules.
//!
//! How long a place polls is decided by [`Learned`], what the peer is told by [`SidePosture`], and which first poll
//! may look by [`Habits`]: all three are the code that ships. This file holds the sides and runs them, with CPU time in
//! place of work; `jobs` is the work of their tasks, `threads` how their threads meet, `polls` how they poll.

mod jobs;
mod polls;
mod threads;

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
}
