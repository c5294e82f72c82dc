//! What a driver's task works on: the connections at hand, and what it has learnt of their waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::meter::LoadMeter;
use crate::connection::Connection;
use crate::pressing::Shares;
use crate::spin::{PeerPosture, SpinRecord, WaitPolicy};
use crate::waiting::may_spin;

/// The connections that wait for the driver; `None` while it has no task.
pub(super) type Ready = Mutex<Option<Vec<Arc<Connection>>>>;

/// The time between two looks for connections of clients that nobody needs any more.
const FORSAKEN_EVERY: Duration = Duration::from_millis(50);

/// What the driver's task keeps from one poll to the next.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) generation: u32,
    runtime: RuntimeMetrics,
    /// The connections that the last round has put off.
    pub(super) ready: Vec<Arc<Connection>>,
    /// An empty list, kept for its room.
    pub(super) spare: Vec<Arc<Connection>>,
    /// Those of the round under way whose turn comes last; empty between rounds.
    pub(super) pressing: Vec<Arc<Connection>>,
    pub(super) shares: Shares,
    pub(super) busy: Vec<Arc<Connection>>,
    pub(super) record: SpinRecord,
    /// A look has just found something.
    pub(super) looked: bool,
    pub(super) load: LoadMeter,
    /// When the turn last looked for connections that nobody needs.
    forsaken_at: Instant,
}

impl Turn {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            runtime: Handle::current().metrics(),
            ready: Vec::new(),
            spare: Vec::new(),
            pressing: Vec::new(),
            shares: Shares::default(),
            busy: Vec::new(),
            record: SpinRecord::default(),
            looked: false,
            load: LoadMeter::new(),
            forsaken_at: Instant::now(),
        }
    }

    /// Returns true if `connection` is one of the busy ones.
    pub(super) fn holds(&self, connection: &Arc<Connection>) -> bool {
        self.busy.iter().any(|busy| Arc::ptr_eq(busy, connection))
    }

    /// Whether to look on when the tasks that were just woken have run.
    pub(super) fn may_come_back(&self) -> bool {
        !self.busy.is_empty() && may_spin() && self.record.is_hot(self.policy())
    }

    /// What the peers do, from which something may come: the one that is nearest counts. `None` where one waits for
    /// this very CPU.
    pub(super) fn posture(&self) -> Option<PeerPosture> {
        let mut nearest = PeerPosture::Asleep;
        for busy in &self.busy {
            if busy.peer_waits_for_this_cpu() {
                return None;
            }
            nearest = nearest.nearer(busy.peer_posture());
        }
        Some(nearest)
    }

    /// The policy of the connection that spins longest.
    pub(super) fn policy(&self) -> WaitPolicy {
        let policies = self.busy.iter().map(|busy| busy.wait_policy());
        policies.fold(WaitPolicy::Park, WaitPolicy::longer)
    }

    /// Lets tasks run before the next look; false if something has come meanwhile.
    pub(super) fn step_out(&self) -> bool {
        self.busy.iter().all(|connection| connection.step_out())
    }

    /// Whether tasks wait for any worker of the runtime.
    pub(super) fn tasks_wait(&self) -> bool {
        self.runtime.global_queue_depth() > 0
    }

    /// Does [`Self::close_forsaken`] now and then.
    pub(super) fn see_to_forsaken(&mut self, ready: &Ready, now: Instant) {
        if now.saturating_duration_since(self.forsaken_at) >= FORSAKEN_EVERY {
            self.forsaken_at = now;
            self.close_forsaken(ready);
        }
    }

    /// Closes the driver's connections of clients that no channel and no call holds any more. Dropped from one list, they come
    /// to stand on another one before the first lets go of them, if their servers send without end.
    #[cold]
    fn close_forsaken(&self, ready: &Ready) {
        // Locked, so that none is put on the list meanwhile.
        let listed = ready.lock();
        let all = self.busy.iter().chain(&self.ready);
        let all = all.chain(listed.iter().flatten());
        let mut held: Vec<_> = all.filter(|connection| connection.is_client()).collect();
        held.sort_unstable_by_key(|connection| Arc::as_ptr(connection));
        let alike = held.chunk_by(|one, other| Arc::ptr_eq(one, other));
        let forsaken: Vec<_> = alike
            .filter(|same| Arc::strong_count(same[0]) == same.len())
            .map(|same| Arc::clone(same[0]))
            .collect();
        drop(listed);
        forsaken.iter().for_each(|connection| connection.close());
    }

    /// Leaves every busy connection to the task that drives now.
    pub(super) fn hand_over(&mut self) {
        for connection in self.busy.drain(..).chain(self.ready.drain(..)) {
            connection.list_anew();
        }
    }

    /// Arms every busy connection's doorbell. One that has records after that marks itself ready.
    pub(super) fn sleep(&mut self) {
        for connection in self.busy.drain(..) {
            connection.cease_to_look_as_driver();
        }
    }
}
