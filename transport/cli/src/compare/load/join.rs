//! Eight unary calls of one task at once, as a handler makes them that needs several answers.

use std::time::Instant;

use futures_util::future::try_join_all;
use tonic::Request;

use super::{Caller, Failure, LaneId, Latencies, Load, Recorder};
use crate::compare::payload::{Maker, check};

/// Calls that are made at once.
const CALLS: usize = 8;

pub(super) async fn lane<C: Caller>(
    load: Load,
    client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut clients = vec![client; CALLS];
    let mut latencies = Recorder::new();
    let mut maker = Maker::new(load.size_bytes);
    let mut schedule = load.schedule(id)?;
    let mut sequences = id.first_sequence()..;
    loop {
        let requests: Vec<_> = sequences
            .by_ref()
            .take(CALLS)
            .map(|sequence| (sequence, Request::new(maker.make(sequence))))
            .collect();
        let Some(begun) = schedule.next().await? else {
            return Ok(latencies.finish());
        };
        let calls = clients.iter_mut().zip(requests);
        let replies = try_join_all(calls.map(|(client, (sequence, request))| async move {
            let reply = client.unary(request).await?;
            Ok::<_, Failure>((sequence, reply))
        }))
        .await?;
        let ended = Instant::now();
        for (sequence, reply) in replies {
            check(reply.get_ref(), sequence, load.size_bytes)?;
        }
        latencies.record(ended - begun);
    }
}
