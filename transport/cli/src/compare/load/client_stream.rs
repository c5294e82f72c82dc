//! Streams from a ready source at the client, one after the other.

use std::time::Instant;

use super::{Caller, Failure, LaneId, Latencies, Load};
use crate::compare::payload::Source;
use crate::compare::stubs::Count;

/// Times whole streams: only the server's summary tells that the messages arrived.
pub(super) async fn lane<C: Caller>(
    load: Load,
    mut client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    let mut schedule = load.schedule(id)?;
    let messages = load.stream_messages();
    let sent = Count {
        messages,
        bytes: messages * load.size_bytes as u64,
    };
    let mut sequence = id.first_sequence();
    while let Some(begun) = schedule.next().await? {
        let payloads = Source::new(load.size_bytes, sequence, messages);
        let counted = client.client_stream(payloads).await?.into_inner();
        let ended = Instant::now();
        if counted != sent {
            return Err(Failure::Count {
                counted: spell(counted),
                sent: spell(sent),
            });
        }
        latencies.record_each(ended - begun, messages);
        sequence += messages;
    }
    Ok(latencies)
}

fn spell(count: Count) -> String {
    format!(
        "{} messages of {} bytes in all",
        count.messages, count.bytes
    )
}
