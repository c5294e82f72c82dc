//! One unary call after the other on each of several threads, as fast as they return.

use std::thread;
use std::time::Instant;

use super::{BenchBlockingClient, Failure, LaneId, Latencies, Load, Recorder};
use crate::compare::payload::{Maker, check};
use crate::compare::stubs::ours::Payload;

pub(super) async fn gather(
    load: &Load,
    client: &BenchBlockingClient,
) -> Result<Latencies, Failure> {
    let round = load.round;
    let lanes: Vec<_> = (0..load.in_flight)
        .map(|lane| {
            let (load, client) = (*load, client.clone());
            thread::spawn(move || run(&load, client, LaneId { lane, round }))
        })
        .collect();
    let joined = tokio::task::spawn_blocking(|| {
        let mut all = Latencies::new();
        for lane in lanes {
            let ended = lane.join();
            all.merge(&ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    });
    joined.await?
}

fn run(load: &Load, mut client: BenchBlockingClient, id: LaneId) -> Result<Latencies, Failure> {
    let mut latencies = Recorder::new();
    let mut maker = Maker::new(load.size_bytes);
    let mut sequence = id.first_sequence();
    let deadline = Instant::now() + load.duration;
    loop {
        let payload: Payload = maker.make(sequence);
        let begun = Instant::now();
        if begun >= deadline {
            return Ok(latencies.finish());
        }
        let reply = client.unary(payload)?;
        latencies.record(begun.elapsed());
        check(reply.get_ref(), sequence, load.size_bytes)?;
        sequence += 1;
    }
}
