//! Lanes side by side: the one place that decides which tasks the calls in flight run in.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::{Caller, Failure, Latencies, Load, Spread};

/// Which lane of which round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneId {
    pub(crate) lane: u16,
    pub(crate) round: u16,
}

impl LaneId {
    /// Where the lane's sequence numbers start: no two lanes, and no two rounds, share any.
    pub(crate) fn first_sequence(self) -> u64 {
        (u64::from(self.round) << 48) | (u64::from(self.lane) << 32)
    }
}

/// Runs every lane of `load` to its end and puts together what they measured.
pub(super) async fn gather<C, F, R>(load: &Load, client: &C, lane: F) -> Result<Latencies, Failure>
where
    C: Caller,
    F: Fn(Load, C, LaneId) -> R,
    R: Future<Output = Result<Latencies, Failure>> + Send + 'static,
{
    let round = load.round;
    let lanes = (0..load.in_flight).map(|number| {
        let id = LaneId {
            lane: number,
            round,
        };
        lane(*load, client.clone(), id)
    });
    match load.spread {
        Spread::Tasks => in_tasks(lanes.collect()).await,
        Spread::OneTask => in_one_task(lanes.collect()).await,
    }
}

/// The set aborts the other lanes when one of them fails.
async fn in_tasks(mut lanes: JoinSet<Result<Latencies, Failure>>) -> Result<Latencies, Failure> {
    let mut all = Latencies::new();
    while let Some(ended) = lanes.join_next().await {
        all.merge(&ended??);
    }
    Ok(all)
}

async fn in_one_task<R>(mut lanes: FuturesUnordered<R>) -> Result<Latencies, Failure>
where
    R: Future<Output = Result<Latencies, Failure>> + Send + 'static,
{
    let task = tokio::spawn(async move {
        let mut all = Latencies::new();
        while let Some(ended) = lanes.next().await {
            all.merge(&ended?);
        }
        Ok(all)
    });
    task.await?
}
