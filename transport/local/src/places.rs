//! How many clients a server holds at once, in all and of each user: as many as its settings say, but no more
//! than its process has the means for. At the end of its descriptors or mappings a process fails wherever it
//! asks for the next one, far from the peer that used them up.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use ringway_sys::Means;

use crate::config::LocalConfig;

/// Descriptors of a connection, at most: its socket, two doorbells and a segment on its way; or its socket
/// and what io_uring takes.
const DESCRIPTORS_OF_ONE: u64 = 4;
/// Mappings of a connection beside the segments of both sides: two rings, and io_uring's two.
const MAPPINGS_OF_ONE: u64 = 4;
/// The part of the means that is left to all else: files, the network, allocators and stacks.
const LEFT_PARTS: u64 = 4;

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    in_all: usize,
    per_uid: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_uid: HashMap<u32, usize>,
}

/// One client's place; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// Places as `config` has them, within `means`. One user may not have them all where others may come.
    pub(crate) fn new(config: &LocalConfig, means: Means) -> Self {
        let fitting = fitting(config, means);
        let in_all = config.max_connections.min(fitting);
        let of_one = match config.peers.allows_others() {
            true => fitting.div_ceil(2),
            false => fitting,
        };
        if in_all < config.max_connections {
            tracing::info!(
                max_connections = config.max_connections,
                in_all,
                ?means,
                "fewer local connections than set: raise RLIMIT_NOFILE or vm.max_map_count for more"
            );
        }
        Self {
            in_all,
            per_uid: config.max_connections_per_uid.min(of_one),
            taken: Mutex::default(),
        }
    }

    /// A place for a client that runs as `uid`, or why there is none.
    pub(crate) fn take(self: &Arc<Self>, uid: u32) -> Result<Place, String> {
        let mut taken = self.taken.lock();
        if taken.in_all >= self.in_all {
            return Err(format!("{} connections are open already", self.in_all));
        }
        let of_user = taken.by_uid.entry(uid).or_default();
        if *of_user >= self.per_uid {
            return Err(format!(
                "uid {uid} has {} connections open already",
                self.per_uid
            ));
        }
        *of_user += 1;
        taken.in_all += 1;
        drop(taken);
        Ok(Place {
            places: Arc::clone(self),
            uid,
        })
    }
}

/// How many connections there are means for.
fn fitting(config: &LocalConfig, means: Means) -> usize {
    let segments = config.memory.segment_limits.max_segments as u64;
    let mappings = MAPPINGS_OF_ONE + 2 * segments;
    let usable = |of: u64| of - of / LEFT_PARTS;
    let fitting = (usable(means.descriptors) / DESCRIPTORS_OF_ONE)
        .min(usable(means.mappings) / mappings)
        .max(1);
    usize::try_from(fitting).unwrap_or(usize::MAX)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.in_all -= 1;
        if let Some(of_user) = taken.by_uid.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::UidPolicy;

    use super::*;

    const PLENTY: Means = Means {
        descriptors: u64::MAX,
        mappings: u64::MAX,
        memory: u64::MAX,
    };

    #[test]
    fn there_are_no_more_places_than_means() {
        let config = LocalConfig::default();
        let places = |descriptors, mappings| {
            let means = Means {
                descriptors,
                mappings,
                ..PLENTY
            };
            let places = Places::new(&config, means);
            (places.in_all, places.per_uid)
        };
        assert_eq!(places(u64::MAX, u64::MAX), (4096, 2048));
        // The usual soft limit, and the kernel's default.
        let usual = places(1024, 65_530);
        assert_eq!(usual, (192, 192));
        assert!(usual.0 as u64 * DESCRIPTORS_OF_ONE < 1024);
        let mapped = places(1 << 20, 65_530);
        let segments = config.memory.segment_limits.max_segments as u64;
        assert!(mapped.0 as u64 * 2 * segments < 65_530, "{mapped:?}");
        assert_eq!(places(3, 3), (1, 1));
    }

    #[test]
    fn one_user_leaves_half_of_the_means_to_others() {
        let config = LocalConfig {
            peers: UidPolicy::Anyone,
            ..LocalConfig::default()
        };
        let means = Means {
            descriptors: 1024,
            ..PLENTY
        };
        let places = Places::new(&config, means);
        assert_eq!((places.in_all, places.per_uid), (192, 96));
    }

    #[test]
    fn one_user_takes_no_others_place() {
        let config = LocalConfig {
            max_connections: 3,
            max_connections_per_uid: 2,
            ..LocalConfig::default()
        };
        let places = Arc::new(Places::new(&config, PLENTY));
        let held = [places.take(1).unwrap(), places.take(1).unwrap()];
        assert!(places.take(1).unwrap_err().contains("uid 1"));
        let other = places.take(2).unwrap();
        assert!(places.take(3).is_err());
        drop(held);
        let _again = [places.take(1).unwrap(), places.take(3).unwrap()];
        drop(other);
        places.take(2).unwrap();
        assert_eq!(places.taken.lock().by_uid.len(), 2);
    }
}
