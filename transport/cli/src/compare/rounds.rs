//! Rounds: each row of a group in turn, until the group's time is used.

use std::time::Duration;

use ringway_sys::floor::Mechanism;

use super::connect::{Client, prove};
use super::error::Error;
use super::floors::FloorPair;
use super::load::Load;
use super::measure::{CallRow, Tally};
use super::options::{Path, Spread};
use super::pairs::{self, Pairs, Price};
use super::peer::Peer;
use super::plan::{Group, Plan, Subject};
use super::stubs::ours::BenchBlockingClient;
use super::switch::Tracing;

/// How much of a round is run before its clock starts: a tenth, within limits.
const WARM_UP_MIN: Duration = Duration::from_millis(20);
const WARM_UP_MAX: Duration = Duration::from_millis(200);

/// What rounds are run on.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The server of each path.
    pub(crate) peers: Vec<Peer>,
    /// Where calls are traced, too.
    pub(crate) tracing: Option<Tracing>,
    /// The connections over which a path's calls are spread.
    pub(crate) connections: u16,
}

/// Times all rows of `group`.
pub(crate) async fn run(
    plan: &Plan,
    group: &Group,
    spread: Spread,
    stage: &mut Stage,
    each_round: impl Fn(&str),
) -> Result<Vec<CallRow>, Error> {
    let Stage {
        peers,
        tracing,
        connections,
    } = stage;
    let mut entrants = Vec::new();
    let mut traced = Vec::new();
    for &subject in &group.subjects {
        let entrant = Entrant::ready(subject, peers, *connections).await?;
        match subject {
            Subject::Traced(path) => traced.push((path, entrant)),
            _ => entrants.push(entrant),
        }
    }
    for round in 0..plan.rounds {
        for entrant in &mut entrants {
            each_round(&describe(group, entrant.subject));
            let load = Load {
                dressed: matches!(entrant.subject, Subject::Dressed(_)),
                ..load_of(plan, group, spread, round)
            };
            let timed = entrant.round(group, load, peers).await?;
            entrant.total.add(&timed);
        }
    }
    let row = |entrant: Entrant| entrant.total.into_row(group.label(entrant.subject));
    let mut rows: Vec<_> = entrants.into_iter().map(row).collect();
    for (path, mut entrant) in traced {
        each_round(&describe(group, entrant.subject));
        let tracing = tracing.as_mut().ok_or(Error::CannotTrace)?;
        let load = load_of(plan, group, spread, 0);
        let price = entrant.in_pairs(path, plan.seconds, group, load, peers, tracing);
        let price = price.await?;
        rows.push(CallRow {
            tracing: Some(Box::new(price)),
            ..row(entrant)
        });
    }
    Ok(rows)
}

fn load_of(plan: &Plan, group: &Group, spread: Spread, round: u16) -> Load {
    Load {
        kind: group.kind,
        size_bytes: group.size_bytes,
        in_flight: group.in_flight,
        rate: group.rate,
        spread,
        dressed: false,
        duration: plan.round,
        round: round * 2 + 1,
    }
}

/// A row while it is timed.
struct Entrant {
    subject: Subject,
    means: Means,
    total: Tally,
}

enum Means {
    Calls(Path, Vec<Client>),
    /// Calls of threads without a runtime.
    Threads(Path, BenchBlockingClient),
    /// Its far end is started for each round: one that spins would take a CPU from everyone else's.
    Floor(Mechanism),
}

impl Entrant {
    async fn ready(subject: Subject, peers: &[Peer], connections: u16) -> Result<Self, Error> {
        let means = match subject {
            Subject::Floor(floor) => Means::Floor(floor),
            Subject::Path(path) | Subject::Dressed(path) | Subject::Traced(path) => {
                let peer = peers.iter().find(|peer| peer.path == path);
                let peer = peer.ok_or(Error::NoServer(path))?;
                if path == Path::ShmBlocking {
                    let client = in_a_thread(peer.blocking()).await?;
                    return Ok(Self::new(subject, Means::Threads(path, client)));
                }
                let mut clients = Vec::new();
                for _ in 0..connections {
                    let client = peer.connect().await?;
                    prove(path, &client).await?;
                    clients.push(client);
                }
                Means::Calls(path, clients)
            }
        };
        Ok(Self::new(subject, means))
    }

    fn new(subject: Subject, means: Means) -> Self {
        Entrant {
            subject,
            means,
            total: Tally::new(),
        }
    }

    /// Times slices without and with tracing, in turn. Pairs are their own comparison, so other rows
    /// need not stand between them; and what one path's spans cost falls on nobody else.
    async fn in_pairs(
        &mut self,
        path: Path,
        seconds: f64,
        group: &Group,
        load: Load,
        peers: &mut [Peer],
        tracing: &mut Tracing,
    ) -> Result<Price, Error> {
        let (turns, duration) = pairs::turns(seconds);
        let mut pairs = Pairs::new(load.rate.is_some());
        let before = tracing.spans(peer_of(peers, path)?)?;
        for (with, number) in (0..turns)
            .flat_map(|_| pairs::TURN)
            .zip((0..=u16::MAX / 2).cycle())
        {
            tracing.set(peer_of(peers, path)?, with)?;
            let slice = Load {
                duration,
                round: number * 2 + 1,
                ..load
            };
            pairs.add(with, &self.round(group, slice, peers).await?);
        }
        let peer = peer_of(peers, path)?;
        tracing.set(peer, false)?;
        let after = tracing.spans(peer)?;
        let spans = (after.0 - before.0, after.1 - before.1);
        let (price, total) = pairs.price(tracing.ratio(), spans);
        self.total = total;
        Ok(price)
    }

    /// Warms up, then times one round.
    async fn round(
        &mut self,
        group: &Group,
        load: Load,
        peers: &mut [Peer],
    ) -> Result<Tally, Error> {
        let warm_up = Load {
            duration: (load.duration / 10).clamp(WARM_UP_MIN, WARM_UP_MAX),
            round: load.round - 1,
            ..load
        };
        let failed = |source| Error::Call {
            row: describe(group, self.subject),
            source,
        };
        match &mut self.means {
            Means::Floor(mechanism) => {
                let mut pair = FloorPair::start(*mechanism)?;
                pair.run(warm_up.duration).map_err(failed)?;
                let before_ns = pair.cpu_ns();
                let mut timed = pair.run(load.duration).map_err(failed)?;
                timed.cpu_ns = pair.cpu_ns().saturating_sub(before_ns);
                Ok(timed)
            }
            Means::Calls(path, clients) => {
                let peer = peer_of(peers, *path)?;
                warm_up.run(clients).await.map_err(failed)?;
                let before_ns = peer.cpu_ns()?;
                let mut timed = load.run(clients).await.map_err(failed)?;
                timed.cpu_ns = peer.cpu_ns()?.saturating_sub(before_ns);
                Ok(timed)
            }
            Means::Threads(path, client) => {
                let peer = peer_of(peers, *path)?;
                warm_up.run_on_threads(client).await.map_err(failed)?;
                let before_ns = peer.cpu_ns()?;
                let mut timed = load.run_on_threads(client).await.map_err(failed)?;
                timed.cpu_ns = peer.cpu_ns()?.saturating_sub(before_ns);
                Ok(timed)
            }
        }
    }
}

fn peer_of(peers: &mut [Peer], path: Path) -> Result<&mut Peer, Error> {
    let peer = peers.iter_mut().find(|peer| peer.path == path);
    peer.ok_or(Error::NoServer(path))
}

/// Runs what blocks.
async fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A row in words.
fn describe(group: &Group, subject: Subject) -> String {
    let size = ringway_report::words::size(group.size_bytes);
    format!(
        "{subject} {} {size}, {} in flight",
        group.kind, group.in_flight
    )
}
