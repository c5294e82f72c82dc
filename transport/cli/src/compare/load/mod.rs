//! The load: what a client does during one round, the same for every path.
//!
//! `unary` and `bidi` keep a number of lanes going, each of which makes one call, or sends one
//! message, at a time, and `join` lanes that make eight; `server_stream` and `client_stream` keep streams of ready messages going.

mod bidi;
mod client_stream;
mod join;
mod lanes;
mod server_stream;
mod threads;
mod unary;

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
pub(crate) use lanes::LaneId;

use super::connect::{Client, with_caller};
use super::error::Failure;
use super::measure::{Latencies, Recorder, Tally};
use super::options::{Kind, Spread};
use super::pace::Schedule;
use super::stubs::Caller;
use super::stubs::ours::BenchBlockingClient;

/// Messages between two looks at the clock in a stream of ready messages.
const BLOCK_MESSAGES: u64 = 64;

/// What one stream of ready messages carries, at most.
const STREAM_MESSAGES_MAX: u64 = 100_000;
const STREAM_BYTES_MAX: u64 = 64 << 20;

/// How long after its deadline a round may still be under way: its calls are stuck then.
const OVERRUN_MAX: Duration = Duration::from_secs(30);

/// One round of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) size_bytes: usize,
    pub(crate) in_flight: u16,
    /// Calls a second over all lanes; none for as fast as possible.
    pub(crate) rate: Option<f64>,
    pub(crate) spread: Spread,
    /// Unary calls carry metadata and a deadline.
    pub(crate) dressed: bool,
    pub(crate) duration: Duration,
    /// Tells this round's payloads from those of all others.
    pub(crate) round: u16,
}

impl Load {
    /// Runs it, its lanes dealt out over `clients`. CPU time is left to the caller, who knows which processes take
    /// part.
    pub(crate) async fn run(&self, clients: &[Client]) -> Result<Tally, Failure> {
        let begun = Instant::now();
        let dealt = clients
            .iter()
            .enumerate()
            .map(|(number, client)| async move {
                let share = self.share(number, clients.len());
                with_caller!(client, caller => share.run_with(caller).await)
            });
        let mut tally = Tally::new();
        for part in try_join_all(dealt).await? {
            tally.latencies.merge(&part.latencies);
        }
        tally.elapsed = begun.elapsed();
        Ok(tally)
    }

    /// The part of one of several clients.
    fn share(&self, number: usize, of: usize) -> Self {
        let lanes = usize::from(self.in_flight);
        let mine = lanes / of + usize::from(number < lanes % of);
        let in_flight = u16::try_from(mine).unwrap_or(self.in_flight);
        let rate = self
            .rate
            .map(|rate| rate * f64::from(in_flight) / f64::from(self.in_flight));
        Self {
            in_flight,
            rate,
            ..*self
        }
    }

    /// Runs it on threads without a runtime, one for each call in flight.
    pub(crate) async fn run_on_threads(
        &self,
        client: &BenchBlockingClient,
    ) -> Result<Tally, Failure> {
        let begun = Instant::now();
        let latencies = threads::gather(self, client).await?;
        Ok(Tally {
            latencies,
            elapsed: begun.elapsed(),
            cpu_ns: 0,
        })
    }

    async fn run_with<C: Caller>(&self, client: &C) -> Result<Tally, Failure> {
        let begun = Instant::now();
        let lanes = async {
            match self.kind {
                Kind::Unary => lanes::gather(self, client, unary::lane).await,
                Kind::Join => lanes::gather(self, client, join::lane).await,
                Kind::ServerStream => lanes::gather(self, client, server_stream::lane).await,
                Kind::ClientStream => lanes::gather(self, client, client_stream::lane).await,
                Kind::Bidi => lanes::gather(self, client, bidi::lane).await,
            }
        };
        let ended = tokio::time::timeout(self.duration + OVERRUN_MAX, lanes).await;
        let latencies = ended.map_err(|_| Failure::Stalled(OVERRUN_MAX))??;
        Ok(Tally {
            latencies,
            elapsed: begun.elapsed(),
            cpu_ns: 0,
        })
    }

    /// When the calls of one lane start.
    fn schedule(&self, lane: LaneId) -> Result<Schedule, Failure> {
        let deadline = Instant::now() + self.duration;
        let lane_rate = self.rate.map(|rate| rate / f64::from(self.in_flight));
        Ok(match lane_rate {
            Some(rate) => Schedule::paced(rate, lane.first_sequence(), deadline)?,
            None => Schedule::at_once(deadline),
        })
    }

    /// How many messages one stream of ready messages carries: enough that its start costs
    /// nothing, few enough that all lanes are done soon after the deadline.
    fn stream_messages(&self) -> u64 {
        let by_bytes = STREAM_BYTES_MAX / (self.size_bytes as u64).max(1);
        let all_lanes = by_bytes.clamp(1, STREAM_MESSAGES_MAX);
        (all_lanes / u64::from(self.in_flight)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(size_bytes: usize, in_flight: u16) -> Load {
        Load {
            kind: Kind::ServerStream,
            size_bytes,
            in_flight,
            rate: None,
            spread: Spread::Tasks,
            dressed: false,
            duration: Duration::from_millis(50),
            round: 1,
        }
    }

    #[test]
    fn streams_are_long_but_bounded() {
        assert_eq!(load(0, 1).stream_messages(), 100_000);
        assert_eq!(load(64, 1).stream_messages(), 100_000);
        assert_eq!(load(4096, 1).stream_messages(), 16_384);
        assert_eq!(load(1 << 20, 1).stream_messages(), 64);
        assert_eq!(load(1 << 20, 64).stream_messages(), 1);
        assert_eq!(load(64 << 20, 1000).stream_messages(), 1);
    }

    #[test]
    fn lanes_are_dealt_out_over_connections() {
        let whole = Load {
            rate: Some(700.0),
            ..load(64, 7)
        };
        let shares: Vec<_> = (0..3).map(|number| whole.share(number, 3)).collect();
        let lanes: Vec<_> = shares.iter().map(|share| share.in_flight).collect();
        assert_eq!(lanes, [3, 2, 2]);
        let rates: f64 = shares.iter().filter_map(|share| share.rate).sum();
        assert!((rates - 700.0).abs() < 1e-6);
        assert_eq!(load(64, 1).share(1, 2).in_flight, 0);
    }

    #[test]
    fn no_two_lanes_share_sequence_numbers() {
        let first = |lane, round| LaneId { lane, round }.first_sequence();
        assert!(first(1, 0) - first(0, 0) > u64::from(u32::MAX));
        assert_ne!(first(0, 1), first(1, 0));
        assert!(first(u16::MAX, 0) < first(0, 1));
    }
}
