//! All connections of this process, for whoever asks what they do. A connection costs it nothing but its
//! place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Connection, ConnectionStats};

static CONNECTIONS: Mutex<Vec<Weak<Connection>>> = Mutex::new(Vec::new());

/// What connections did that have ended.
static ENDED: Mutex<Vec<ConnectionStats>> = Mutex::new(Vec::new());
/// Servers told apart in it; what was done with further ones is told without a name.
const MAX_SUMS: usize = 1024;

/// What the connections of this process did that have ended and are gone: one sum for each link, role and
/// server's name. All but the counts says nothing.
#[must_use]
pub fn ended() -> Vec<ConnectionStats> {
    ENDED.lock().clone()
}

/// A connection is being dropped.
pub(super) fn note_ended(connection: &Connection) {
    let mut stats = connection.stats();
    let mut ended = ENDED.lock();
    if ended.len() >= MAX_SUMS && !ended.iter().any(|sum| sum.is_like(&stats)) {
        stats.name.clear();
    }
    match ended.iter_mut().find(|sum| sum.is_like(&stats)) {
        Some(sum) => sum.add_counts(&stats),
        None => ended.push(stats.counts_alone()),
    }
}

pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Adds a connection; those that have gone make way for it once there are as many as others.
pub(super) fn add(connection: &Arc<Connection>) {
    let mut connections = CONNECTIONS.lock();
    if connections.len() == connections.capacity() {
        connections.retain(|connection| connection.strong_count() > 0);
    }
    connections.push(Arc::downgrade(connection));
}

/// The local connections of this process, in the order in which they began.
#[must_use]
pub fn connections() -> Vec<Arc<Connection>> {
    let mut connections = CONNECTIONS.lock();
    connections.retain(|connection| connection.strong_count() > 0);
    connections.iter().filter_map(Weak::upgrade).collect()
}
