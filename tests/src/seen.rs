//! What a handler has lived through, for the test that watches it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ringway_ring::failpoint;
use tokio::sync::Barrier;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Names the file to which a handler writes a line for each unary call that it executes.
pub const EXECUTIONS_VARIABLE: &str = "RINGWAY_TEST_EXECUTIONS";
/// How many calls meet where `x-do: meet` is asked for.
pub const MEETING_SIZE: usize = 8;

/// Counts of what a handler has seen.
#[derive(Debug)]
pub struct Seen {
    entered: AtomicU64,
    left: Arc<Left>,
    received: AtomicU64,
    produced: AtomicU64,
    committed: AtomicU64,
    failing: AtomicBool,
    executions: Option<File>,
    /// Where eight calls wait for each other.
    pub meeting: Barrier,
}

/// Calls that are over.
#[derive(Debug, Default)]
struct Left {
    calls: AtomicU64,
    last: Mutex<Option<Instant>>,
}

/// A call that is being handled, until it is dropped.
#[derive(Debug)]
pub struct Entered(Arc<Left>);

impl Drop for Entered {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap() = Some(Instant::now());
        self.0.calls.fetch_add(1, Ordering::SeqCst);
    }
}

impl Default for Seen {
    fn default() -> Self {
        let executions = std::env::var_os(EXECUTIONS_VARIABLE).map(|path| {
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .unwrap()
        });
        Self {
            entered: AtomicU64::new(0),
            left: Arc::default(),
            received: AtomicU64::new(0),
            produced: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            executions,
            meeting: Barrier::new(MEETING_SIZE),
        }
    }
}

impl Seen {
    /// Notes a call's beginning, and its end when the guard drops.
    pub fn enter(&self, sequence: u64) -> Entered {
        failpoint::arm("call");
        self.entered.fetch_add(1, Ordering::SeqCst);
        if let Some(mut executions) = self.executions.as_ref() {
            // One write, so that lines of several threads stay apart.
            executions
                .write_all(format!("{sequence}\n").as_bytes())
                .unwrap();
        }
        Entered(Arc::clone(&self.left))
    }

    /// Blocks the thread for longer than the library lets one keep its driver. A step at which the process is to die
    /// counts from here on, where it waits for that.
    pub fn block(&self) {
        failpoint::arm("block");
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Notes a message of an upload.
    pub fn note_received(&self) {
        self.received.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes a message that a stream of answers was asked for.
    pub fn note_produced(&self) {
        self.produced.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes an upload that came to its end.
    pub fn note_committed(&self) {
        self.committed.fetch_add(1, Ordering::SeqCst);
    }

    /// Has unary calls fail with `UNAVAILABLE` from now on, or no longer.
    pub fn fail_from_now_on(&self, fail: bool) {
        self.failing.store(fail, Ordering::SeqCst);
    }

    /// Whether unary calls are to fail.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Calls that have begun.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::SeqCst)
    }

    /// Calls that are being handled.
    pub fn inside(&self) -> u64 {
        self.entered() - self.left.calls.load(Ordering::SeqCst)
    }

    /// When the last of those that are over ended.
    pub fn last_left(&self) -> Option<Instant> {
        *self.left.last.lock().unwrap()
    }

    /// Messages of uploads.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Messages that streams of answers were asked for.
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::SeqCst)
    }

    /// Uploads that came to their end.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }
}

/// Names that mean something to gRPC. A deadline is left out: each end says its own.
const RESERVED: [&str; 7] = [
    "te",
    "content-type",
    "grpc-message",
    "grpc-message-type",
    "grpc-status",
    "grpc-status-details-bin",
    "grpc-of-no-meaning",
];
const KEPT: &str = "kept";

/// Metadata of an application that does not know which names are reserved.
pub fn reserved_names() -> MetadataMap {
    let names = RESERVED.into_iter().map(HeaderName::from_static);
    let kept = HeaderValue::from_static(KEPT);
    MetadataMap::from_headers(names.map(|name| (name, kept.clone())).collect())
}

/// Which of [`reserved_names`] have arrived as they were sent.
pub fn arrived_names(metadata: &MetadataMap) -> String {
    let arrived = |name: &&str| {
        metadata
            .as_ref()
            .get(*name)
            .is_some_and(|value| value == KEPT)
    };
    RESERVED
        .into_iter()
        .filter(arrived)
        .collect::<Vec<_>>()
        .join(" ")
}

/// All of them, and which have arrived.
pub(crate) fn with_reserved(asked: &MetadataMap) -> MetadataMap {
    let mut metadata = reserved_names();
    metadata.insert("x-arrived", arrived_names(asked).parse().unwrap());
    metadata
}

/// A status with everything that a status can carry.
pub fn rich_status() -> Status {
    let details = Bytes::from_static(&[0, 1, 254, 255]);
    let mut status = Status::with_details(
        Code::FailedPrecondition,
        "tabs\tand\nlines, ☕ %41",
        details,
    );
    status
        .metadata_mut()
        .insert("x-why", "because".parse().unwrap());
    status
        .metadata_mut()
        .append("x-why", "twice".parse().unwrap());
    let value = tonic::metadata::MetadataValue::from_bytes(&[9, 0, 255]);
    status.metadata_mut().insert_bin("x-why-bin", value);
    status
}

/// A status with the standard details of `google.rpc`.
pub(crate) fn richer_status() -> Status {
    let mut details = ErrorDetails::with_bad_request_violation("data", "is too odd \u{1f608}");
    details.set_retry_info(Some(std::time::Duration::from_secs(3)));
    Status::with_error_details(Code::InvalidArgument, "not so", details)
}
