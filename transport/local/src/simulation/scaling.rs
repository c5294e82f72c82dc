//! Machines of up to 64 CPUs, which nothing was measured on: the costs are those of the machine of two CPUs, but that
//! a waking thread finds an idle CPU.

use super::machine::Machine;
use super::sides::Rules;
use super::workloads::{TWO_CPUS, Workload, channel, many_clients, run, slow_handlers};
use crate::spin::WaitPolicy;

fn calls_per_second(workload: &Workload, cpus: usize) -> f64 {
    let machine = Machine {
        cpus,
        seeks_idle: true,
        ..TWO_CPUS
    };
    let figures = run(workload, machine, Rules::shipped(WaitPolicy::Adaptive));
    println!(
        "{:46} {cpus:>3} CPUs {:>10.0} calls/s {:>7.2} us CPU a call",
        workload.name,
        figures.per_second(),
        figures.cpu_us()
    );
    figures.per_second()
}

/// One connection, handlers of 20 us as tasks of the server's runtime; the client has a CPU of its own.
#[test]
fn handlers_of_one_connection_spread_over_workers() {
    let workers = [1, 2, 4, 8, 16, 32, 63];
    let rates = workers.map(|workers| calls_per_second(&slow_handlers(workers), workers + 1));
    assert!(rates[1] / rates[0] > 1.6, "{rates:?}");
}

/// 32 clients of one server, handlers of 1 us: what more than one driver would win.
#[test]
fn connections_spread_over_drivers() {
    let drivers = [1, 2, 4, 8, 16, 32];
    let rates = drivers.map(|drivers| calls_per_second(&many_clients(32, drivers), 64));
    assert!(rates[1] / rates[0] > 1.6, "{rates:?}");
}

/// A client of eight busy threads: what more than one connection would win.
#[test]
fn callers_spread_over_connections() {
    let connections = [1, 2, 4, 8];
    let rates = connections.map(|connections| calls_per_second(&channel(8, connections), 64));
    assert!(rates[1] / rates[0] > 1.3, "{rates:?}");
}
