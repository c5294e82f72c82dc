//! What this process's connections and channels have done so far.
//!
//! Counted where it costs nothing, and always: whoever asks takes each connection's lock for a moment.
//! What `ringway top` shows of a running server comes from here, see
//! [`Server::introspection`](crate::Server::introspection).
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

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_local::HandlerPolicy;
pub use ringway_local::{ConnectionRole, ConnectionStats, Fill, LinkKind, ended};

use crate::channel::Shared;
use crate::path::Path;
use crate::services::Services;

/// The open local connections of this process, as client and as server. Those over the network are
/// tonic's, and not among them.
#[must_use]
pub fn connections() -> Vec<ConnectionStats> {
    let connections = ringway_local::connections();
    let open = connections.iter().filter(|connection| connection.is_open());
    open.map(|connection| connection.stats()).collect()
}

/// The same with those that have ended and are still held by somebody; [`ended`] has the sums of what is left.
#[must_use]
pub fn all_connections() -> Vec<ConnectionStats> {
    let connections = ringway_local::connections();
    let stats = connections.iter().map(|connection| connection.stats());
    stats.collect()
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

/// The methods of this process's servers that local clients have named, by path: where their handlers run, and why.
#[must_use]
pub fn methods() -> Vec<MethodStats> {
    let mut servers = SERVERS.lock();
    servers.retain(|server| server.strong_count() > 0);
    let there: Vec<_> = servers.iter().filter_map(Weak::upgrade).collect();
    // The last hold on one may be dropped below.
    drop(servers);
    let paces = there.iter().flat_map(|server| server.paces());
    let mut methods: Vec<_> = paces
        .map(|(path, pace)| MethodStats {
            path,
            policy: pace.policy(),
            runs_inline: pace.is_inline(),
            mean_poll: pace.mean_poll(),
        })
        .collect();
    methods.sort_by(|one, other| one.path.cmp(&other.path));
    methods
}

/// How often channels went from one path to another, by the server that they call: since the process began,
/// and whatever became of the channels.
#[must_use]
pub fn moves() -> Vec<(String, u64)> {
    let there = channels();
    let mut moves = MOVES.lock().clone();
    for channel in there {
        moves.entry(channel.name).or_default();
    }
    moves.into_iter().collect()
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

/// A method of a server at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodStats {
    /// `/package.Service/Method`.
    pub path: String,
    /// Where its handlers are to run.
    pub policy: HandlerPolicy,
    /// They are polled where their request was read; otherwise they run as tasks.
    pub runs_inline: bool,
    /// How long a poll of one took lately, on average, as far as it is learnt. Longer ones count as 100 µs.
    pub mean_poll: Option<Duration>,
}

/// Servers told apart in it; moves to further ones are counted without a name.
const MAX_SERVERS: usize = 1024;
static MOVES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn note_move(server: &str) {
    let mut moves = MOVES.lock();
    let told_apart = moves.len() < MAX_SERVERS || moves.contains_key(server);
    let server = if told_apart { server } else { "" };
    *moves.entry(server.to_owned()).or_default() += 1;
}

static SERVERS: Mutex<Vec<Weak<Services>>> = Mutex::new(Vec::new());

/// Has [`methods`] tell of a server's, for as long as there is one.
pub(crate) fn add_server(services: &Arc<Services>) {
    let mut servers = SERVERS.lock();
    if servers.len() == servers.capacity() {
        servers.retain(|server| server.strong_count() > 0);
    }
    servers.push(Arc::downgrade(services));
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
    /// Calls to `server` take `path` from now on.
    pub(crate) fn takes(&self, path: Path, server: &str) {
        let number = (1..).zip(PATHS).find(|(_, known)| *known == path);
        let number = number.map_or(0, |(number, _)| number);
        if self.last.load(Ordering::Relaxed) == number {
            return;
        }
        if self.last.swap(number, Ordering::Relaxed) != 0 {
            self.moves.fetch_add(1, Ordering::Relaxed);
            note_move(server);
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
            course.takes(path, "moving:1");
            course.takes(path, "moving:1");
            assert_eq!(course.path(), Some(path));
        }
        assert_eq!(course.moves(), 4);
        assert!(moves().contains(&("moving:1".to_owned(), 4)));
    }
}
