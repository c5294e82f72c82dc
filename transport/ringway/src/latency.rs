//! How long a server's calls take, by connection, while somebody watches. Otherwise a call pays for one
//! look at a number that does not change.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Two significant digits are more than two readings agree in.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Longer calls count as this long.
const LONGEST_NS: u64 = 60_000_000_000;
/// Connections that are told apart; the calls of further ones are not recorded. Each has a histogram of some
/// 30 KiB, which each snapshot of each watcher copies.
const MAX_SOURCES: usize = 256;
/// Watchers at once.
const MAX_WATCHERS: usize = 16;

/// Whose calls they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A local connection, by its number.
    Local(u64),
    /// An address on the network; empty where it is not known.
    Network(String),
}

/// Nanoseconds of calls that ended, since the process was first watched.
pub(crate) type Times = HashMap<Source, Histogram<u64>>;

static WATCHERS: AtomicUsize = AtomicUsize::new(0);
static TIMES: LazyLock<Mutex<Times>> = LazyLock::new(Mutex::default);

/// Whether calls are to be timed.
#[inline]
pub(crate) fn is_watched() -> bool {
    WATCHERS.load(Ordering::Relaxed) > 0
}

/// Has calls timed, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher(());

impl Watcher {
    /// Begins to watch, unless so many do that the copies of what they see would take the process's time.
    pub(crate) fn new() -> Option<Self> {
        let one_more = |watchers| (watchers < MAX_WATCHERS).then_some(watchers + 1);
        let begun = WATCHERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        begun.is_ok().then(|| Self(()))
    }

    /// All that was recorded so far.
    pub(crate) fn times(&self) -> Times {
        TIMES.lock().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if WATCHERS.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nobody is left who would compare with what was.
            TIMES.lock().clear();
        }
    }
}

/// A call that is being timed.
#[derive(Debug)]
pub(crate) struct Timing {
    source: Source,
    began: Instant,
}

impl Timing {
    pub(crate) fn begin(source: Source) -> Self {
        let began = Instant::now();
        Self { source, began }
    }

    /// The call is over.
    pub(crate) fn end(self) {
        let took_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut times = TIMES.lock();
        if times.len() >= MAX_SOURCES && !times.contains_key(&self.source) {
            return;
        }
        let times = times.entry(self.source).or_insert_with(empty);
        times.saturating_record(took_ns.clamp(1, LONGEST_NS));
    }
}

/// No times.
fn empty() -> Histogram<u64> {
    // Refused are only digits over five and a bound below two.
    Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS).expect("constants that it takes")
}

/// What was recorded after `before`.
pub(crate) fn since(now: &Histogram<u64>, before: Option<&Histogram<u64>>) -> Histogram<u64> {
    let mut difference = now.clone();
    if let Some(before) = before {
        // It fails only where `before` has more: where it is of another watch.
        let _ = difference.subtract(before);
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_since_counts() {
        let mut before = empty();
        before.saturating_record(1_000);
        let mut now = before.clone();
        now.saturating_record(2_000_000);
        let came = since(&now, Some(&before));
        assert_eq!(came.len(), 1);
        assert!(came.value_at_quantile(0.5) > 1_900_000);
        assert_eq!(since(&now, None).len(), 2);
    }

    #[test]
    fn calls_are_timed_while_somebody_watches() {
        assert!(!is_watched());
        let watcher = Watcher::new().unwrap();
        assert!(is_watched());
        Timing::begin(Source::Local(u64::MAX)).end();
        assert_eq!(watcher.times()[&Source::Local(u64::MAX)].len(), 1);
        drop(watcher);
        assert!(!is_watched());
        let watchers: Vec<_> = (0..MAX_WATCHERS).map(|_| Watcher::new().unwrap()).collect();
        assert!(watchers[0].times().is_empty());
        assert!(Watcher::new().is_none(), "one too many");
        drop(watchers);
        assert!(!is_watched());
    }
}
