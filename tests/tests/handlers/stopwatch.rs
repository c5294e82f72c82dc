//! Time without the pauses of the machine, and a watchdog that counts it.
//!
//! These tests assert that handlers do not wait for each other. A test process that gets no CPU for a
//! second must not look like one whose driver is stuck. So a control thread measures how late it wakes
//! from short sleeps, and that is taken off what a test measures.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long the control thread sleeps at a time.
const BEAT: Duration = Duration::from_millis(2);
/// Lateness that a machine without a pause may show.
const SPARED: Duration = Duration::from_millis(3);

/// A test that takes longer hangs.
const TEST_LONGEST: Duration = Duration::from_secs(120);
/// An answer that takes longer never comes.
const ANSWER_LONGEST: Duration = Duration::from_secs(20);

/// The control thread's account, in microseconds.
struct Control {
    start: Instant,
    /// When it woke last, since `start`.
    woke_us: AtomicU64,
    /// What it was late in all.
    stalled_us: AtomicU64,
}

impl Control {
    fn get() -> &'static Self {
        static CONTROL: OnceLock<Control> = OnceLock::new();
        static RUNS: OnceLock<()> = OnceLock::new();
        let control = CONTROL.get_or_init(|| Self {
            start: Instant::now(),
            woke_us: AtomicU64::new(0),
            stalled_us: AtomicU64::new(0),
        });
        RUNS.get_or_init(|| drop(std::thread::spawn(|| control.run())));
        control
    }

    fn run(&self) {
        loop {
            std::thread::sleep(BEAT);
            let late = self.late();
            self.stalled_us.fetch_add(micros(late), Ordering::SeqCst);
            self.woke_us
                .store(micros(self.start.elapsed()), Ordering::SeqCst);
        }
    }

    /// Returns how late it is by now, beyond its sleep and what any machine shows.
    fn late(&self) -> Duration {
        let woke = Duration::from_micros(self.woke_us.load(Ordering::SeqCst));
        self.start.elapsed().saturating_sub(woke + BEAT + SPARED)
    }

    /// Returns the pauses so far. The one that has just ended counts, though the thread that asks may
    /// run before the control thread does.
    fn stalled(&self) -> Duration {
        Duration::from_micros(self.stalled_us.load(Ordering::SeqCst)) + self.late()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

/// Measures time in which this process could run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    start: Instant,
    stalled: Duration,
}

impl Stopwatch {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Self {
            stalled: Control::get().stalled(),
            start: Instant::now(),
        }
    }

    /// Returns the time since its start, the machine's pauses taken off.
    pub(crate) fn elapsed(&self) -> Duration {
        let stalled = Control::get().stalled().saturating_sub(self.stalled);
        self.start.elapsed().saturating_sub(stalled)
    }
}

/// How a test stands beside those that run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Its threads mostly sleep.
    Others,
    /// It takes the whole machine.
    None,
}

/// Runs `test` on a thread of its own, and fails when that does not end. What hangs is left behind: the
/// process ends without it.
pub(crate) fn watched(beside: Beside, test: impl FnOnce() + Send + 'static) {
    static TURNS: RwLock<()> = RwLock::new(());
    let poisoned = PoisonError::into_inner;
    let _alone =
        (beside == Beside::None).then(|| TURNS.write().unwrap_or_else(PoisonError::into_inner));
    let _among = (beside == Beside::Others).then(|| TURNS.read().unwrap_or_else(poisoned));
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(test));
        // A watchdog that has given up hears nothing.
        let _ = done.send(outcome);
    });
    let watch = Stopwatch::start();
    loop {
        match is_done.recv_timeout(Duration::from_millis(20)) {
            Ok(Ok(())) => return,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) if watch.elapsed() < TEST_LONGEST => {}
            Err(_) => panic!("the test hangs: its threads are left behind"),
        }
    }
}

/// Takes the best of several attempts: others may keep the machine busy. What makes handlers wait for
/// each other makes each attempt fail.
pub(crate) fn best_of_several(mut attempt: impl FnMut() -> Result<(), String>) {
    const ATTEMPTS: usize = 6;
    let failures: Vec<_> = (0..ATTEMPTS).map_while(|_| attempt().err()).collect();
    assert!(failures.len() < ATTEMPTS, "each time: {failures:#?}");
}

/// Waits for what must come, and says what did not.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let watch = Stopwatch::start();
    let mut future = std::pin::pin!(future);
    loop {
        match tokio::time::timeout(Duration::from_millis(20), &mut future).await {
            Ok(output) => return output,
            Err(_) => assert!(watch.elapsed() < ANSWER_LONGEST, "never came: {what}"),
        }
    }
}

/// Waits until `condition` holds, and returns how long that took.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let watch = Stopwatch::start();
    while !condition() {
        assert!(watch.elapsed() < ANSWER_LONGEST, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    watch.elapsed()
}
