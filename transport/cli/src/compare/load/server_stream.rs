//! Streams from a ready source at the server, one after the other.

use std::time::Instant;

use tonic::Status;

use super::{BLOCK_MESSAGES, Caller, Failure, LaneId, Latencies, Load};
use crate::compare::payload::check;

pub(super) async fn lane<C: Caller>(
    load: Load,
    mut client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    let mut schedule = load.schedule(id)?;
    let size_bytes =
        u32::try_from(load.size_bytes).map_err(|_| Status::out_of_range("a message this large"))?;
    let count = load.stream_messages();
    while let Some(begun) = schedule.next().await? {
        one_stream(&mut client, (count, size_bytes), begun, &mut latencies).await?;
    }
    Ok(latencies)
}

/// Times blocks of messages as they arrive; the first block pays for the call's start.
async fn one_stream<C: Caller>(
    client: &mut C,
    (count, size_bytes): (u64, u32),
    begun: Instant,
    latencies: &mut Latencies,
) -> Result<(), Failure> {
    let mut replies = client.server_stream(count, size_bytes).await?.into_inner();
    let mut block_begun = begun;
    let mut received = 0;
    while let Some(reply) = replies.message().await? {
        check(&reply, received, size_bytes as usize)?;
        received += 1;
        if received % BLOCK_MESSAGES == 0 || received == count {
            let now = Instant::now();
            let messages = (received - 1) % BLOCK_MESSAGES + 1;
            latencies.record_each(now - block_begun, messages);
            block_begun = now;
        }
    }
    if received == count {
        return Ok(());
    }
    Err(Failure::Short {
        received,
        expected: count,
    })
}
