//! Steps at which a test has its process killed, each of them a place where a peer could be left with half of
//! something.
//!
//! They exist with the feature `failpoints` and with debug assertions alone. In every other build, and so in every
//! release, [`reached`] is an empty function.

/// A place between two things that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A record is written, and its peer cannot see it yet.
    Written,
    /// A record can be seen, and its peer, which sleeps, was not rung for.
    Published,
    /// The kernel took a part of what a stream was to send.
    PartlySent,
    /// A side has announced that it sleeps, and does not sleep yet.
    Asleep,
    /// Records are copied, and the cursor does not say so yet.
    Copied,
    /// The cursor says that records were taken, and nothing was made of them yet.
    Taken,
    /// A block is written down as released, and the index does not say so yet.
    Releasing,
    /// There is room again, and the peer, which waits for it, was not rung for.
    Released,
    /// A segment is made, and the peer was not told of it.
    Growing,
    /// A handler has ended, and nothing of its answer is sent.
    Handled,
    /// A driver has lost its role, and its successor has not begun.
    HandingOver,
}

/// Kills the process here, if that was asked for.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline(always)]
pub fn reached(_: Step) {}

/// Has a step that waits for this event count from now on.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[inline(always)]
pub fn arm(_: &str) {}

#[cfg(all(feature = "failpoints", debug_assertions))]
pub use self::armed::{arm, reached};

#[cfg(all(feature = "failpoints", debug_assertions))]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Step;

    /// A step at which this process dies.
    struct Failpoint {
        /// Its name, as `Debug` says it.
        step: String,
        /// How often it is still to be passed, the last time included.
        left: AtomicU32,
        /// The event with which the count begins.
        event: Option<String>,
        is_armed: AtomicBool,
    }

    static ASKED_FOR: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
        let asked = std::env::var("RINGWAY_FAILPOINT").ok()?;
        let mut words = asked.split(':');
        let (step, times, event) = (words.next()?, words.next()?, words.next());
        Some(Failpoint {
            step: step.to_owned(),
            left: AtomicU32::new(times.parse().ok()?),
            event: event.map(str::to_owned),
            is_armed: AtomicBool::new(event.is_none()),
        })
    });

    /// Kills the process here, if `RINGWAY_FAILPOINT` names this step and, behind a colon, counts to it. Behind a
    /// second colon stands the event with which the count begins, if any: see [`arm`].
    pub fn reached(step: Step) {
        let Some(asked) = ASKED_FOR.as_ref() else {
            return;
        };
        if asked.step != format!("{step:?}") || !asked.is_armed.load(Ordering::SeqCst) {
            return;
        }
        if asked.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // It ends this very thread before the call returns.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }

    /// Has a step that waits for this event count from now on: a busy machine may come to it earlier, by another
    /// cause than the test's.
    pub fn arm(event: &str) {
        if let Some(asked) = ASKED_FOR.as_ref()
            && asked.event.as_deref() == Some(event)
        {
            asked.is_armed.store(true, Ordering::SeqCst);
        }
    }
}
