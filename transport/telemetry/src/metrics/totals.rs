//! Sums over connections, by path, role and server. A connection that ends takes nothing away from them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ringway::Path;
use ringway::stats::{self, ConnectionRole, ConnectionStats};

/// Instruments that are collected together see the same reading.
const FRESH: Duration = Duration::from_millis(50);

/// What connections are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) path: Path,
    pub(super) role: ConnectionRole,
    pub(super) server: String,
}

impl Group {
    fn of(connection: &ConnectionStats) -> Self {
        Self {
            path: connection.kind.into(),
            role: connection.role,
            server: connection.name.clone(),
        }
    }
}

/// Sums over a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) counts: Counts,
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    /// Used, and all there is.
    pub(super) ring: [u64; 2],
    pub(super) arena: [u64; 2],
}

impl Sums {
    /// Adds a connection that is there.
    fn add(&mut self, connection: &ConnectionStats) {
        self.counts.add(connection);
        self.connections += 1;
        self.in_flight += connection.calls_in_flight as u64;
        for (sums, fill) in [
            (&mut self.ring, &connection.ring),
            (&mut self.arena, &connection.arena),
        ] {
            sums[0] += fill.used_bytes;
            sums[1] += fill.capacity_bytes;
        }
    }
}

/// What has been done since the process began, in the order of [`Counts::add`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts(pub(super) [u64; 12]);

impl Counts {
    fn add(&mut self, connection: &ConnectionStats) {
        let counts = [
            connection.calls,
            connection.messages_sent,
            connection.messages_received,
            connection.bytes_sent,
            connection.bytes_received,
            connection.doorbells,
            connection.sleeps,
            connection.looks_paid,
            connection.looks_unpaid,
            connection.waits_for_room,
            connection.waits_for_credit,
            connection.waits_for_memory,
        ];
        for (sum, count) in self.0.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    /// Makes none of them less than it was.
    fn at_least(&mut self, before: &Self) {
        for (sum, before) in self.0.iter_mut().zip(before.0) {
            *sum = before.max(*sum);
        }
    }
}

/// Reads the connections of this process.
#[derive(Debug, Default)]
pub(super) struct Totals {
    now: HashMap<Group, Sums>,
    read_at: Option<Instant>,
}

impl Totals {
    /// The sums as they are now.
    pub(super) fn read(&mut self) -> &HashMap<Group, Sums> {
        let fresh = self.read_at.is_some_and(|at| at.elapsed() < FRESH);
        if !fresh {
            // In this order: what ends meanwhile is in neither, rather than in both.
            let (ended, there) = (stats::ended(), stats::all_connections());
            self.take(&ended, &there);
            self.read_at = Some(Instant::now());
        }
        &self.now
    }

    fn take(&mut self, ended: &[ConnectionStats], there: &[ConnectionStats]) {
        let before = std::mem::take(&mut self.now);
        for connection in ended {
            let sums = self.now.entry(Group::of(connection)).or_default();
            sums.counts.add(connection);
        }
        for connection in there {
            self.now
                .entry(Group::of(connection))
                .or_default()
                .add(connection);
        }
        // A connection on its way from those that are there to those that have ended must not seem a
        // process that began anew.
        for (group, before) in before {
            let sums = self.now.entry(group).or_default();
            sums.counts.at_least(&before.counts);
        }
    }
}
