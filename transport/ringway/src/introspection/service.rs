//! The service itself: snapshots of the process.

use std::pin::Pin;
use std::time::{Duration, Instant};

use ringway_local::PeerCredentials;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::v1::introspection_server::Introspection;
use super::v1::{Channel, Connection, Latency, Method, Role, Snapshot, WatchRequest};
use crate::latency::{self, Source, Times, Watcher};
use crate::path::Path;
use crate::stats::{self, ConnectionRole, ConnectionStats};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// A closer watch sees itself, and each snapshot copies what is known of each connection.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Tells of all connections and channels of its process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introspect;

type Snapshots = Pin<Box<dyn Stream<Item = Result<Snapshot, Status>> + Send>>;

#[tonic::async_trait]
impl Introspection for Introspect {
    type WatchStream = Snapshots;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Snapshots>, Status> {
        let asked = Duration::from_millis(request.into_inner().interval_ms.into());
        let every = match asked {
            Duration::ZERO => DEFAULT_INTERVAL,
            asked => asked.max(SHORTEST_INTERVAL),
        };
        let watcher = Watcher::new()
            .ok_or_else(|| Status::resource_exhausted("too many watch this process already"))?;
        let watch = Watch::new(watcher, every);
        let snapshots = futures_util::stream::unfold(watch, |mut watch| async {
            let snapshot = watch.next().await;
            Some((Ok(snapshot), watch))
        });
        Ok(Response::new(Box::pin(snapshots)))
    }
}

/// What one watcher has seen so far.
struct Watch {
    watcher: Watcher,
    ticks: Interval,
    last: Instant,
    seen: Times,
}

impl Watch {
    fn new(watcher: Watcher, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            // What others have watched is not this one's.
            seen: watcher.times(),
            watcher,
            ticks,
            last: Instant::now(),
        }
    }

    async fn next(&mut self) -> Snapshot {
        self.ticks.tick().await;
        let now = Instant::now();
        let elapsed = now - std::mem::replace(&mut self.last, now);
        let times = self.watcher.times();
        let before = std::mem::replace(&mut self.seen, times);
        Snapshot {
            pid: std::process::id(),
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            connections: self.connections(&before),
            channels: channels(),
            methods: methods(),
        }
    }

    fn connections(&self, before: &Times) -> Vec<Connection> {
        let latency_of = |source: &Source| {
            let came = latency::since(self.seen.get(source)?, before.get(source));
            (!came.is_empty()).then(|| Latency {
                calls: came.len(),
                p50_ns: came.value_at_quantile(0.5),
                p99_ns: came.value_at_quantile(0.99),
            })
        };
        let local = stats::connections().into_iter().map(|connection| {
            let latency = latency_of(&Source::Local(connection.id));
            Connection {
                latency,
                ..local(connection)
            }
        });
        let network = self.seen.iter().filter_map(|(source, times)| match source {
            Source::Local(_) => None,
            Source::Network(peer) => Some(Connection {
                path: Path::Grpc.name().to_owned(),
                role: Role::Server.into(),
                peer: peer.clone(),
                calls: times.len(),
                latency: latency_of(source),
                ..Connection::default()
            }),
        });
        local.chain(network).collect()
    }
}

fn local(stats: ConnectionStats) -> Connection {
    let role = match stats.role {
        ConnectionRole::Client => Role::Client,
        ConnectionRole::Server => Role::Server,
    };
    Connection {
        id: stats.id,
        path: Path::from(stats.kind).name().to_owned(),
        role: role.into(),
        name: stats.name,
        peer: stats.peer.map(who).unwrap_or_default(),
        engine: stats
            .engine
            .map(|engine| engine.to_string())
            .unwrap_or_default(),
        calls: stats.calls,
        calls_in_flight: stats.calls_in_flight as u64,
        messages_sent: stats.messages_sent,
        bytes_sent: stats.bytes_sent,
        messages_received: stats.messages_received,
        bytes_received: stats.bytes_received,
        doorbells: stats.doorbells,
        sleeps: stats.sleeps,
        looks_paid: stats.looks_paid,
        looks_unpaid: stats.looks_unpaid,
        waits_for_room: stats.waits_for_room,
        waits_for_credit: stats.waits_for_credit,
        waits_for_memory: stats.waits_for_memory,
        ring_used_bytes: stats.ring.used_bytes,
        ring_capacity_bytes: stats.ring.capacity_bytes,
        arena_used_bytes: stats.arena.used_bytes,
        arena_capacity_bytes: stats.arena.capacity_bytes,
        latency: None,
    }
}

fn who(peer: PeerCredentials) -> String {
    match peer.pid {
        Some(pid) => format!("pid {pid}, uid {}", peer.uid),
        None => format!("uid {}", peer.uid),
    }
}

fn channels() -> Vec<Channel> {
    let channels = stats::channels().into_iter();
    let told = channels.map(|channel| Channel {
        name: channel.name,
        path: channel
            .path
            .map(|path| path.to_string())
            .unwrap_or_default(),
        moves: channel.moves,
    });
    told.collect()
}

fn methods() -> Vec<Method> {
    let methods = stats::methods().into_iter();
    let told = methods.map(|method| Method {
        path: method.path,
        policy: method.policy.to_string(),
        runs_inline: method.runs_inline,
        mean_poll_ns: method
            .mean_poll
            .map_or(0, |mean| u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX)),
    });
    told.collect()
}
