//! The simulated machine: virtual time, CPUs, and a scheduler that is fair as Linux's is, and as lazy.
//!
//! A thread is put where it slept; if another thread runs there, on its waker's CPU if fewer wait there. Only a
//! machine that `seeks_idle` looks for an idle CPU as well. A woken thread preempts one that has not slept for a
//! slice, and one that has had more of the CPU by the wakeup granularity; else it waits for the end of a slice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub(super) type Nanos = u64;

/// What the machine takes for things, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    /// From a store on one CPU until a poll on another sees it.
    pub(super) line: Nanos,
    /// The system call that wakes a thread: CPU of the one that wakes.
    pub(super) ring: Nanos,
    /// CPU of the one that wakes, on top, where the other's CPU idles: an interrupt for it.
    pub(super) interrupt: Nanos,
    /// From the ring until a thread runs on a CPU that idled.
    pub(super) wake_idle: Nanos,
    /// The part of it that the kernel accounts to the CPU.
    pub(super) wake_cpu: Nanos,
    /// From one thread to another on one CPU.
    pub(super) switch: Nanos,
    /// From a thread's first instruction to the driver's pass: the reactor, the runtime.
    pub(super) rouse: Nanos,
    /// From the last look to sleep.
    pub(super) park: Nanos,
    pub(super) slice: Nanos,
    pub(super) granularity: Nanos,
    /// The time between two looks of the kernel for threads that wait while a CPU idles.
    pub(super) balance: Nanos,
    /// It sees those that have waited for so long.
    pub(super) wanting: Nanos,
}

/// A machine: its CPUs and its costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    pub(super) cpus: usize,
    pub(super) seeks_idle: bool,
    pub(super) costs: Costs,
}

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Parked,
    /// Its CPU comes up from idling.
    Waking,
    Queued,
    Running,
}

/// What the machine tells the program of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A thread runs, from now on.
    OnCpu(usize),
    /// A thread runs no more, though it would go on.
    OffCpu(usize),
    /// The time has come that a task waits for.
    Due(usize),
    /// The time is up that a thread's step takes, or that it waits for.
    StepEnd(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Step { thread: usize, epoch: u64 },
    Due { task: usize },
    CameUp { thread: usize },
    Slice { cpu: usize, epoch: u64 },
    Balance,
}

#[derive(Debug, Clone)]
struct Thread {
    place: Place,
    cpu: usize,
    fair_ns: Nanos,
    since: Nanos,
    cpu_ns: Nanos,
    woke_at: Nanos,
    queued_at: Nanos,
    /// Steps of the past do not end.
    epoch: u64,
}

#[derive(Debug, Clone, Default)]
struct Cpu {
    running: Option<usize>,
    queue: VecDeque<usize>,
    least_fair_ns: Nanos,
    epoch: u64,
}

/// CPUs, threads, and the time.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) now: Nanos,
    pub(super) machine: Machine,
    /// Threads that were woken, and switches from one thread to another.
    pub(super) wakes: u64,
    pub(super) switches: u64,
    timers: BinaryHeap<Reverse<(Nanos, u64, Timer)>>,
    sequence: u64,
    threads: Vec<Thread>,
    cpus: Vec<Cpu>,
    told: VecDeque<Event>,
}

impl Scheduler {
    /// A machine with a parked thread for each of `homes`, the CPU where it slept last.
    pub(super) fn new(machine: Machine, homes: &[usize]) -> Self {
        let thread = |cpu: &usize| Thread {
            place: Place::Parked,
            cpu: *cpu,
            fair_ns: 0,
            since: 0,
            cpu_ns: 0,
            woke_at: 0,
            queued_at: 0,
            epoch: 0,
        };
        let mut this = Self {
            now: 0,
            machine,
            wakes: 0,
            switches: 0,
            timers: BinaryHeap::new(),
            sequence: 0,
            threads: homes.iter().map(thread).collect(),
            cpus: vec![Cpu::default(); machine.cpus],
            told: VecDeque::new(),
        };
        this.after(machine.costs.balance, Timer::Balance);
        this
    }

    /// Advances to what happens next.
    pub(super) fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.told.pop_front() {
                return event;
            }
            let Some(Reverse((at, _, timer))) = self.timers.pop() else {
                unreachable!("the balance goes on for ever");
            };
            self.now = at;
            match timer {
                Timer::Step { thread, epoch } if self.threads[thread].epoch == epoch => {
                    return Event::StepEnd(thread);
                }
                Timer::Step { .. } => {}
                Timer::Due { task } => return Event::Due(task),
                Timer::CameUp { thread } => self.came_up(thread),
                Timer::Slice { cpu, epoch } => self.end_slice(cpu, epoch),
                Timer::Balance => self.balance(),
            }
        }
    }

    pub(super) fn place(&self, thread: usize) -> Place {
        self.threads[thread].place
    }

    pub(super) fn cpu(&self, thread: usize) -> usize {
        self.threads[thread].cpu
    }

    /// CPU time that a thread has had.
    pub(super) fn cpu_ns(&self, thread: usize) -> Nanos {
        let of = &self.threads[thread];
        let runs = of.place == Place::Running;
        of.cpu_ns + if runs { self.now - of.since } else { 0 }
    }

    /// Has a running thread told of the end of a step, at `at`. An earlier one is forgotten.
    pub(super) fn end_step_at(&mut self, thread: usize, at: Nanos) {
        self.threads[thread].epoch += 1;
        let epoch = self.threads[thread].epoch;
        self.push(at.max(self.now), Timer::Step { thread, epoch });
    }

    /// Has told when a task is due.
    pub(super) fn due_at(&mut self, task: usize, at: Nanos) {
        self.push(at.max(self.now), Timer::Due { task });
    }

    /// Parks the running thread.
    pub(super) fn park(&mut self, thread: usize) {
        self.account(thread);
        self.threads[thread].place = Place::Parked;
        self.threads[thread].epoch += 1;
        let cpu = self.threads[thread].cpu;
        self.cpus[cpu].running = None;
        self.run_next(cpu);
    }

    /// Wakes a parked thread, by a thread that runs on `from`. Returns true if its CPU idled.
    pub(super) fn wake(&mut self, thread: usize, from: usize) -> bool {
        debug_assert_eq!(self.threads[thread].place, Place::Parked);
        self.wakes += 1;
        let cpu = self.choose(thread, from);
        let idles = self.is_idle(cpu);
        let least = self.cpus[cpu].least_fair_ns;
        let of = &mut self.threads[thread];
        of.cpu = cpu;
        of.woke_at = self.now;
        of.fair_ns = of.fair_ns.max(least).min(least + self.machine.costs.slice);
        if idles {
            of.place = Place::Waking;
            self.cpus[cpu].running = Some(thread);
            self.after(self.machine.costs.wake_idle, Timer::CameUp { thread });
            return true;
        }
        of.place = Place::Queued;
        of.queued_at = self.now;
        let fair_ns = of.fair_ns;
        self.cpus[cpu].queue.push_back(thread);
        if let Some(running) = self.cpus[cpu].running
            && self.threads[running].place == Place::Running
        {
            self.account(running);
            let of = &self.threads[running];
            if self.now - of.woke_at > self.machine.costs.slice
                || of.fair_ns > fair_ns + self.machine.costs.granularity
            {
                self.preempt(cpu);
            } else {
                self.begin_slice(cpu);
            }
        }
        false
    }

    fn choose(&self, thread: usize, from: usize) -> usize {
        let home = self.threads[thread].cpu;
        if self.is_idle(home) {
            return home;
        }
        if self.machine.seeks_idle
            && let Some(idle) = (0..self.cpus.len()).find(|cpu| self.is_idle(*cpu))
        {
            return idle;
        }
        if self.load(from) < self.load(home) {
            from
        } else {
            home
        }
    }

    fn is_idle(&self, cpu: usize) -> bool {
        self.cpus[cpu].running.is_none()
    }

    fn load(&self, cpu: usize) -> usize {
        self.cpus[cpu].queue.len() + usize::from(self.cpus[cpu].running.is_some())
    }

    fn came_up(&mut self, thread: usize) {
        let of = &mut self.threads[thread];
        of.place = Place::Running;
        of.cpu_ns += self.machine.costs.wake_cpu;
        of.since = self.now;
        let cpu = of.cpu;
        self.told.push_back(Event::OnCpu(thread));
        self.begin_slice(cpu);
    }

    /// Takes the one with the least share next.
    fn run_next(&mut self, cpu: usize) {
        let least = (0..self.cpus[cpu].queue.len())
            .min_by_key(|at| self.threads[self.cpus[cpu].queue[*at]].fair_ns);
        let Some(thread) = least.and_then(|at| self.cpus[cpu].queue.remove(at)) else {
            return;
        };
        self.switches += 1;
        let of = &mut self.threads[thread];
        of.place = Place::Running;
        of.since = self.now;
        self.cpus[cpu].running = Some(thread);
        self.cpus[cpu].least_fair_ns = self.cpus[cpu].least_fair_ns.max(of.fair_ns);
        self.told.push_back(Event::OnCpu(thread));
        self.begin_slice(cpu);
    }

    fn begin_slice(&mut self, cpu: usize) {
        if self.cpus[cpu].queue.is_empty() {
            return;
        }
        self.cpus[cpu].epoch += 1;
        let epoch = self.cpus[cpu].epoch;
        self.after(self.machine.costs.slice, Timer::Slice { cpu, epoch });
    }

    fn end_slice(&mut self, cpu: usize, epoch: u64) {
        let Some(running) = self.cpus[cpu].running else {
            return;
        };
        let runs = self.threads[running].place == Place::Running;
        if self.cpus[cpu].epoch == epoch && runs && !self.cpus[cpu].queue.is_empty() {
            self.account(running);
            self.preempt(cpu);
        }
    }

    fn preempt(&mut self, cpu: usize) {
        if let Some(running) = self.cpus[cpu].running.take() {
            self.account(running);
            self.threads[running].place = Place::Queued;
            self.threads[running].queued_at = self.now;
            self.threads[running].epoch += 1;
            self.cpus[cpu].queue.push_back(running);
            self.told.push_back(Event::OffCpu(running));
        }
        self.run_next(cpu);
    }

    fn account(&mut self, thread: usize) {
        let of = &mut self.threads[thread];
        if of.place == Place::Running {
            let ran = self.now - of.since;
            of.cpu_ns += ran;
            of.fair_ns += ran;
            of.since = self.now;
            let cpu = of.cpu;
            let queue = self.cpus[cpu].queue.iter();
            let least = queue.map(|queued| self.threads[*queued].fair_ns).min();
            let fair_ns = self.threads[thread].fair_ns;
            let least = least.map_or(fair_ns, |least| least.min(fair_ns));
            self.cpus[cpu].least_fair_ns = self.cpus[cpu].least_fair_ns.max(least);
        }
    }

    fn balance(&mut self) {
        self.after(self.machine.costs.balance, Timer::Balance);
        let idle = (0..self.cpus.len()).find(|cpu| self.is_idle(*cpu));
        let full = (0..self.cpus.len()).max_by_key(|cpu| self.cpus[*cpu].queue.len());
        let (Some(idle), Some(full)) = (idle, full) else {
            return;
        };
        let wanting = self.cpus[full].queue.front().is_some_and(|thread| {
            self.now - self.threads[*thread].queued_at >= self.machine.costs.wanting
        });
        if wanting && let Some(thread) = self.cpus[full].queue.pop_front() {
            self.threads[thread].cpu = idle;
            self.threads[thread].fair_ns = self.cpus[idle].least_fair_ns;
            self.cpus[idle].queue.push_back(thread);
            self.run_next(idle);
        }
    }

    fn after(&mut self, delay: Nanos, timer: Timer) {
        self.push(self.now + delay, timer);
    }

    fn push(&mut self, at: Nanos, timer: Timer) {
        self.sequence += 1;
        self.timers.push(Reverse((at, self.sequence, timer)));
    }
}
