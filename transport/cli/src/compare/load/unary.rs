//! One call after the other, as fast as they return or on a schedule.

use std::time::Instant;

use super::{Caller, Failure, LaneId, Latencies, Load};
use crate::compare::payload::{Maker, check};

pub(super) async fn lane<C: Caller>(
    load: Load,
    mut client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    let mut maker = Maker::new(load.size_bytes);
    let mut schedule = load.schedule(id)?;
    let mut sequence = id.first_sequence();
    loop {
        let payload = maker.make(sequence);
        let Some(begun) = schedule.next().await? else {
            return Ok(latencies);
        };
        let reply = client.unary(payload).await?;
        let ended = Instant::now();
        check(reply.get_ref(), sequence, load.size_bytes)?;
        latencies.record(ended - begun);
        sequence += 1;
    }
}
