//! A thread that only sleeps: how late it wakes is how late this machine is, and is taken off the lateness of calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(1);
/// Later than this is a machine that is busy.
const LATE: Duration = Duration::from_micros(500);
/// Late wakes that are remembered: more than a round can have.
const MAX_REMEMBERED: usize = 4096;

/// Says how late this machine is.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Mutex<VecDeque<(Instant, Instant)>>>);

impl Control {
    /// Starts the thread, which runs as long as the process.
    pub fn start() -> Self {
        let control = Self::default();
        let late = Arc::clone(&control.0);
        std::thread::spawn(move || {
            loop {
                let due = Instant::now() + PERIOD;
                std::thread::sleep(PERIOD);
                let woken = Instant::now();
                if woken > due + LATE {
                    let mut late = late.lock().unwrap();
                    if late.len() == MAX_REMEMBERED {
                        late.pop_front();
                    }
                    late.push_back((due, woken));
                }
            }
        });
        control
    }

    /// Returns how long the thread, had it wanted to run, was kept waiting between two instants.
    pub fn lateness(&self, from: Instant, until: Instant) -> Duration {
        let late = self.0.lock().unwrap();
        late.iter()
            .map(|(due, woken)| {
                (*woken)
                    .min(until)
                    .saturating_duration_since((*due).max(from))
            })
            .sum()
    }
}
