//! What this process's connections and channels have done so far.
//!
//! Counted where it costs nothing, and always: whoever asks takes each connection's lock for a moment.
//! What `ringway top` shows of a running server comes from here, see
//! [`ServerBuilder::introspection`](crate::ServerBuilder::introspection).
//!
//! ```
//! for connection in ringway::stats::connections() {
//!     println!(
//!         "{} over {}: {} calls, {} doorbells",
//!         connection.name,
//!         ringway::Path::from(connection.kind),
//!         connection.calls,
//!         connection.doorbells
//!     );
//! }
//! ```

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
pub use ringway_local::{ConnectionRole, ConnectionStats, Fill, LinkKind};

use crate::channel::Shared;
use crate::path::Path;

/// The open local connections of this process, as client and as server. Those over the network are
/// tonic's, and not among them.
#[must_use]
pub fn connections() -> Vec<ConnectionStats> {
    let connections = ringway_local::connections();
    connections
        .iter()
        .map(|connection| connection.stats())
        .collect()
}

/// The channels of this process.
#[must_use]
pub fn channels() -> Vec<ChannelStats> {
    let mut channels = CHANNELS.lock();
    channels.retain(|channel| channel.strong_count() > 0);
    let there: Vec<_> = channels.iter().filter_map(Weak::upgrade).collect();
    // The last hold on one may be dropped below.
    drop(channels);
    let stats = there.iter().map(|channel| ChannelStats {
        name: channel.endpoint.name.clone(),
        path: channel.course.path(),
        moves: channel.course.moves(),
    });
    stats.collect()
}

/// A channel at a moment; its clones are one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The server that it calls.
    pub name: String,
    /// The path that its last call took; `None` before the first.
    pub path: Option<Path>,
    /// How often it went from one path to another.
    pub moves: u64,
}

static CHANNELS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

pub(crate) fn add(channel: &Arc<Shared>) {
    let mut channels = CHANNELS.lock();
    if channels.len() == channels.capacity() {
        channels.retain(|channel| channel.strong_count() > 0);
    }
    channels.push(Arc::downgrade(channel));
}

/// The paths that a channel's calls took.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// A path's place in [`PATHS`], and one; 0 is none yet.
    last: AtomicU8,
    moves: AtomicU64,
}

const PATHS: [Path; 5] = [
    Path::Shm,
    Path::Socket,
    Path::Pipe,
    Path::Inproc,
    Path::Grpc,
];

impl Course {
    /// Calls take `path` from now on.
    pub(crate) fn takes(&self, path: Path) {
        let number = (1..).zip(PATHS).find(|(_, known)| *known == path);
        let number = number.map_or(0, |(number, _)| number);
        if self.last.load(Ordering::Relaxed) == number {
            return;
        }
        if self.last.swap(number, Ordering::Relaxed) != 0 {
            self.moves.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn path(&self) -> Option<Path> {
        let number = usize::from(self.last.load(Ordering::Relaxed));
        PATHS.get(number.checked_sub(1)?).copied()
    }

    fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_a_change_of_paths() {
        let course = Course::default();
        assert_eq!((course.path(), course.moves()), (None, 0));
        for path in PATHS {
            course.takes(path);
            course.takes(path);
            assert_eq!(course.path(), Some(path));
        }
        assert_eq!(course.moves(), 4);
    }
}
