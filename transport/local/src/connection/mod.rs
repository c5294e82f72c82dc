//! One end of a connection: locks and passes. What frames mean is [`state`]'s business, who looks and who
//! sleeps is [`waking`]'s.
//!
//! Three locks, taken in this order and never held while user code runs:
//! - `pass`: the receiving half. The thread that gets it delivers for everyone; one that doesn't leaves a
//!   note and goes on.
//! - `state`: the protocol core, the sending half and the calls.
//! - `woken`: handlers that want to be polled.

mod counters;
mod ending;
mod handlers;
mod inbound;
mod large;
mod pass;
mod registry;
mod running;
mod slot_pool;
mod slots;
mod stall;
mod state;
#[cfg(test)]
mod tests;
mod waking;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use ringway_ring::SidePosture;
use ringway_ring::failpoint::{self, Step};
use ringway_sys::PeerCredentials;
use ringway_wire::CallId;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub(crate) use self::counters::Tallies;
pub use self::counters::{ConnectionRole, ConnectionStats, Fill};
pub use self::handlers::HandlerFuture;
use self::handlers::Handlers;
pub(crate) use self::inbound::abandoned_status;
pub use self::inbound::{Inbound, Message, Request, ServedMethod, Stamp, Started};
pub(crate) use self::large::Large;
pub(crate) use self::pass::LONGEST_PASS;
use self::pass::Pass;
pub use self::registry::{connections, ended};
use self::running::Backlog;
pub use self::slot_pool::SlotPool;
use self::stall::Stall;
use self::state::State;
pub(crate) use self::state::{Ticket, Waiter};
use crate::budgets::budget_of;
use crate::config::LocalConfig;
use crate::driver::Crew;
use crate::error::Closed;
use crate::habits::Habits;
use crate::link::shm::Blocks;
use crate::link::shm::peer_bell::Held;
use crate::link::stream::Engine;
use crate::link::{LinkKind, Receiver, Sender, Watch};
use crate::pressing::Pressing;
use crate::server::Serve;
use crate::shared_cpu::SharedCpu;
use crate::socket_peer::SocketPeer;
use crate::spin::{PeerPosture, SpinRecord, WaitPolicy};
use crate::{runtime, watchdog};

/// Passes in a row, where other threads leave notes without end: then other connections have their turn.
const MAX_PASSES: u32 = 8;

/// What a pass came to, from nothing to "let the tasks that it woke run".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Nothing was there.
    Idle,
    /// Something was dealt with; looking on may pay.
    Busy,
    /// A task of the runtime was woken: it may be waiting for this very thread.
    GiveWay,
    /// Several were: neither may one of them keep this thread from the others.
    GiveWayToAll,
}

impl Progress {
    /// What both came to.
    pub(crate) fn and(self, other: Self) -> Self {
        match self.min(other) {
            Self::GiveWay => Self::GiveWayToAll,
            _ => self.max(other),
        }
    }

    /// Whether tasks were woken.
    pub(crate) fn gives_way(self) -> bool {
        self >= Self::GiveWay
    }
}

/// Everything a connection is made of, once the handshake is done.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kind: LinkKind,
    pub(crate) core: ringway_wire::Connection,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) watch: Watch,
    pub(crate) large: Option<Large>,
    pub(crate) wakeups: pass::Wakeups,
    pub(crate) service: Option<Arc<dyn Serve>>,
    pub(crate) peer: Option<PeerCredentials>,
    pub(crate) socket_peer: Option<Arc<SocketPeer>>,
    /// The server's name, by which its client found it; empty where there is none.
    pub(crate) name: Box<str>,
    /// The runtime that drives it and runs its user's code, where it is not the one that makes it.
    pub(crate) runtime: Option<Handle>,
}

pub(crate) use self::pass::{Looker, Wakeups};

/// One end of a local connection.
pub struct Connection {
    me: Weak<Self>,
    kind: LinkKind,
    takes_whole_streams: bool,
    crew: Arc<Crew>,
    /// The number of the driver that drives it.
    driven_by: AtomicUsize,
    watch: Watch,
    open: AtomicBool,
    /// The server lets its client hold further ones.
    several: AtomicBool,
    /// It stands on the driver's list.
    listed: AtomicBool,
    /// Somebody could not get `pass`, and wants it run once more.
    again: AtomicBool,
    /// Its doorbell, socket or timer stirred.
    stirred: AtomicBool,
    pressing: Pressing,
    /// How many passes brought anything, counted round and round; written under `pass`.
    delivered: AtomicU32,
    /// How often readers of calls may have been woken, counted round and round; written under `state`.
    readers_woken: AtomicU32,
    /// How often some of a message came ahead of its frame, counted round and round; written under `pass`.
    parts: AtomicU32,
    /// Which threads poll the ring, and what the peer is told of it.
    posture: SidePosture,
    pass: Mutex<Pass>,
    state: Mutex<State>,
    handlers: Handlers,
    backlog: Backlog,
    habits: Habits,
    /// What waiting for an answer has taught its callers.
    spin_record: SpinRecord,
    shared_cpu: SharedCpu,
    /// The connections with which it shares the server's slots for calls.
    slot_pool: OnceLock<Arc<SlotPool>>,
    wait_policy: OnceLock<WaitPolicy>,
    stall_timeout: OnceLock<Option<Duration>>,
    stall: Stall,
    large: Option<Large>,
    service: Option<Arc<dyn Serve>>,
    peer: Option<PeerCredentials>,
    socket_peer: Option<Arc<SocketPeer>>,
    ended: Notify,
    id: u64,
    since: Instant,
    name: Box<str>,
    tallies: Tallies,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("kind", &self.kind)
            .field("open", &self.is_open())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A connection's state, locked. What was sent meanwhile is rung for when the lock is free again:
/// rung under it, the peer may get this very CPU, and everybody else waits for the lock until then. So is a task
/// woken that waited for what was left.
pub(crate) struct Locked<'a> {
    // Dropped in this order.
    state: MutexGuard<'a, State>,
    bell: Bell<'a>,
}

struct Bell<'a> {
    watch: &'a Watch,
    due: bool,
    next_in_line: Option<Waker>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.bell.due = self.state.take_ring();
        self.bell.next_in_line = self.state.take_next_in_line();
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if self.due {
            failpoint::reached(Step::Published);
            self.watch.ring();
        }
        if let Some(next) = self.next_in_line.take() {
            next.wake();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        registry::note_ended(self);
    }
}

impl Connection {
    /// Assembles a connection and hands it to its runtime's driver.
    pub(crate) fn start(parts: Parts) -> Arc<Self> {
        let runtime = parts.runtime.unwrap_or_else(runtime::at_hand);
        let crew = Crew::of(&runtime);
        let home = crew.home().changes();
        let connection = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            kind: parts.kind,
            takes_whole_streams: parts.core.takes_whole_streams(),
            driven_by: AtomicUsize::new(crew.number_for_new()),
            crew,
            watch: parts.watch,
            open: AtomicBool::new(true),
            several: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            again: AtomicBool::new(false),
            stirred: AtomicBool::new(true),
            pressing: Pressing::default(),
            delivered: AtomicU32::new(0),
            readers_woken: AtomicU32::new(0),
            parts: AtomicU32::new(0),
            posture: SidePosture::default(),
            pass: Mutex::new(Pass::new(parts.receiver, parts.wakeups, home, me)),
            state: Mutex::new(State::new(parts.core, parts.sender)),
            handlers: Handlers::new(me),
            backlog: Backlog::default(),
            habits: Habits::default(),
            spin_record: SpinRecord::default(),
            shared_cpu: SharedCpu::default(),
            slot_pool: OnceLock::new(),
            wait_policy: OnceLock::new(),
            stall_timeout: OnceLock::new(),
            stall: Stall::default(),
            large: parts.large,
            service: parts.service,
            peer: parts.peer,
            socket_peer: parts.socket_peer,
            ended: Notify::new(),
            id: registry::next_id(),
            since: Instant::now(),
            name: parts.name,
            tallies: Tallies::default(),
        });
        registry::add(&connection);
        // Its runtime, or the driver there, may just have failed: whoever saw to that did not find it yet.
        if !connection.is_client() && !connection.crew.home().is(runtime.id()) {
            connection.close();
        }
        connection.rely_on_doorbell();
        connection.mark_ready();
        connection
    }

    /// Which link it runs over.
    pub fn kind(&self) -> LinkKind {
        self.kind
    }

    /// What moves the bytes of a socket link; `None` on other links.
    pub fn engine(&self) -> Option<Engine> {
        self.watch.engine()
    }

    /// Whether [`Call::respond`](crate::Call::respond) can answer any call, also one whose client expects a
    /// stream.
    pub fn takes_whole_streams(&self) -> bool {
        self.takes_whole_streams
    }

    /// Who is at the other end; `None` inside one process.
    pub fn peer(&self) -> Option<PeerCredentials> {
        self.peer
    }

    /// The same at a server's end as tokio says it; `None` where no socket leads to the peer.
    pub fn socket_peer(&self) -> Option<&SocketPeer> {
        self.socket_peer.as_deref()
    }

    pub(crate) fn peer_uid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.uid)
    }

    /// Returns true if it has lately used up what a pass may take.
    #[inline]
    pub(crate) fn presses(&self) -> bool {
        self.pressing.presses()
    }

    /// Has it take little in what `drive` does.
    #[cold]
    pub(crate) fn briefly<T>(&self, drive: impl FnOnce() -> T) -> T {
        self.pressing.briefly(drive)
    }

    /// Whether calls can be made on it.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether it takes new calls: open, and the peer has not asked to go elsewhere.
    pub fn takes_calls(&self) -> bool {
        self.is_open() && !self.lock().is_going_away()
    }

    /// Why it has ended; `None` while it is open.
    pub fn why_closed(&self) -> Option<Closed> {
        self.state.lock().why_closed()
    }

    /// Calls that are not over yet.
    pub fn calls_in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Calls that were begun on it so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls()
    }

    /// Returns how often a thread that wanted to drive the connection found another thread driving it. Two threads that
    /// count at once may count as one.
    pub fn contended(&self) -> u64 {
        self.tallies.contended.get()
    }

    /// Returns true if the server lets its client hold further connections.
    pub fn lets_client_hold_several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// Notes that the server lets its client hold further connections.
    pub(crate) fn note_several(&self) {
        self.several.store(true, Ordering::Relaxed);
    }

    /// Slots for calls, as the server announced.
    pub fn call_slots(&self) -> u32 {
        self.lock().call_slots()
    }

    /// The server's name, by which its client found it; empty where there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells it from the other connections of this process, and from former ones.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> ConnectionStats {
        let mut stats = ConnectionStats {
            id: self.id,
            kind: self.kind,
            engine: self.engine(),
            role: match self.is_client() {
                true => ConnectionRole::Client,
                false => ConnectionRole::Server,
            },
            name: self.name().to_owned(),
            peer: self.peer,
            since: self.since,
            driver: self.driver().number(),
            calls: 0,
            calls_in_flight: 0,
            messages_sent: 0,
            bytes_sent: 0,
            messages_received: 0,
            bytes_received: 0,
            doorbells: 0,
            sleeps: 0,
            looks_paid: 0,
            looks_unpaid: 0,
            waits_for_room: 0,
            waits_for_credit: 0,
            waits_for_memory: 0,
            ring: Fill::default(),
            arena: self.blocks().map(Blocks::fill).unwrap_or_default(),
        };
        // To ask how full the arena is takes note of what has gone back.
        self.note_spare_memory();
        self.tallies.fill_in(&mut stats);
        self.state.lock().fill_in(&mut stats);
        stats
    }

    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    pub(crate) fn handlers(&self) -> &Handlers {
        &self.handlers
    }

    pub(crate) fn habits(&self) -> &Habits {
        &self.habits
    }

    /// Returns true if a caller on whose CPU the peer waits polls on nevertheless.
    #[cold]
    pub(crate) fn polls_on_shared_cpu(&self) -> bool {
        self.shared_cpu.polls_on(self.delivered())
    }

    pub(crate) fn spin_record(&self) -> &SpinRecord {
        &self.spin_record
    }

    /// How its callers and its driver wait.
    pub fn wait_policy(&self) -> WaitPolicy {
        self.wait_policy
            .get()
            .copied()
            .unwrap_or_else(WaitPolicy::from_environment)
    }

    /// Sets how its callers and its driver wait, and how long a peer may take nothing. Once.
    pub(crate) fn configure(&self, config: &LocalConfig) {
        // A second configuration would be the same.
        let _ = self.wait_policy.set(config.wait_policy);
        let _ = self.stall_timeout.set(config.stall_timeout);
        if let Some(peer) = self.peer {
            self.lock().set_budget(budget_of(peer.uid, config));
        }
        watchdog::start();
    }

    pub(crate) fn peer_posture(&self) -> PeerPosture {
        self.watch.peer_posture()
    }

    pub(crate) fn blocks(&self) -> Option<&Blocks> {
        self.large.as_ref().map(Large::blocks)
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            state: self.state.lock(),
            bell: Bell {
                watch: &self.watch,
                due: false,
                next_in_line: None,
            },
        }
    }

    pub(crate) fn is_client(&self) -> bool {
        self.service.is_none()
    }

    /// Counts a call that was just opened. Call it with `state` locked.
    pub(crate) fn note_opened(&self) {
        self.posture.note_opened();
    }

    pub(crate) fn opened(&self) -> u32 {
        self.posture.opened()
    }

    /// Changes with each pass that brought anything.
    pub(crate) fn delivered(&self) -> u32 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Changes with each pass that brought some of a message.
    pub(crate) fn parts(&self) -> u32 {
        self.parts.load(Ordering::Relaxed)
    }

    /// Changes before a reader is woken that was told to wait.
    pub(crate) fn readers_woken(&self) -> u32 {
        self.readers_woken.load(Ordering::Acquire)
    }

    fn note_readers_woken(&self, _state: &Locked<'_>) {
        let woken = self.readers_woken.load(Ordering::Relaxed).wrapping_add(1);
        self.readers_woken.store(woken, Ordering::Release);
    }

    /// Gives a call up on behalf of its reader, who is to be woken.
    pub(crate) fn give_up(&self, id: CallId, code: u16, last: Inbound) -> Option<Waker> {
        let mut state = self.lock();
        self.note_readers_woken(&state);
        state.give_up(id, code, last)
    }

    fn note_part(&self) {
        self.parts
            .store(self.parts().wrapping_add(1), Ordering::Relaxed);
    }

    /// Runs a pass, or leaves a note for whoever runs one now.
    pub(crate) fn drive(self: &Arc<Self>) -> Progress {
        self.drive_for(None)
    }

    /// Does the same for a caller that looks by itself.
    pub(crate) fn drive_for(self: &Arc<Self>, mut looker: Option<&mut Looker<'_>>) -> Progress {
        let mut progress = Progress::Idle;
        let mut first = None;
        let mut passes = 0;
        loop {
            let Some(mut pass) = self.pass.try_lock() else {
                self.tallies.contended.add_one();
                self.again.store(true, Ordering::SeqCst);
                // It may have been released since: then the note would stay unread.
                if self.pass.is_locked() {
                    return progress;
                }
                continue;
            };
            if self.again.load(Ordering::SeqCst) {
                self.again.store(false, Ordering::SeqCst);
            }
            let brought = pass.run(self, looker.as_deref_mut(), &mut first);
            if brought.progress > Progress::Idle {
                let delivered = self.delivered.load(Ordering::Relaxed).wrapping_add(1);
                self.delivered.store(delivered, Ordering::Release);
            }
            // The user's code runs without the lock: it may block.
            drop(pass);
            self.drop_user_code(brought.dropped);
            if let Some(why) = brought.failed {
                self.fail(why);
                // Once more, to let go of descriptors and mappings.
                self.again.store(true, Ordering::SeqCst);
            }
            progress = progress.and(brought.progress);
            progress = progress.and(self.run_brought(&mut first));
            if !self.again.load(Ordering::SeqCst) {
                return progress;
            }
            passes += 1;
            if passes == MAX_PASSES {
                // The driver goes on, after other connections.
                self.pressing.note_used_up();
                self.mark_ready();
                return progress;
            }
        }
    }

    /// Frees the thread that this peer's doorbell holds up, and has the connection end; nothing if `held` is about
    /// another one.
    pub(crate) fn free(&self, held: Held) {
        if self.watch.frees(held) {
            self.stir();
        }
    }
}
