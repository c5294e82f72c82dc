//! The rule of several connections, second by second, on machines that nothing was measured on: how many it comes to,
//! and how near that is to the best number.
//!
//! As many threads as the client has CPUs call a server on as many others. A part of each call is its connection's, one
//! call at a time, at each end; the rest is the caller's own.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, which are small and never negative"
)]

use super::*;

/// What a call takes of its connection, in microseconds.
const SHARED: f64 = 1.0;

struct Machine {
    cpus: usize,
    /// What a call takes of its caller, in microseconds.
    own: f64,
}

impl Machine {
    /// Calls in a second over so many connections.
    fn calls(&self, connections: usize) -> f64 {
        let by_cpus = self.cpus as f64 / (self.own + SHARED);
        by_cpus.min(connections as f64 / SHARED) * 1e6
    }

    fn reading(&self, connections: usize) -> Reading {
        let calls = self.calls(connections);
        // A thread finds another one driving as often as its connection is in use, if it has not the connection alone.
        let in_use = calls * SHARED / 1e6 / connections as f64;
        let others = 1.0 - connections as f64 / self.cpus as f64;
        let busy = calls * (self.own + SHARED) / 1e6;
        Reading {
            connections,
            calls: calls as u64,
            contended: (calls * in_use * others.max(0.0)) as u64,
            idle: ((self.cpus as f64 - busy).max(0.0) * 1000.0) as u64,
        }
    }

    /// Two minutes; returns how many connections there are then.
    fn settled(&self) -> usize {
        let (mut record, mut connections) = (PoolRecord::default(), 1);
        let count = ConnectionCount::for_cpus(self.cpus);
        for _ in 0..120 {
            match record.judge(count, self.reading(connections)) {
                Verdict::Add => connections += 1,
                Verdict::Remove => connections -= 1,
                Verdict::Stay => {}
            }
        }
        connections
    }
}

#[test]
fn the_rule_comes_near_to_the_best_number_of_connections() {
    for own in [1.0, 5.0, 20.0] {
        for cpus in [1, 2, 4, 8, 16, 64] {
            let machine = Machine { cpus, own };
            let settled = machine.settled();
            let most = (cpus / 2).clamp(1, MAX_CONNECTIONS);
            let best = (1..=most).map(|connections| machine.calls(connections));
            let best = best.fold(0.0, f64::max);
            let reached = machine.calls(settled) / best;
            println!(
                "{cpus} CPUs, {own} us of its own: {settled} connections, {reached:.2} of the best"
            );
            assert!(reached >= 0.85, "{cpus} CPUs, {own} us: {reached:.2}");
            // None that earns nothing.
            assert!(settled == 1 || machine.calls(settled) > 1.05 * machine.calls(settled - 1));
        }
    }
}
