//! What this thread's tasks write to the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The log of this thread, for as long as the guard beside it lives. With a current-thread runtime
/// that is the log of all tasks.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to take note, from `INFO` on.
    pub fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = log.subscriber().set_default();
        (log, guard)
    }

    /// The log of all threads, for a process that has no other.
    pub fn of_process() -> Self {
        let log = Self::default();
        log.subscriber().init();
        log
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        let writer = self.clone();
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish()
    }

    /// How often `what` was written.
    pub fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The values of this thread's events as a formatter gets them, which may escape none of them: one that writes texts
/// as they are.
#[derive(Debug, Clone, Default)]
pub struct LoggedValues(Arc<Mutex<Vec<String>>>);

impl LoggedValues {
    /// Begins to take note of events, of all levels.
    pub fn begin() -> (Self, DefaultGuard) {
        let values = Self::default();
        let layer = values.clone();
        let guard = tracing_subscriber::registry().with(layer).set_default();
        (values, guard)
    }

    /// Takes those that there are.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber> Layer<S> for LoggedValues {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Recorder(&mut self.0.lock().unwrap()));
    }
}

struct Recorder<'a>(&'a mut Vec<String>);

impl Visit for Recorder<'_> {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0.push(value.to_owned());
    }

    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0.push(format!("{value:?}"));
    }
}
