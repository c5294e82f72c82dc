//! All connections of this process, for whoever asks what they do. A connection costs it nothing but its
//! place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Connection;

static CONNECTIONS: Mutex<Vec<Weak<Connection>>> = Mutex::new(Vec::new());

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

/// The open local connections of this process, in the order in which they began.
#[must_use]
pub fn connections() -> Vec<Arc<Connection>> {
    let mut connections = CONNECTIONS.lock();
    connections.retain(|connection| connection.strong_count() > 0);
    let there: Vec<_> = connections.iter().filter_map(Weak::upgrade).collect();
    drop(connections);
    // Dropped without the lock: it may be the last hold on one.
    there
        .into_iter()
        .filter(|connection| connection.is_open())
        .collect()
}
