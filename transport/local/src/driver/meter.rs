//! Measures how busy a driver's task is, and with which of its connections.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ringway_sys::schedule::idle_time;

use super::load::{LoadRecord, LoadRules, Reading, Verdict};
use crate::connection::{Connection, Progress};

/// The meter of one task.
#[derive(Debug)]
pub(super) struct LoadMeter {
    window: Duration,
    window_began: Instant,
    window_ends: Instant,
    /// When the pass began that is under way, where that is known.
    pass_began: Option<Instant>,
    busy: Duration,
    weights: Option<Weights>,
    record: LoadRecord,
}

/// What a window came to.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) length: Duration,
    pub(super) busy: Duration,
    pub(super) weights: Option<Weights>,
}

/// The time that each connection took.
#[derive(Debug)]
pub(super) struct Weights {
    /// What the CPUs at hand had idled before; `None` where the kernel does not say.
    idle_before: Option<Duration>,
    each: Vec<(Weak<Connection>, Duration)>,
}

impl LoadMeter {
    pub(super) fn new() -> Self {
        let (now, window) = (Instant::now(), LoadRules::in_force().window);
        Self {
            window,
            window_began: now,
            window_ends: now + window,
            pass_began: None,
            busy: Duration::ZERO,
            weights: None,
            record: LoadRecord::default(),
        }
    }

    /// A pass begins, at a known time or at another one.
    #[inline]
    pub(super) fn begin_pass(&mut self, at: Option<Instant>) {
        self.pass_began = at;
    }

    /// A pass has ended; true if the window has as well.
    #[inline]
    pub(super) fn end_pass(&mut self, now: Instant) -> bool {
        if let Some(began) = self.pass_began.take() {
            self.busy += now.saturating_duration_since(began);
        }
        now >= self.window_ends
    }

    /// Drives a connection, and weighs it if this window is for that.
    #[inline]
    pub(super) fn drive(&mut self, connection: &Arc<Connection>) -> Progress {
        let Some(weights) = &mut self.weights else {
            return connection.drive();
        };
        let began = Instant::now();
        let brought = connection.drive();
        if brought > Progress::Idle {
            weights.add(connection, began.elapsed());
        }
        brought
    }

    /// Begins the next window.
    pub(super) fn end_window(&mut self, now: Instant) -> Window {
        let window = Window {
            length: now.saturating_duration_since(self.window_began),
            busy: std::mem::take(&mut self.busy),
            weights: self.weights.take(),
        };
        self.window_began = now;
        self.window_ends = now + self.window;
        window
    }

    /// Weighs connections in the window that has just begun.
    pub(super) fn begin_weighing(&mut self) {
        self.weights = Some(Weights {
            idle_before: idle_time().ok(),
            each: Vec::new(),
        });
    }

    pub(super) fn judge(&mut self, rules: &LoadRules, reading: Reading) -> Verdict {
        let (verdict, record) = self.record.judge(rules, reading);
        self.record = record;
        verdict
    }

    /// Nothing could be shared.
    pub(super) fn pause(&mut self, rules: &LoadRules) {
        self.record = self.record.paused(rules);
    }
}

impl Weights {
    fn add(&mut self, connection: &Arc<Connection>, time: Duration) {
        let is_it = |known: &Weak<Connection>| known.as_ptr() == Arc::as_ptr(connection);
        match self.each.iter_mut().find(|(known, _)| is_it(known)) {
            Some((_, sum)) => *sum += time,
            None => self.each.push((Arc::downgrade(connection), time)),
        }
    }

    /// Connections that brought something.
    pub(super) fn connections(&self) -> usize {
        self.each.len()
    }

    /// What the CPUs at hand have idled since, in sum.
    pub(super) fn idle_cpu(&self) -> Duration {
        let idled = self.idle_before.zip(idle_time().ok());
        idled.map_or(Duration::ZERO, |(before, now)| now.saturating_sub(before))
    }

    /// The time of each.
    pub(super) fn times(&self) -> Vec<Duration> {
        self.each.iter().map(|(_, time)| *time).collect()
    }

    /// One of them, if it is still there.
    pub(super) fn connection(&self, at: usize) -> Option<Arc<Connection>> {
        self.each.get(at).and_then(|(known, _)| known.upgrade())
    }
}
