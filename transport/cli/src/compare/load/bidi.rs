//! A stream in lockstep, one message each way at a time, written as users write one.

use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Caller, Failure, LaneId, Latencies, Load};
use crate::compare::payload::{Maker, check};

/// Messages that may wait in the sender's channel; lockstep needs one.
const DEPTH: usize = 16;

pub(super) async fn lane<C: Caller>(
    load: Load,
    mut client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new();
    let mut maker = Maker::new(load.size_bytes);
    let (sender, receiver) = mpsc::channel(DEPTH);
    let replies = client.bidi(ReceiverStream::new(receiver)).await?;
    let mut replies = replies.into_inner();
    let mut schedule = load.schedule(id)?;
    let mut sequence = id.first_sequence();
    loop {
        let payload = maker.make(sequence);
        let Some(begun) = schedule.next().await? else {
            break;
        };
        // When the call has failed, its replies say why.
        let _ = sender.send(payload).await;
        let reply = replies
            .message()
            .await?
            .ok_or_else(|| ended_early(&latencies))?;
        let ended = Instant::now();
        check(&reply, sequence, load.size_bytes)?;
        latencies.record(ended - begun);
        sequence += 1;
    }
    drop(sender);
    match replies.message().await? {
        None => Ok(latencies),
        Some(_) => Err(Status::data_loss("a reply to nothing").into()),
    }
}

fn ended_early(latencies: &Latencies) -> Failure {
    Failure::Short {
        received: latencies.count(),
        expected: latencies.count() + 1,
    }
}
