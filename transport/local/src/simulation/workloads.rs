//! The workloads that are simulated, and the machine that they were measured on.

use super::machine::{Costs, Machine, Nanos};
use super::program::{CallCosts, CallOf, LinkOf, Program, Script, Stage, TaskOf, ThreadOf};
use super::sides::{Figures, Rules, Simulation};

const US: Nanos = 1_000;
const MS: Nanos = 1_000_000;

/// The two CPUs of DESIGN's tables.
pub(super) const TWO_CPUS: Machine = Machine {
    cpus: 2,
    seeks_idle: false,
    costs: Costs {
        line: 100,
        ring: 1_500,
        interrupt: 4 * US,
        wake_idle: 31 * US,
        wake_cpu: 4 * US,
        switch: 1_500,
        rouse: 2_200,
        park: 1_600,
        slice: 3 * MS,
        granularity: MS,
        balance: 4 * MS,
        wanting: 20 * US,
    },
};

/// A call of 64 B.
const SMALL: CallCosts = CallCosts {
    send: 300,
    serve: 400,
    deliver: 250,
    task: 150,
    lock: 0,
};

/// A workload and what makes it up.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) program: Program,
    /// Where its threads slept last; dealt out anew for each run, if it is not said.
    pub(super) homes: Option<Vec<usize>>,
    /// The time that is simulated in all, in nanoseconds: enough for steady figures.
    pub(super) span: Nanos,
}

fn thread(process: usize) -> ThreadOf {
    ThreadOf {
        process,
        drives: true,
        busy: false,
    }
}

fn loops(script: usize, thread: usize, count: usize) -> Vec<TaskOf> {
    let task = TaskOf {
        thread,
        script,
        every: None,
    };
    vec![task; count]
}

/// A script that makes `calls` calls at a time of the first link's first handler.
fn caller(calls: usize) -> Script {
    let call = CallOf { link: 0, script: 0 };
    Script {
        stages: vec![Stage {
            cpu: 0,
            calls: vec![call; calls],
        }],
        end: 100,
        spawned: false,
    }
}

/// `compare`: unary calls of 64 B, so many in flight over one connection, beside processes that compute.
pub(super) fn unary(in_flight: usize, busy: usize) -> Workload {
    let mut threads = vec![thread(0), thread(1)];
    for process in 0..busy {
        threads.push(ThreadOf {
            process: 2 + process,
            drives: false,
            busy: true,
        });
    }
    Workload {
        name: format!("unary, {in_flight} in flight, {busy} busy"),
        program: Program {
            threads,
            links: vec![LinkOf { drivers: [0, 1] }],
            scripts: vec![Script::handler(0), caller(1)],
            tasks: loops(1, 0, in_flight),
            calls: SMALL,
        },
        homes: None,
        span: if busy > 0 { 48 * MS } else { 6 * MS },
    }
}

/// One task that makes eight calls at a time.
pub(super) fn join() -> Workload {
    let mut workload = unary(1, 0);
    workload.name = "join of eight".to_owned();
    workload.program.scripts[1] = caller(8);
    workload
}

/// Client and server that slept last on one CPU, while another idles.
pub(super) fn sharing_a_cpu() -> Workload {
    let mut workload = unary(1, 0);
    workload.name = "unary, both on one of two CPUs".to_owned();
    workload.homes = Some(vec![0, 0]);
    workload.span = 60 * MS;
    workload
}

/// One call at a time of a handler that computes for a while, where its request was read.
pub(super) fn computing(micros: u64) -> Workload {
    let mut workload = unary(1, 0);
    workload.name = format!("unary, handlers of {micros} us");
    workload.program.scripts[0] = Script::handler(micros * US);
    workload.span = 24 * MS;
    workload
}

/// 16 calls of a handler that computes longer than any poll, then 256 of a quick one, and so on.
pub(super) fn slow_and_quick() -> Workload {
    let mut workload = unary(1, 0);
    workload.name = "unary, slow and quick in turn".to_owned();
    let program = &mut workload.program;
    program.scripts.push(Script::handler(100 * US));
    let stage = |script| Stage {
        cpu: 0,
        calls: vec![CallOf { link: 0, script }],
    };
    let slow = std::iter::repeat_n(stage(2), 16);
    program.scripts[1].stages = slow.chain(std::iter::repeat_n(stage(0), 256)).collect();
    workload.span = 120 * MS;
    workload
}

/// One call each millisecond.
pub(super) fn paced() -> Workload {
    let mut workload = unary(1, 0);
    workload.name = "unary, paced".to_owned();
    workload.program.tasks[0].every = Some(MS);
    workload.span = 120 * MS;
    workload
}

/// The example shop without its gateway: a load generator, orders, and four services.
pub(super) fn shop(in_flight: usize) -> Workload {
    let [catalog, inventory, payments, media] = [1, 2, 3, 4];
    let pair = |one: usize, two: usize| {
        [one, two]
            .map(|link| CallOf {
                link,
                script: link - 1,
            })
            .to_vec()
    };
    let stage = |cpu, calls| Stage { cpu, calls };
    let order = Script {
        stages: vec![
            stage(2_000, pair(catalog, inventory)),
            stage(2_000, pair(payments, media)),
            stage(1_500, pair(inventory, payments)),
        ],
        end: 1_000,
        spawned: false,
    };
    let shopper = Script {
        stages: vec![stage(1_500, vec![CallOf { link: 0, script: 4 }])],
        end: 1_500,
        spawned: false,
    };
    let mut links = vec![LinkOf { drivers: [0, 1] }];
    links.extend([2, 3, 4, 5].map(|service| LinkOf {
        drivers: [1, service],
    }));
    let mut scripts = vec![Script::handler(700); 4];
    scripts.extend([order, shopper]);
    Workload {
        name: format!("shop, {in_flight} in flight"),
        program: Program {
            threads: (0..6).map(thread).collect(),
            links,
            scripts,
            tasks: loops(5, 0, in_flight),
            calls: CallCosts {
                send: 900,
                serve: 1_000,
                deliver: 700,
                task: 500,
                lock: 0,
            },
        },
        homes: None,
        span: 80 * MS,
    }
}

/// One connection to a server of so many workers, whose handlers compute for 20 us as tasks of their own.
pub(super) fn slow_handlers(workers: usize) -> Workload {
    let mut workload = unary(4 * workers, 0);
    let program = &mut workload.program;
    program.scripts[0] = Script {
        spawned: workers > 1,
        ..Script::handler(20 * US)
    };
    for _ in 1..workers {
        program.threads.push(ThreadOf {
            drives: false,
            ..thread(1)
        });
    }
    program.calls.lock = 100;
    workload.name = format!("handlers of 20 us, {workers} workers");
    workload.span = 16 * MS;
    workload
}

/// So many clients with a connection and 16 calls in flight each, to one server whose drivers share them.
pub(super) fn many_clients(clients: usize, drivers: usize) -> Workload {
    let mut workload = unary(1, 0);
    let program = &mut workload.program;
    program.threads = (0..drivers).map(|_| thread(0)).collect();
    program.links.clear();
    program.scripts = vec![Script::handler(US)];
    program.tasks.clear();
    for client in 0..clients {
        program.threads.push(thread(1 + client));
        program.links.push(LinkOf {
            drivers: [drivers + client, client % drivers],
        });
        let mut script = caller(1);
        script.stages[0].calls[0].link = client;
        program.scripts.push(script);
        program
            .tasks
            .extend(loops(1 + client, drivers + client, 16));
    }
    workload.name = format!("{clients} clients, {drivers} drivers");
    workload.span = 4 * MS;
    workload
}

/// A client of so many threads with eight calls in flight each, over a channel of so many connections to a server
/// with a driver for each.
pub(super) fn channel(threads: usize, connections: usize) -> Workload {
    let mut workload = unary(1, 0);
    let program = &mut workload.program;
    program.threads = (0..threads).map(|_| thread(0)).collect();
    program.links.clear();
    program.scripts = vec![Script::handler(0)];
    program.tasks.clear();
    for connection in 0..connections {
        program.threads.push(thread(1));
        program.links.push(LinkOf {
            drivers: [connection, threads + connection],
        });
        let mut script = caller(1);
        script.stages[0].calls[0].link = connection;
        program.scripts.push(script);
    }
    for caller in 0..threads {
        let script = 1 + caller % connections;
        program.tasks.extend(loops(script, caller, 8));
    }
    program.calls.lock = 150;
    workload.name = format!("{threads} threads of callers, {connections} connections");
    workload.span = 4 * MS;
    workload
}

/// Runs a workload from several arrangements of its threads, and adds up. Each seed is another one.
pub(super) fn run(workload: &Workload, machine: Machine, rules: Rules) -> Figures {
    run_from(1, workload, machine, rules)
}

const SEEDS: u64 = 4;

/// Runs a workload as [`run`] does, with the seeds from `first` on.
pub(super) fn run_from(first: u64, workload: &Workload, machine: Machine, rules: Rules) -> Figures {
    let mut total = Figures::default();
    let threads = workload.program.threads.len();
    // With a CPU for each thread, and with two threads, all arrangements are alike.
    let alike = workload.homes.is_some() || threads < 4 || threads <= machine.cpus;
    let last = if alike { first } else { first + SEEDS - 1 };
    for seed in first..=last {
        let homes = workload
            .homes
            .clone()
            .unwrap_or_else(|| arrange(threads, machine.cpus, seed));
        let one = Simulation::new(machine, rules, &workload.program, &homes)
            .run(MS, workload.span / SEEDS);
        total.done += one.done;
        total.seconds += one.seconds;
        total.cpu_seconds += one.cpu_seconds;
        total.latencies.extend(one.latencies);
        total.rings += one.rings;
        total.wakes += one.wakes;
        total.switches += one.switches;
    }
    total
}

/// As many threads on each CPU, dealt out by `seed`; the first two, who talk to each other, apart.
fn arrange(threads: usize, cpus: usize, seed: u64) -> Vec<usize> {
    let mut homes: Vec<_> = (0..threads).map(|thread| thread % cpus).collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for at in (3..threads).rev() {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let span = u64::try_from(at - 1).unwrap_or(1);
        homes.swap(at, 2 + usize::try_from(state % span).unwrap_or(0));
    }
    homes
}
