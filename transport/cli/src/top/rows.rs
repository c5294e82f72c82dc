//! What came between two snapshots of a server, as rates.

use std::collections::BTreeMap;
use std::time::Duration;

use ringway::introspection::v1::{Connection, Method, Role, Snapshot};
use serde::Serialize;

/// Turns the snapshots of one server into intervals.
#[derive(Debug)]
pub(crate) struct Rates {
    server: String,
    last: Option<BTreeMap<Key, Connection>>,
}

/// What tells a connection from the others of its process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    id: u64,
    path: String,
    peer: String,
}

impl Key {
    fn of(connection: &Connection) -> Self {
        Self {
            id: connection.id,
            path: connection.path.clone(),
            peer: connection.peer.clone(),
        }
    }
}

/// One look at a server. Serialized, it is the contract of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Interval {
    /// As it was asked for.
    pub(crate) server: String,
    pub(crate) pid: u32,
    pub(crate) seconds: f64,
    /// The connections on which the process is called, summed up by path.
    pub(crate) paths: Vec<PathRow>,
    pub(crate) connections: Vec<Row>,
    pub(crate) channels: Vec<ChannelRow>,
    pub(crate) methods: Vec<MethodRow>,
}

/// All connections of a path on which the process is called.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PathRow {
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) calls_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

/// One connection. Rates are those of the interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) engine: String,
    /// `server` where the process is called, `client` where it calls.
    pub(crate) role: &'static str,
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) calls: u64,
    pub(crate) calls_per_s: f64,
    pub(crate) in_flight: u64,
    /// From the start of the handler to its end; none where no call ended.
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) messages_per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) doorbells_per_s: f64,
    pub(crate) sleeps_per_s: f64,
    /// Of the looks before sleep, how many found something; none where nobody looked.
    pub(crate) looks_paid: Option<f64>,
    pub(crate) waits_per_s: f64,
    /// From 0 to 1; none where there is no ring, or no arena yet.
    pub(crate) ring_fill: Option<f64>,
    pub(crate) arena_fill: Option<f64>,
}

/// A channel of the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ChannelRow {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) moves: u64,
}

/// A method that the process serves on local paths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MethodRow {
    pub(crate) path: String,
    /// `adaptive`, `inline` or `spawn`.
    pub(crate) policy: String,
    /// `inline` or `task`: where its handlers run now.
    pub(crate) runs: &'static str,
    /// How long a poll of one takes on average, at most 100 µs; none where that is not learnt.
    pub(crate) mean_poll_ns: Option<u64>,
}

impl From<Method> for MethodRow {
    fn from(method: Method) -> Self {
        Self {
            path: method.path,
            policy: method.policy,
            runs: if method.runs_inline { "inline" } else { "task" },
            mean_poll_ns: (method.mean_poll_ns > 0).then_some(method.mean_poll_ns),
        }
    }
}

impl Rates {
    pub(crate) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            last: None,
        }
    }

    /// What came since the last snapshot; `None` for the first one.
    pub(crate) fn since_last(&mut self, snapshot: Snapshot) -> Option<Interval> {
        let connections = snapshot.connections.into_iter();
        let now: BTreeMap<_, _> = connections.map(|one| (Key::of(&one), one)).collect();
        let elapsed = Duration::from_micros(snapshot.elapsed_us.max(1));
        let last = self.last.replace(now);
        let (now, last) = (self.last.as_ref()?, last?);
        let fresh = Connection::default();
        let rows: Vec<_> = now
            .iter()
            .map(|(key, now)| Row::between(last.get(key).unwrap_or(&fresh), now, elapsed))
            .collect();
        let channels = snapshot.channels.into_iter().map(|channel| ChannelRow {
            name: channel.name,
            path: channel.path,
            moves: channel.moves,
        });
        Some(Interval {
            server: self.server.clone(),
            pid: snapshot.pid,
            seconds: elapsed.as_secs_f64(),
            paths: by_path(&rows),
            connections: rows,
            channels: channels.collect(),
            methods: snapshot.methods.into_iter().map(MethodRow::from).collect(),
        })
    }
}

impl Row {
    fn between(last: &Connection, now: &Connection, elapsed: Duration) -> Self {
        let per_s = |count: fn(&Connection) -> u64| {
            to_f64(count(now).saturating_sub(count(last))) / elapsed.as_secs_f64()
        };
        let came = |count: fn(&Connection) -> u64| count(now).saturating_sub(count(last));
        let (paid, unpaid) = (came(|one| one.looks_paid), came(|one| one.looks_unpaid));
        Self {
            path: now.path.clone(),
            engine: now.engine.clone(),
            role: match now.role() {
                Role::Client => "client",
                Role::Server | Role::Unspecified => "server",
            },
            name: now.name.clone(),
            peer: now.peer.clone(),
            calls: now.calls,
            calls_per_s: per_s(|one| one.calls),
            in_flight: now.calls_in_flight,
            p50_ns: now.latency.as_ref().map(|latency| latency.p50_ns),
            p99_ns: now.latency.as_ref().map(|latency| latency.p99_ns),
            messages_per_s: per_s(|one| one.messages_sent + one.messages_received),
            bytes_per_s: per_s(|one| one.bytes_sent + one.bytes_received),
            doorbells_per_s: per_s(|one| one.doorbells),
            sleeps_per_s: per_s(|one| one.sleeps),
            looks_paid: share(paid, paid + unpaid),
            waits_per_s: per_s(|one| {
                one.waits_for_room + one.waits_for_credit + one.waits_for_memory
            }),
            ring_fill: share(now.ring_used_bytes, now.ring_capacity_bytes),
            arena_fill: share(now.arena_used_bytes, now.arena_capacity_bytes),
        }
    }
}

fn by_path(rows: &[Row]) -> Vec<PathRow> {
    let mut paths: Vec<PathRow> = Vec::new();
    for row in rows.iter().filter(|row| row.role == "server") {
        let at = paths.iter().position(|path| path.path == row.path);
        let at = at.unwrap_or_else(|| {
            paths.push(PathRow {
                path: row.path.clone(),
                connections: 0,
                calls_per_s: 0.0,
                bytes_per_s: 0.0,
            });
            paths.len() - 1
        });
        let path = &mut paths[at];
        path.connections += 1;
        path.calls_per_s += row.calls_per_s;
        path.bytes_per_s += row.bytes_per_s;
    }
    paths
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| to_f64(part) / to_f64(whole))
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests {
    use ringway::introspection::v1::{Channel, Latency};

    use super::*;

    /// Two snapshots, a second apart.
    pub(crate) fn interval(server: &str, calls: u64) -> Interval {
        let connection = |calls| Connection {
            id: 7,
            path: "shm".to_owned(),
            role: Role::Server.into(),
            name: "catalog:1".to_owned(),
            peer: "pid 12, uid 0".to_owned(),
            calls,
            doorbells: calls / 10,
            looks_paid: calls,
            ring_used_bytes: 8192,
            ring_capacity_bytes: 32768,
            latency: Some(Latency {
                calls,
                p50_ns: 1_500,
                p99_ns: 25_000,
            }),
            ..Connection::default()
        };
        let snapshot = |calls| Snapshot {
            pid: 42,
            elapsed_us: 2_000_000,
            connections: vec![connection(calls)],
            channels: vec![Channel {
                name: "media:1".to_owned(),
                path: "grpc".to_owned(),
                moves: 3,
            }],
            methods: vec![
                Method {
                    path: "/catalog.v1.Catalog/Get".to_owned(),
                    policy: "adaptive".to_owned(),
                    runs_inline: true,
                    mean_poll_ns: 2_500,
                },
                Method {
                    path: "/catalog.v1.Catalog/Search".to_owned(),
                    policy: "spawn".to_owned(),
                    ..Method::default()
                },
            ],
        };
        let mut rates = Rates::new(server);
        assert!(rates.since_last(snapshot(100)).is_none());
        rates.since_last(snapshot(100 + calls)).unwrap()
    }

    #[test]
    fn rates_are_of_the_interval_alone() {
        let interval = interval("catalog:1", 1000);
        let row = &interval.connections[0];
        assert_eq!((row.calls, row.calls_per_s), (1100, 500.0));
        assert_eq!(row.doorbells_per_s, 50.0);
        assert_eq!((row.ring_fill, row.arena_fill), (Some(0.25), None));
        assert_eq!(row.looks_paid, Some(1.0));
        assert_eq!((row.p50_ns, row.p99_ns), (Some(1_500), Some(25_000)));
        assert_eq!(interval.paths[0].calls_per_s, 500.0);
        assert_eq!(interval.channels[0].moves, 3);
        let [get, search] = &interval.methods[..] else {
            panic!("{:?}", interval.methods)
        };
        assert_eq!((get.runs, get.mean_poll_ns), ("inline", Some(2_500)));
        assert_eq!((search.runs, search.mean_poll_ns), ("task", None));
    }

    #[test]
    fn a_new_connection_is_counted_from_its_beginning() {
        let mut rates = Rates::new("catalog:1");
        assert!(rates.since_last(Snapshot::default()).is_none());
        let client = Connection {
            calls: 5,
            role: Role::Client.into(),
            ..Connection::default()
        };
        let snapshot = Snapshot {
            elapsed_us: 1_000_000,
            connections: vec![client],
            ..Snapshot::default()
        };
        let interval = rates.since_last(snapshot).unwrap();
        assert_eq!(interval.connections[0].calls_per_s, 5.0);
        assert_eq!(interval.connections[0].role, "client");
        // Nobody is served on it.
        assert!(interval.paths.is_empty());
    }
}
