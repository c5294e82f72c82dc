//! The local instances of a server that a channel is connected to, and which one takes a call.
//!
//! Of two instances whose turn it is, the one with fewer calls in flight takes the call. A caller
//! that makes one call at a time stays where it is for some calls, though: then its answers come
//! from a ring that both sides look at, and not each time from another one whose server sleeps. A
//! server with a single instance costs nothing of all this: its channel keeps to it until it hears
//! of a second one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use ringway_local::{Closed, Connection};
use ringway_net::{OutlierOptions, Record};
use tonic::{Code, Status};

/// Calls that a lone caller makes with one instance before it asks whose turn it is.
const CALLS_A_TURN: u32 = 64;
/// Instances that a channel connects to, at most.
pub(crate) const MAX_INSTANCES: usize = 64;

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    /// What tells it from the others, and from the one that takes its place.
    name: String,
    pub(crate) connection: Arc<Connection>,
    record: Record,
}

/// A caller's stay with an instance.
#[derive(Debug, Clone)]
pub(crate) struct Stay {
    instance: Arc<Instance>,
    /// As of which list of instances.
    edition: u32,
    /// There was no other.
    alone: bool,
    /// There were several connections to it.
    pooled: bool,
    calls_left: u32,
}

impl Stay {
    #[inline]
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Whether a clone of the caller goes the same way. Of several connections it has one chosen for it: clones are
    /// there to be used at once.
    #[inline]
    pub(crate) fn holds_for_clones(&self) -> bool {
        !self.pooled
    }

    /// Whether its instance is the right one for one more call, which is counted.
    #[inline]
    pub(crate) fn goes_on(&mut self, instances: &Instances) -> bool {
        let connection = &self.instance.connection;
        if !connection.is_open() || self.edition != instances.edition.load(Ordering::Relaxed) {
            return false;
        }
        if self.alone {
            return true;
        }
        let left = self.calls_left;
        self.calls_left = left.saturating_sub(1);
        left > 0 && connection.calls_in_flight() == 0
    }
}

/// An attempt to connect to an instance, until this is dropped.
pub(crate) struct Pending<'a> {
    instances: &'a Instances,
    name: String,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut pending = self.instances.pending.lock();
        if let Some(at) = pending.iter().position(|name| *name == self.name) {
            pending.swap_remove(at);
        }
    }
}

/// All connections to the only instance of a server.
pub(crate) struct Pooled {
    pub(crate) name: String,
    pub(crate) connections: Vec<Arc<Connection>>,
}

fn are_of_one(list: &[Arc<Instance>]) -> bool {
    list.windows(2).all(|pair| pair[0].name == pair[1].name)
}

/// All instances that a channel is connected to.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    list: Mutex<Vec<Arc<Instance>>>,
    /// Names of those that are being connected to.
    pending: Mutex<Vec<String>>,
    /// The end of the last instance that the channel has let go of.
    why_lost: Mutex<Option<Closed>>,
    /// Changes with the list.
    edition: AtomicU32,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Instances {
    /// Where the next call goes, if any instance takes it.
    pub(crate) fn choose(&self) -> Option<Stay> {
        let edition = self.edition.load(Ordering::Relaxed);
        let list = self.list.lock();
        let alone = are_of_one(&list);
        let pooled = alone && list.len() > 1;
        let stay = |instance: &Arc<Instance>| Stay {
            instance: Arc::clone(instance),
            edition,
            alone,
            pooled,
            calls_left: CALLS_A_TURN,
        };
        if let [only] = &list[..] {
            return only.connection.takes_calls().then(|| stay(only));
        }
        if pooled {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let mut places = (0..list.len()).map(|step| turn.wrapping_add(step) % list.len());
            let ready = places.find(|place| list[*place].connection.takes_calls())?;
            return Some(stay(&list[ready]));
        }
        let mut ready: Vec<_> = list
            .iter()
            .filter(|instance| instance.connection.takes_calls())
            .cloned()
            .collect();
        drop(list);
        if ready.len() > 1 {
            let now = Instant::now();
            let (aside, well): (Vec<_>, Vec<_>) = ready
                .into_iter()
                .partition(|instance| instance.record.is_aside(now));
            // Better ones that fail than none.
            ready = if well.is_empty() { aside } else { well };
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let one = ready.get(turn.checked_rem(ready.len())?)?;
        let other = &ready[turn.wrapping_add(1) % ready.len()];
        let in_flight = |instance: &Arc<Instance>| instance.connection.calls_in_flight();
        let instance = if in_flight(other) < in_flight(one) {
            other
        } else {
            one
        };
        Some(stay(instance))
    }

    /// Takes note of a call's end.
    pub(crate) fn note(
        &self,
        instance: &Instance,
        failed: Option<&Status>,
        outliers: Option<&OutlierOptions>,
    ) {
        let Some(outliers) = outliers else { return };
        match failed {
            Some(status) if status.code() == Code::Unavailable => {
                if instance.record.note_failed(outliers, Instant::now()) {
                    // Who stays with it has to ask again.
                    self.edition.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => instance.record.note_served(),
        }
    }

    /// One that is connected.
    pub(crate) fn any(&self) -> Option<Arc<Connection>> {
        let list = self.list.lock();
        let open = list.iter().find(|instance| instance.connection.is_open());
        open.map(|instance| Arc::clone(&instance.connection))
    }

    /// Calls that those in the list have had so far.
    pub(crate) fn calls(&self) -> u64 {
        let list = self.list.lock();
        list.iter()
            .map(|instance| instance.connection.calls())
            .sum()
    }

    /// Notes that `name` is being connected to.
    pub(crate) fn begin(&self, name: &str) -> Pending<'_> {
        let name = name.to_owned();
        self.pending.lock().push(name.clone());
        Pending {
            instances: self,
            name,
        }
    }

    /// Whether `name` is connected or about to be, or there is no place for it.
    pub(crate) fn needs_no(&self, name: &str) -> bool {
        if self.pending.lock().iter().any(|pending| pending == name) {
            return true;
        }
        let list = self.list.lock();
        list.len() >= MAX_INSTANCES || list.iter().any(|instance| instance.name == name)
    }

    /// Adds an instance, unless another task was quicker.
    pub(crate) fn add(&self, name: String, connection: Arc<Connection>) {
        let mut list = self.list.lock();
        if list
            .iter()
            .any(|known| known.name == name && known.connection.takes_calls())
        {
            drop(list);
            connection.close();
            return;
        }
        let instance = Instance {
            name,
            connection,
            record: Record::default(),
        };
        list.push(Arc::new(instance));
        drop(list);
        self.edition.fetch_add(1, Ordering::Relaxed);
    }

    /// The connections to the instance, where it is the only one.
    pub(crate) fn pool(&self) -> Option<Pooled> {
        let list = self.list.lock();
        let name = list.first().filter(|_| are_of_one(&list))?.name.clone();
        let connections = list
            .iter()
            .map(|instance| Arc::clone(&instance.connection))
            .collect();
        Some(Pooled { name, connections })
    }

    /// Lets go of further connections: several instances are several connections.
    pub(crate) fn keep_one_each(&self) {
        let mut names = HashSet::new();
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|instance| names.insert(instance.name.clone()));
        if list.len() != before {
            self.edition.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds a further connection to the only instance, or closes it if that is the only one no more.
    pub(crate) fn add_further(&self, name: String, connection: Arc<Connection>) {
        let mut list = self.list.lock();
        if list.is_empty() || list.iter().any(|known| known.name != name) {
            drop(list);
            connection.close();
            return;
        }
        list.push(Arc::new(Instance {
            name,
            connection,
            record: Record::default(),
        }));
        drop(list);
        self.edition.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, connection: &Arc<Connection>) {
        self.retain(|instance| !Arc::ptr_eq(&instance.connection, connection));
    }

    /// Returns the end of an instance's connection: of a listed one, or of the last one that the channel has let go of;
    /// `None` if no connection has ended.
    pub(crate) fn why_lost(&self) -> Option<Closed> {
        let list = self.list.lock();
        let ended = list.iter().find_map(|known| known.connection.why_closed());
        ended.or_else(|| self.why_lost.lock().clone())
    }

    /// Lets go of those that have ended or are going away; their calls go on.
    pub(crate) fn clear_out(&self) {
        self.retain(|instance| instance.connection.takes_calls());
    }

    fn retain(&self, keep: impl Fn(&Instance) -> bool) {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|instance| {
            let keeps = keep(instance);
            if let (false, Some(why)) = (keeps, instance.connection.why_closed()) {
                *self.why_lost.lock() = Some(why);
            }
            keeps
        });
        if list.len() != before {
            self.edition.fetch_add(1, Ordering::Relaxed);
        }
    }
}
