//! Who looks after the descriptors: the thread that waits, or, while none does, one of ours.
//!
//! tokio's current-thread runtime lets one of the threads that block on it drive its descriptors and
//! tasks, and hands that on when this thread has what it waited for. So all there is to do is to keep
//! our own thread away while calls sleep.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use ringway_local::BlockedThread;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;

/// So long our thread stays away after a call that slept: the next one may sleep soon, and would
/// have to wake our thread first.
const STAY_AWAY: Duration = Duration::from_millis(5);

/// The runtime that all blocking calls of the process share.
pub(super) struct Attendance {
    pub(super) runtime: Runtime,
    /// Calls that sleep.
    sleeping: AtomicUsize,
    /// How many have slept, counted round and round.
    slept: AtomicUsize,
    /// Our thread has the descriptors, or is about to take them.
    attending: AtomicBool,
    /// Our thread is asked to let go of them.
    leave: Notify,
    /// Our thread waits until no call sleeps.
    waiting: AtomicBool,
    thread: OnceLock<Thread>,
}

/// Runs `future` to its end on this thread, which drives what it waits for.
///
/// For what has no blocking form of its own, as [`Child::spawn`](crate::Child::spawn) has none.
///
/// ```
/// let (here, there) = ringway::Pipe::pair()?;
/// drop(there);
/// let gone = ringway::blocking::block_on(here.connect());
/// assert!(gone.is_err());
/// # std::io::Result::Ok(())
/// ```
///
/// # Panics
/// In asynchronous code, where it would hold up every task of its thread; and if the runtime's
/// thread or descriptors can't be had.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let attendance = Attendance::get();
    let mut future = pin!(future);
    let mut sleeper = Sleeper {
        attendance,
        counted: false,
    };
    // Most calls have their answer after one look, and entering a runtime costs a tenth of a call. Not
    // in asynchronous code, which always has a runtime around it: there the runtime itself refuses.
    let mut looked = false;
    if Handle::try_current().is_err() {
        let _around = attendance.runtime.enter();
        let _blocked = BlockedThread::enter();
        // Whoever would wake it finds nobody: it is polled again below.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        looked = true;
    }
    // Whoever gets the descriptors polls anew, having looked in vain a moment ago.
    attendance.runtime.block_on(poll_fn(|context| {
        let polled = match std::mem::replace(&mut looked, true) {
            false => {
                let _blocked = BlockedThread::enter();
                future.as_mut().poll(context)
            }
            true => future.as_mut().poll(context),
        };
        if polled.is_pending() {
            sleeper.sleep();
        }
        polled
    }))
}

impl Attendance {
    /// The process's own; the first caller starts it.
    pub(super) fn get() -> &'static Self {
        static ATTENDANCE: OnceLock<Attendance> = OnceLock::new();
        let mut fresh = false;
        let attendance = ATTENDANCE.get_or_init(|| {
            fresh = true;
            Self::new()
        });
        if fresh {
            let thread = thread::Builder::new().name("ringway-attend".to_owned());
            thread
                .spawn(|| attendance.attend())
                .expect("the thread of the blocking calls can't be started");
        }
        attendance
    }

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.expect("the runtime of the blocking calls can't be made"),
            sleeping: AtomicUsize::new(0),
            slept: AtomicUsize::new(0),
            attending: AtomicBool::new(false),
            leave: Notify::new(),
            waiting: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// What our thread does, for ever.
    fn attend(&self) {
        self.thread.get_or_init(thread::current);
        loop {
            self.attending.store(true, Ordering::SeqCst);
            // A call that began to sleep meanwhile sees `attending`, or is seen here.
            if self.sleeping.load(Ordering::SeqCst) == 0 {
                self.runtime.block_on(self.leave.notified());
            }
            self.attending.store(false, Ordering::SeqCst);
            self.stay_away();
        }
    }

    /// Until no call sleeps, and none has slept for a while.
    fn stay_away(&self) {
        loop {
            let slept = self.slept.load(Ordering::SeqCst);
            self.waiting.store(true, Ordering::SeqCst);
            while self.sleeping.load(Ordering::SeqCst) > 0 {
                thread::park();
            }
            self.waiting.store(false, Ordering::SeqCst);
            thread::sleep(STAY_AWAY);
            let slept_since = self.slept.load(Ordering::SeqCst) != slept;
            if !slept_since && self.sleeping.load(Ordering::SeqCst) == 0 {
                return;
            }
        }
    }
}

/// A call, and whether it counts as one that sleeps.
struct Sleeper {
    attendance: &'static Attendance,
    counted: bool,
}

impl Sleeper {
    fn sleep(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.attendance.slept.fetch_add(1, Ordering::SeqCst);
        self.attendance.sleeping.fetch_add(1, Ordering::SeqCst);
        if self.attendance.attending.swap(false, Ordering::SeqCst) {
            self.attendance.leave.notify_one();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let last = self.attendance.sleeping.fetch_sub(1, Ordering::SeqCst) == 1;
        if last
            && self.attendance.waiting.load(Ordering::SeqCst)
            && let Some(thread) = self.attendance.thread.get()
        {
            thread.unpark();
        }
    }
}
