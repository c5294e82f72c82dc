//! A pass: take what has arrived, let the core judge it, and wake the tasks that wait for it. The user's code
//! that it leads to runs after the pass, without its lock: see [`running`](super::running).

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ringway_sys::EventFd;
use ringway_wire::CallId;
use tokio::time::Sleep;

use super::handlers::{Work, wakes_a_task};
use super::inbound::Started;
use super::state::{Deliveries, State};
use super::{Connection, Progress};
use crate::clock;
use crate::error::Closed;
use crate::giving_way::{self, GivingWay};
use crate::link::shm::{Blocks, MAX_NOTES};
use crate::link::{Frame, MAX_FRAMES, Receiver};
use crate::pressing::BRIEF_NOTES;
use crate::waiting;
use crate::watched::Watched;

/// Receives of one pass, at most, where a receive leaves something: then other connections have their turn. A
/// receive takes at most 1 MiB, or one larger block.
const MAX_RECEIVES: usize = 32;
/// The time after which a pass makes no further receive: how long a frame takes is the peer's choice as well.
pub(crate) const LONGEST_PASS: Duration = Duration::from_millis(1);

/// The descriptors that wake a sleeping connection.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    pub(crate) doorbell: Option<Watched<EventFd>>,
    pub(crate) socket: Option<Watched<Arc<OwnedFd>>>,
}

/// A call whose task looks at the ring by itself.
#[derive(Debug)]
pub(crate) struct Looker<'a> {
    pub(crate) call: CallId,
    pub(crate) waker: &'a Waker,
    /// Something has come for other calls of its task, which was not woken for it.
    pub(crate) owes: bool,
}

/// The receiving half, and room to work in.
#[derive(Debug)]
pub(crate) struct Pass {
    receiver: Receiver,
    wakeups: Wakeups,
    timer: Option<Timer>,
    /// The change of the driver's runtime as of which both are registered.
    home: u32,
    stir: Waker,
    giving_way: GivingWay,
    frames: Vec<Frame>,
    deliveries: Deliveries,
    /// Why the connection ends, once what had arrived by then is handled.
    ending: Option<Ending>,
    finished: bool,
    /// It has begun, and has not ended: what it left is in disorder if it never does.
    under_way: bool,
    /// Its receives take little.
    brief: bool,
}

/// The outcome of a pass, for after its lock.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) progress: Progress,
    /// Handlers of calls that have ended.
    pub(crate) dropped: Vec<Work>,
    /// The connection has failed.
    pub(crate) failed: Option<Closed>,
}

/// The end of a connection of which something has arrived that no pass has taken yet.
#[derive(Debug)]
struct Ending {
    why: Closed,
    /// The receives that were made since.
    receives: usize,
}

#[derive(Debug)]
struct Timer {
    at: Instant,
    /// Held, because dropped it would not fire.
    _sleep: Pin<Box<Sleep>>,
}

impl Pass {
    /// `home` is the change of the driver's runtime as of which `wakeups` are registered.
    pub(crate) fn new(
        receiver: Receiver,
        wakeups: Wakeups,
        home: u32,
        connection: &Weak<Connection>,
    ) -> Self {
        Self {
            receiver,
            wakeups,
            timer: None,
            home,
            stir: Waker::from(Arc::new(Stir(Weak::clone(connection)))),
            giving_way: GivingWay::default(),
            frames: Vec::new(),
            deliveries: Deliveries::default(),
            ending: None,
            finished: false,
            under_way: false,
            brief: false,
        }
    }

    /// Takes, judges and delivers what has come; the task of a `looker` is not woken for it. The first call
    /// that has begun is left in `first`, the others in the connection's backlog.
    pub(crate) fn run(
        &mut self,
        connection: &Arc<Connection>,
        looker: Option<&mut Looker<'_>>,
        first: &mut Option<Started>,
    ) -> Brought {
        let (mut progress, mut failed) = (Progress::Idle, None);
        if !self.finished {
            let received = if std::mem::replace(&mut self.under_way, true) {
                Err(Closed::Io(
                    "a pass over the connection has panicked".to_owned(),
                ))
            } else {
                self.receive(connection, looker, first)
            };
            self.under_way = false;
            match received {
                Ok(brought) => progress = brought,
                Err(why) => {
                    progress = Progress::Busy;
                    failed = Some(why);
                }
            }
            if !connection.is_open() {
                self.finish();
            }
            connection
                .backlog
                .take_over(&mut self.deliveries.started, first);
        }
        Brought {
            progress,
            dropped: std::mem::take(&mut self.deliveries.dropped),
            failed,
        }
    }

    /// Gives back the memory of messages that were given up half-way.
    pub(crate) fn trim(&mut self) {
        self.receiver.forget_given_up();
    }

    /// Ends without a pass; returns the calls that one has brought and not handed on.
    pub(crate) fn let_go(&mut self) -> VecDeque<Started> {
        self.finish();
        std::mem::take(&mut self.deliveries.started)
    }

    /// Lets go of descriptors and mappings: nothing arrives any more.
    fn finish(&mut self) {
        self.finished = true;
        self.wakeups = Wakeups::default();
        self.timer = None;
    }

    fn receive(
        &mut self,
        connection: &Arc<Connection>,
        mut looker: Option<&mut Looker<'_>>,
        first: &mut Option<Started>,
    ) -> Result<Progress, Closed> {
        let mut stirred = connection.stirred.load(Ordering::Relaxed)
            && connection.stirred.swap(false, Ordering::SeqCst);
        let brief = connection.pressing.is_brief();
        self.be_brief(brief);
        // Records that the peer published before it closed count, so the pass judges the end last.
        let (mut end, before) = match self.ending.take() {
            Some(Ending { why, receives }) => (Err(why), receives),
            None => (self.look(connection, &mut stirred), 0),
        };
        let (mut progress, mut taken, mut began) = (Progress::Idle, 0, None);
        let mut bytes = 0;
        for receives in 1.. {
            // Also at the connection's end: the first reason counts.
            let received = self
                .receiver
                .receive(&mut self.frames, &mut |header, head| {
                    connection.lock().wants_payload(header, head, connection)
                });
            end = end.and(received);
            let more = self.receiver.has_more();
            taken += self.frames.len();
            bytes += self.payload_bytes();
            let (brought, timer) = self.judge(connection, stirred, looker.as_deref_mut(), first)?;
            progress = progress.max(brought);
            self.set_timer(timer);
            if !more {
                break;
            }
            // No clock is read for a pass of one receive.
            let began = began.get_or_insert_with(Instant::now);
            let may_go_on = receives < MAX_RECEIVES && taken < MAX_FRAMES && !brief;
            if may_go_on && began.elapsed() < LONGEST_PASS {
                continue;
            }
            connection.pressing.note_used_up();
            connection.mark_ready();
            let receives = before + receives;
            match end {
                Err(why) if receives < MAX_RECEIVES => {
                    self.ending = Some(Ending { why, receives });
                    return Ok(progress);
                }
                end => return end.map(|()| progress),
            }
        }
        connection.pressing.note_pass(taken, bytes);
        end.map(|()| progress)
    }

    /// Has the receives that follow take little, or as much as any.
    #[inline]
    fn be_brief(&mut self, brief: bool) {
        if brief != self.brief {
            self.brief = brief;
            self.receiver.be_brief(brief);
        }
    }

    /// The length of what a receive has brought.
    fn payload_bytes(&self) -> usize {
        let frames = self.frames.iter();
        frames.map(|frame| frame.payload.len()).sum()
    }

    /// Looks at what tells of the peer beside its frames; an error is the connection's end.
    fn look(&mut self, connection: &Connection, stirred: &mut bool) -> Result<(), Closed> {
        if !*stirred {
            return Ok(());
        }
        if self.home != connection.crew.home().changes() {
            *stirred = self.move_in(connection)?;
        }
        let rung = *stirred && self.look_at_descriptors(connection)?;
        if *stirred && connection.stall.is_long() {
            return Err(Closed::PeerSilent);
        }
        if *stirred && connection.watch.bell_has_blocked() {
            return Err(Closed::PeerMisbehaved(
                "its doorbell held up the thread that rang it".into(),
            ));
        }
        if rung {
            self.let_peer_go_on(connection);
            connection.watch.note_rung();
        }
        if rung && !waiting::in_pass() {
            // The peer rings once for each sleep, and this ring is spent now. The driver follows,
            // and arms the doorbell anew when it goes back to sleep.
            connection.mark_ready();
        }
        Ok(())
    }

    /// Has the core judge what came, and hands it on; also says when the core wants to be asked again.
    #[inline]
    fn judge(
        &mut self,
        connection: &Arc<Connection>,
        stirred: bool,
        looker: Option<&mut Looker<'_>>,
        first: &mut Option<Started>,
    ) -> Result<(Progress, Option<Instant>), Closed> {
        let read_ahead = self.receiver.take_read_ahead();
        if self.receiver.take_fetched() || read_ahead {
            connection.note_large();
        }
        self.pass_on_refusals(connection)?;
        let mut progress = Progress::Idle;
        if read_ahead {
            progress = Progress::Busy;
            connection.pressing.note_used_up();
            connection.note_part();
        }
        if !self.frames.is_empty() {
            progress = Progress::Busy;
        }
        let fed = connection.blocks().is_some_and(Blocks::should_retry);
        let mut state = connection.lock();
        if stirred || !self.frames.is_empty() {
            connection.note_readers_woken(&state);
        }
        state.note_time(stirred, &self.frames);
        self.deliveries.spare(looker.as_deref());
        state.settle_owed(&mut self.deliveries);
        if state.is_closed() {
            // The end has been told to the calls that there were: one that began now would wait for ever.
            self.frames.clear();
        }
        let judged = self
            .frames
            .iter_mut()
            .try_for_each(|frame| state.handle(frame, connection, &mut self.deliveries, first));
        self.frames.clear();
        // What is due has a timer, which stirs the connection.
        let judged = match stirred {
            true => {
                self.note_timer(&mut state);
                judged.and_then(|()| state.handle_time(&mut self.deliveries))
            }
            false => judged,
        };
        state.note_held();
        let starving = state.retry_blocked(fed, &mut self.deliveries);
        let flushed = state.flush();
        // The timer belongs to the driver: a caller's thread may have no runtime.
        let timer = match waiting::in_pass() {
            true => state.next_timer(),
            false => {
                if state.needs_timer() {
                    connection.mark_ready();
                }
                None
            }
        };
        drop(state);
        if starving && connection.blocks().is_some_and(Blocks::wait) {
            connection.mark_ready();
        }
        if let Some(looker) = looker {
            looker.owes = self.deliveries.owes();
        }
        if first.is_some() {
            progress = progress.max(Progress::Busy);
        }
        progress = progress.max(self.wake());
        judged.and(flushed)?;
        Ok((progress, timer))
    }

    /// Gives way to the peer that has just rung, where that pays.
    fn let_peer_go_on(&mut self, connection: &Connection) {
        if let Some(before) = connection.watch.pending_bytes()
            && before < giving_way::ENOUGH_BYTES
            && waiting::may_yield_cpu()
            && self.giving_way.is_due(Instant::now)
        {
            let took = waiting::yield_cpu();
            let more = connection.watch.pending_bytes() > Some(before);
            self.giving_way.learn(Instant::now(), took, more);
        }
    }

    /// Has the sending half tell the peer what could not be taken, and spare what the peer could not take.
    fn pass_on_refusals(&mut self, connection: &Connection) -> Result<(), Closed> {
        let refusals = self.receiver.take_refusals();
        if let Some(blocks) = connection.blocks()
            && !refusals.is_empty()
        {
            blocks.note_refusals(&refusals)?;
            connection.see_to_notes();
        }
        Ok(())
    }

    /// Registers descriptors and the timer anew, with the runtime to which the driver has moved; false, and left to
    /// the driver, on any other thread.
    #[cold]
    fn move_in(&mut self, connection: &Connection) -> Result<bool, Closed> {
        let home = connection.crew.home();
        let changes = home.changes();
        if !waiting::in_pass() || !home.is_here() {
            connection.stir();
            return Ok(false);
        }
        self.home = changes;
        self.timer = None;
        connection.lock().timer_fired();
        let Wakeups { doorbell, socket } = std::mem::take(&mut self.wakeups);
        let doorbell = doorbell.map(Watched::anew);
        let socket = socket.map(Watched::anew);
        self.wakeups = Wakeups {
            doorbell: doorbell.transpose().map_err(Closed::Io)?,
            socket: socket.transpose().map_err(Closed::Io)?,
        };
        Ok(true)
    }

    /// Looks at doorbell and socket, so that the reactor tells of the next stir; true if the doorbell
    /// had been rung.
    fn look_at_descriptors(&mut self, connection: &Connection) -> Result<bool, Closed> {
        let mut context = Context::from_waker(&self.stir);
        let mut rung = false;
        if let Some(doorbell) = &self.wakeups.doorbell {
            while let Poll::Ready(ready) = doorbell.poll_read_ready(&mut context) {
                rung = true;
                // Edge-triggered: the next ring stirs again, so the counter need not be read.
                ready
                    .map_err(|error| Closed::Io(error.to_string()))?
                    .clear_ready();
            }
        }
        if let Some(socket) = &self.wakeups.socket {
            while let Poll::Ready(ready) = socket.poll_read_ready(&mut context) {
                let mut ready = ready.map_err(|error| Closed::Io(error.to_string()))?;
                let max = if self.brief { BRIEF_NOTES } else { MAX_NOTES };
                if let Receiver::Shm(receiver) = &mut self.receiver
                    && receiver.receive_segments(max)?
                {
                    // Still ready: the next pass goes on, after those of other connections.
                    connection.pressing.note_used_up();
                    self.stir.wake_by_ref();
                    break;
                }
                ready.clear_ready();
            }
            if let Receiver::Stream(receiver) = &self.receiver {
                receiver.stirred();
            }
        }
        Ok(rung)
    }

    /// Wakes the tasks that wait for what arrived.
    fn wake(&mut self) -> Progress {
        let mut progress = Progress::Idle;
        let mut last = ptr::null();
        for waker in self.deliveries.wakers.drain(..) {
            // A task may wait for several calls.
            let is_another = std::mem::replace(&mut last, waker.data()) != waker.data();
            if wakes_a_task(waker) && is_another {
                progress = progress.and(Progress::GiveWay);
            }
        }
        progress
    }

    /// Takes note of a timer that has fired.
    fn note_timer(&mut self, state: &mut State) {
        let now = clock::now();
        if self.timer.as_ref().is_some_and(|timer| timer.at <= now) {
            self.timer = None;
            state.timer_fired();
        }
    }

    fn set_timer(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        let mut sleep = Box::pin(tokio::time::sleep_until(at.into()));
        let fired = sleep.as_mut().poll(&mut Context::from_waker(&self.stir));
        self.timer = Some(Timer { at, _sleep: sleep });
        if fired.is_ready() {
            self.stir.wake_by_ref();
        }
    }
}

struct Stir(Weak<Connection>);

impl Wake for Stir {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(connection) = self.0.upgrade() {
            connection.stir();
        }
    }
}
