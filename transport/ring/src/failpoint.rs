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

/// Kills the process here, if `RINGWAY_FAILPOINT` names this step and, behind a colon, counts to it.
#[cfg(all(feature = "failpoints", debug_assertions))]
pub fn reached(step: Step) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static ARMED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let asked = std::env::var("RINGWAY_FAILPOINT").ok()?;
        let (step, times) = asked.split_once(':')?;
        Some((step.to_owned(), AtomicU32::new(times.parse().ok()?)))
    });
    let Some((_, left)) = armed
        .as_ref()
        .filter(|(name, _)| *name == format!("{step:?}"))
    else {
        return;
    };
    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
        // It ends this very thread before the call returns.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
}
