//! How many clients a server holds at once, in all and of each user.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::LocalConfig;

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
    pub(crate) fn new(config: &LocalConfig) -> Self {
        Self {
            in_all: config.max_connections,
            per_uid: config.max_connections_per_uid,
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
    use super::*;

    #[test]
    fn one_user_takes_no_others_place() {
        let places = Arc::new(Places::new(&LocalConfig {
            max_connections: 3,
            max_connections_per_uid: 2,
            ..LocalConfig::default()
        }));
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
