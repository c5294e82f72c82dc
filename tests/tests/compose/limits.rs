//! Containers with less than a CPU: spinning would use up what the answer needs.

use std::thread;

use crate::engine::{docker, ringway};
use crate::load::{Load, eventually, place};
use crate::stack::{Overlay, SERVICES, Stack};

/// Rounds of each path, in turn, so that both meet the same moments of this machine.
const ROUNDS: usize = 3;
const ORDERS: u32 = 100;
const RATE: u32 = 50;

/// How long a container was kept from running by its limit so far, s.
fn throttled_s(container: &str) -> f64 {
    // Version 1 or 2 of the control groups.
    let files = ["/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"];
    let look = format!("cat {} 2>/dev/null || true", files.join(" "));
    let stat = docker(&["exec", container, "sh", "-c", &look]);
    let found = stat.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_time", ns) => Some(ns.parse::<f64>().unwrap() / 1e9),
        ("throttled_usec", us) => Some(us.parse::<f64>().unwrap() / 1e6),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no throttling in {stat:?}"))
}

/// One stack, its rounds, and what they cost.
struct Tried {
    stack: Stack,
    p99_ms: Vec<f64>,
}

impl Tried {
    fn up(project: &str, further: &[&'static str]) -> Self {
        let files = [&["tests/compose/half-a-cpu.yaml"], further].concat();
        let stack = Stack::up(project, Overlay::of(&files));
        // Pictures are drawn when they are first asked for.
        place(stack.gateway(), ORDERS, RATE);
        Self {
            stack,
            p99_ms: Vec::new(),
        }
    }

    fn round(&mut self, path: &str) {
        let seen = place(self.stack.gateway(), ORDERS, RATE);
        assert!(seen.is_all(path), "{seen:?}");
        self.p99_ms.push(seen.order_p99_ms());
    }

    fn throttled_s(&self) -> f64 {
        let services = SERVICES.iter();
        services
            .map(|it| throttled_s(&self.stack.container(it)))
            .sum()
    }

    fn median_p99_ms(&mut self) -> f64 {
        self.p99_ms.sort_by(f64::total_cmp);
        self.p99_ms[self.p99_ms.len() / 2]
    }
}

/// That the service sees its limit, and that none of its waits spins while it is busy.
fn sees_its_limit(stack: &Stack) {
    let orders = stack.container("orders");
    let doctor = ringway(&orders, &["doctor", "--json"]);
    let findings = doctor["findings"].as_array().unwrap();
    let quota = findings.iter().find(|it| it["what"] == "CPU quota");
    assert_eq!(quota.unwrap()["state"], "limited", "{doctor}");

    let _load = Load::start(stack.gateway(), RATE);
    eventually("calls over shared memory", || {
        let seen = ringway(
            &orders,
            &["top", "--json", "--iterations=1", "orders:50051"],
        );
        let connections = seen["connections"].as_array().unwrap();
        let mut busy = connections
            .iter()
            .filter(|it| it["path"] == "shm" && it["calls_per_s"].as_f64() > Some(1.0))
            .peekable();
        let any = busy.peek().is_some();
        // No share of looks that paid: there were none.
        assert!(busy.all(|it| it["looks_paid"].is_null()), "{seen}");
        any
    });
}

pub(crate) fn half_a_cpu() {
    let (mut memory, mut network) = thread::scope(|scope| {
        let memory = scope.spawn(|| Tried::up("half-memory", &[]));
        let network = Tried::up("half-network", &["deploy/compose.network.yaml"]);
        (memory.join().unwrap(), network)
    });
    sees_its_limit(&memory.stack);
    let before = [memory.throttled_s(), network.throttled_s()];
    for _ in 0..ROUNDS {
        memory.round("shm");
        network.round("grpc-tcp");
    }
    let throttled = [
        memory.throttled_s() - before[0],
        network.throttled_s() - before[1],
    ];
    let p99_ms = [memory.median_p99_ms(), network.median_p99_ms()];
    println!(
        "half a CPU each: p99 of an order {p99_ms:.1?} ms, throttled {throttled:.2?} s (memory, network)"
    );
    assert!(p99_ms[0] <= p99_ms[1], "p99 of an order, ms: {p99_ms:?}");
    // A tenth of a second is a single period of the limit.
    assert!(
        throttled[0] <= throttled[1] + 0.1,
        "throttled, s: {throttled:?}"
    );
}
