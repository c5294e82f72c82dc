//! The hook by which calls are measured: how long each took, how it ended, by which way it went, and
//! what it carried.
//!
//! It shares its places with the traces ([`crate::trace`]): where a [`Meter`] is installed, a call's
//! trace is wrapped into what measures it. Without one a call pays for one look at a number.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

pub use ringway_local::ConnectionRole as Role;
use tonic::Code;

use crate::path::Path;
use crate::trace::{self, Span, Step, Trace, TraceContext};

/// Measures the calls of a process. All of it is called in the midst of calls: it must not wait.
pub trait Meter: Send + Sync + 'static {
    /// What measures calls of `method` (`/package.Service/Method`), if it has been
    /// [learned](Self::learn).
    fn known(&self, role: Role, method: &str) -> Option<&'static dyn MethodMeter>;

    /// The same for a method that is called for the first time, and that exists.
    fn learn(&self, role: Role, method: &str) -> &'static dyn MethodMeter;

    /// What measures calls of methods that this server does not have: clients may make up any number
    /// of them.
    fn other(&self) -> &'static dyn MethodMeter;
}

/// Measures the calls of one method, at one end.
pub trait MethodMeter: Send + Sync {
    /// Messages went out or came in, with so many bytes: as they were carried, without framing.
    fn carried(&self, way: Way, direction: Direction, messages: u64, bytes: u64);

    /// A call is over: with `code`, after all this time, streams included. `Cancelled` where it was
    /// given up.
    fn ended(&self, way: Way, code: Code, took: Duration);
}

/// Which way messages went, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From it.
    Received,
}

/// What carried a call, if it got that far; of several attempts, the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way(u8);

const WAYS: [Option<(Path, &str)>; 7] = [
    None,
    Some((Path::Shm, "shm")),
    Some((Path::Socket, "unix")),
    Some((Path::Pipe, "pipe")),
    Some((Path::Inproc, "inproc")),
    Some((Path::Grpc, "tcp")),
    Some((Path::Grpc, "unix")),
];

impl Way {
    /// How many there are.
    pub const COUNT: usize = WAYS.len();

    /// All of them, each at its [index](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).zip(WAYS).map(|(index, _)| Self(index))
    }

    /// Below [`Self::COUNT`].
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// The path.
    pub fn path(self) -> Option<Path> {
        WAYS[self.index()].map(|(path, _)| path)
    }

    /// OpenTelemetry's `network.transport`.
    pub fn transport(self) -> Option<&'static str> {
        WAYS[self.index()].map(|(_, transport)| transport)
    }

    fn of(path: Path, transport: &str) -> Self {
        let known = |way: &Self| way.path() == Some(path) && way.transport() == Some(transport);
        Self::all().find(known).unwrap_or(Self(0))
    }
}

/// A process has one meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process has a meter already")]
pub struct MeterInstalled;

static METER: OnceLock<Box<dyn Meter>> = OnceLock::new();

/// Has `meter` measure each call of this process that begins from now on.
///
/// # Errors
/// There is one already.
pub fn install(meter: Box<dyn Meter>) -> Result<(), MeterInstalled> {
    METER.set(meter).map_err(|_| MeterInstalled)?;
    set_active(true);
    Ok(())
}

/// Whether calls that begin from now on are measured.
pub fn set_active(active: bool) {
    trace::set(trace::METER, active);
}

/// A call that is measured; the trace that it belongs to is inside.
struct Measured {
    trace: Trace,
    role: Role,
    meter: &'static dyn Meter,
    /// Set once the method is known to exist.
    method: OnceLock<&'static dyn MethodMeter>,
    /// Its name until then.
    name: Option<Box<str>>,
    began: Instant,
    way: AtomicU8,
    /// What it received before the method was known: messages, and their bytes.
    early: [AtomicU64; 2],
    over: AtomicBool,
}

/// The trace of a call that begins, measured.
#[cold]
pub(crate) fn measured(role: Role, name: &str, trace: Trace) -> Trace {
    let Some(meter) = METER.get().map(|meter| &**meter) else {
        return trace;
    };
    let mut known = meter.known(role, name);
    if known.is_none() && role == Role::Client {
        // The program's own stubs name it.
        known = Some(meter.learn(role, name));
    }
    Trace::Recorded(Arc::new(Measured {
        trace,
        role,
        meter,
        method: known.map(OnceLock::from).unwrap_or_default(),
        name: known.is_none().then(|| name.into()),
        began: Instant::now(),
        way: AtomicU8::new(0),
        early: Default::default(),
        over: AtomicBool::new(false),
    }))
}

/// Whether a server that ends a call so has the method: not if it may have ended before its service was
/// asked.
fn proves_existence(code: Code) -> bool {
    !matches!(
        code,
        Code::Unimplemented | Code::Cancelled | Code::DeadlineExceeded
    )
}

impl Measured {
    fn way(&self) -> Way {
        Way(self.way.load(Ordering::Relaxed))
    }

    /// What measures the method, which exists.
    fn method(&self) -> &'static dyn MethodMeter {
        let learn = || {
            let name = self.name.as_deref().unwrap_or_default();
            self.meter.learn(self.role, name)
        };
        *self.method.get_or_init(learn)
    }

    fn note_end(&self, code: Code) {
        if self.over.swap(true, Ordering::Relaxed) {
            return;
        }
        let method = match self.method.get() {
            Some(method) => *method,
            None if proves_existence(code) => self.method(),
            None => self.meter.other(),
        };
        let [messages, bytes] = &self.early;
        let messages = messages.load(Ordering::Relaxed);
        if messages > 0 {
            let bytes = bytes.load(Ordering::Relaxed);
            method.carried(self.way(), Direction::Received, messages, bytes);
        }
        method.ended(self.way(), code, self.began.elapsed());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.note_end(Code::Cancelled);
    }
}

impl Span for Measured {
    fn context(&self) -> Option<&TraceContext> {
        self.trace.context()
    }

    fn has_steps(&self) -> bool {
        self.trace.with_steps().is_some()
    }

    fn step(&self, step: Step, at: SystemTime) {
        if let Some(span) = self.trace.span() {
            span.step(step, at);
        }
    }

    fn goes_by(&self, path: Path, transport: &'static str) {
        self.way
            .store(Way::of(path, transport).0, Ordering::Relaxed);
        if let Some(span) = self.trace.span() {
            span.goes_by(path, transport);
        }
    }

    fn carried(&self, direction: Direction, messages: usize, bytes: usize) {
        let (messages, bytes) = (messages as u64, bytes as u64);
        match (self.method.get(), direction) {
            (Some(method), _) => method.carried(self.way(), direction, messages, bytes),
            // A method that answers exists.
            (None, Direction::Sent) => {
                self.method()
                    .carried(self.way(), direction, messages, bytes)
            }
            (None, Direction::Received) => {
                self.early[0].fetch_add(messages, Ordering::Relaxed);
                self.early[1].fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    fn end(&self, code: Code, message: &str) {
        self.note_end(code);
        self.trace.end(code, message);
    }

    fn enter(&self) -> Box<dyn Any> {
        match self.trace.span() {
            Some(span) => span.enter(),
            // Of no size, so it is not allocated.
            None => Box::new(()),
        }
    }

    fn join(&self) -> Option<Box<dyn Any>> {
        self.trace.span()?.join()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_index() {
        let all: Vec<_> = Way::all().collect();
        assert_eq!(all.len(), Way::COUNT);
        for (index, way) in all.into_iter().enumerate() {
            assert_eq!(way.index(), index);
            if let (Some(path), Some(transport)) = (way.path(), way.transport()) {
                assert_eq!(Way::of(path, transport), way);
                assert!(path.transport().is_none_or(|known| known == transport));
            }
        }
        assert_eq!(Way::of(Path::Grpc, "quic").path(), None);
    }
}
