//! Spans that wait for their export, as bytes: as many as the queue holds. A call never waits for a
//! collector; each span that does not fit, or that the collector does not take, is counted.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc as reply;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use super::{Loss, otlp};
use crate::settings::number;

/// How long [`SpanProcessor::force_flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans are sent.
pub(super) trait Destination: Send + 'static {
    /// Sends them; how many were not taken, and why, or that none was.
    fn send(&self, spans: Vec<Bytes>) -> impl Future<Output = Result<Rejected, Status>> + Send;
}

/// Spans that a collector did not take, of those that were sent.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    pub(super) spans: usize,
    pub(super) why: String,
}

/// How many spans wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Spans in the queue and in the batch that is being sent.
    capacity: usize,
    /// As many are sent at once, at most.
    batch: usize,
    /// Until they are sent, however few there are.
    delay: Duration,
}

impl Limits {
    /// As OpenTelemetry's "Environment Variable Specification" names them. The queue holds more than
    /// it says: at a thousand sampled calls a second these are the spans of some seconds; those of
    /// calls take about 4 MiB.
    pub(super) fn of_environment() -> Self {
        let capacity = number("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(8_192);
        Self {
            capacity,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
                .unwrap_or(512)
                .min(capacity)
                .max(1),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5_000)),
        }
    }
}

/// The queue's entrance.
#[derive(Debug, Clone)]
pub(crate) struct SpanQueue {
    shared: Arc<Shared>,
    flushes: mpsc::UnboundedSender<Flush>,
}

/// Asks for all that waits to be sent; the answer says whether the collector took it.
type Flush = reply::Sender<bool>;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// A whole batch waits.
    full: Notify,
    limits: Limits,
    loss: Arc<Loss>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    /// How many are being sent.
    sent: usize,
    /// No more are taken.
    ended: bool,
}

impl SpanQueue {
    /// A queue whose spans a task of `runtime` sends.
    pub(super) fn start(
        destination: impl Destination,
        limits: Limits,
        loss: Arc<Loss>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            full: Notify::new(),
            limits,
            loss,
        });
        let (flushes, asked) = mpsc::unbounded_channel();
        runtime.spawn(send_all(Arc::clone(&shared), destination, asked));
        Self { shared, flushes }
    }

    pub(crate) fn loss(&self) -> &Arc<Loss> {
        &self.shared.loss
    }

    /// Has a span sent.
    pub(crate) fn push(&self, span: Bytes) {
        let Shared { limits, loss, .. } = &*self.shared;
        let mut queue = self.shared.queue.lock();
        if queue.ended || queue.waiting.len() + queue.sent >= limits.capacity {
            let ended = queue.ended;
            drop(queue);
            return match ended {
                true => loss.add(1, &"the export has ended"),
                false => loss.add(1, &"the queue is full"),
            };
        }
        queue.waiting.push_back(span);
        if queue.waiting.len() >= limits.batch {
            drop(queue);
            self.shared.full.notify_one();
        }
    }

    /// Sends all that waits; false if that took longer, or if the collector did not take it. Blocks.
    fn flush(&self, timeout: Duration) -> Result<bool, Duration> {
        let (answer, answered) = reply::channel();
        if self.flushes.send(answer).is_err() {
            return Ok(false);
        }
        answered.recv_timeout(timeout).map_err(|_| timeout)
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.push(otlp::of_sdk(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        result(self.flush(FLUSH_TIMEOUT))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.shared.queue.lock().ended = true;
        let flushed = self.flush(timeout);
        let mut queue = self.shared.queue.lock();
        let left = std::mem::take(&mut queue.sent) + queue.waiting.drain(..).len();
        drop(queue);
        if left > 0 {
            self.shared.loss.add(left, &"the process ends");
        }
        result(flushed)
    }
}

fn result(flushed: Result<bool, Duration>) -> OTelSdkResult {
    match flushed {
        Ok(true) => Ok(()),
        Ok(false) => Err(OTelSdkError::InternalFailure(
            "the collector did not take all spans".to_owned(),
        )),
        Err(timeout) => Err(OTelSdkError::Timeout(timeout)),
    }
}

/// Sends batches as they fill, and what there is when time is over or somebody asks for it.
async fn send_all(
    shared: Arc<Shared>,
    destination: impl Destination,
    mut flushes: mpsc::UnboundedReceiver<Flush>,
) {
    loop {
        let (only_whole_batches, asked) = tokio::select! {
            flush = flushes.recv() => match flush {
                Some(flush) => (false, Some(flush)),
                None => return,
            },
            () = shared.full.notified() => (true, None),
            () = tokio::time::sleep(shared.limits.delay) => (false, None),
        };
        // What comes meanwhile waits for its own turn: it would go out in ever smaller batches.
        let mut due = shared.due(only_whole_batches);
        let mut taken = true;
        while let Some(spans) = shared.batch(due) {
            due -= spans.len();
            taken &= shared.account(destination.send(spans).await);
        }
        if let Some(asked) = asked {
            // Who asked may have given up meanwhile.
            let _ = asked.send(taken);
        }
    }
}

impl Shared {
    /// How many spans wait, or how many of them make whole batches.
    fn due(&self, only_whole_batches: bool) -> usize {
        let waiting = self.queue.lock().waiting.len();
        match only_whole_batches {
            true => waiting - waiting % self.limits.batch,
            false => waiting,
        }
    }

    /// The next batch, if any of so many spans are left.
    fn batch(&self, due: usize) -> Option<Vec<Bytes>> {
        let mut queue = self.queue.lock();
        let size = due.min(self.limits.batch).min(queue.waiting.len());
        if size == 0 {
            return None;
        }
        queue.sent = size;
        Some(queue.waiting.drain(..size).collect())
    }

    /// Counts what became of a batch; true if the collector has it.
    fn account(&self, answer: Result<Rejected, Status>) -> bool {
        let sent = std::mem::take(&mut self.queue.lock().sent);
        match answer {
            // Counted as lost before: the process ends.
            _ if sent == 0 => false,
            Ok(Rejected { spans: 0, .. }) => {
                self.loss.recovered();
                true
            }
            Ok(Rejected { spans, why }) => {
                self.loss
                    .add(spans.min(sent), &format_args!("rejected: {why:?}"));
                false
            }
            Err(status) => {
                let (code, message) = (status.code(), status.message());
                self.loss.add(sent, &format_args!("{code:?}: {message:?}"));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::export::ExportRuntime;

    /// A collector that takes nothing, or everything but some, or never answers.
    #[derive(Debug, Clone, Default)]
    struct Fake {
        refuses: Arc<AtomicBool>,
        hangs: Arc<AtomicBool>,
        rejects: Arc<AtomicUsize>,
        kept: Arc<Mutex<Vec<Bytes>>>,
        /// Has another span come while some are being sent.
        refills: Arc<Mutex<Option<SpanQueue>>>,
    }

    impl Destination for Fake {
        async fn send(&self, spans: Vec<Bytes>) -> Result<Rejected, Status> {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.refuses.load(Ordering::SeqCst) {
                return Err(Status::permission_denied("not you"));
            }
            self.kept.lock().extend(spans);
            if let Some(queue) = &*self.refills.lock() {
                queue.push(Bytes::new());
            }
            Ok(Rejected {
                spans: self.rejects.load(Ordering::SeqCst),
                why: "too old".to_owned(),
            })
        }
    }

    struct Tested {
        fake: Fake,
        spans: SpanQueue,
        _runtime: ExportRuntime,
    }

    fn tested(capacity: usize, batch: usize) -> Tested {
        let (fake, runtime) = (Fake::default(), ExportRuntime::start().unwrap());
        let limits = Limits {
            capacity,
            batch,
            delay: Duration::from_secs(3_600),
        };
        let loss = Arc::new(Loss::new("tested", "spans", ""));
        Tested {
            spans: SpanQueue::start(fake.clone(), limits, loss, runtime.handle()),
            fake,
            _runtime: runtime,
        }
    }

    impl Tested {
        fn push(&self, count: u8) {
            (0..count).for_each(|number| self.spans.push(vec![number].into()));
        }

        /// Sends so many; whether the collector took them all.
        fn send(&self, count: u8) -> bool {
            self.push(count);
            self.spans.force_flush().is_ok()
        }

        fn kept_and_lost(&self) -> (usize, u64) {
            (self.fake.kept.lock().len(), self.spans.loss().count())
        }
    }

    #[test]
    fn each_span_is_kept_or_counted_as_lost() {
        let tested = tested(8, 3);
        assert!(tested.send(8));
        assert_eq!(tested.kept_and_lost(), (8, 0));
        let order: Vec<u8> = tested.fake.kept.lock().iter().map(|span| span[0]).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
        tested.fake.refuses.store(true, Ordering::SeqCst);
        assert!(!tested.send(5));
        assert_eq!(tested.kept_and_lost(), (8, 5));
        assert!(tested.spans.loss().said.load(Ordering::SeqCst));
        tested.fake.refuses.store(false, Ordering::SeqCst);
        assert!(tested.send(3));
        assert_eq!(tested.kept_and_lost(), (11, 5));
        assert!(!tested.spans.loss().said.load(Ordering::SeqCst));
    }

    #[test]
    fn what_a_collector_rejects_is_lost() {
        let tested = tested(8, 8);
        tested.fake.rejects.store(2, Ordering::SeqCst);
        assert!(!tested.send(5));
        assert_eq!(tested.spans.loss().count(), 2);
        // More than there were is a lie.
        tested.fake.rejects.store(usize::MAX, Ordering::SeqCst);
        assert!(!tested.send(3));
        assert_eq!(tested.spans.loss().count(), 5);
    }

    #[test]
    fn a_whole_batch_is_sent_without_being_asked_for() {
        let tested = tested(100, 4);
        tested.push(11);
        let begin = Instant::now();
        while tested.fake.kept.lock().len() < 8 {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert!(tested.spans.force_flush().is_ok());
        assert_eq!(tested.kept_and_lost(), (11, 0));
    }

    #[test]
    fn a_flush_ends_while_more_spans_come() {
        let tested = tested(100, 100);
        *tested.fake.refills.lock() = Some(tested.spans.clone());
        assert!(tested.send(9));
        assert_eq!(tested.kept_and_lost(), (9, 0));
        // The one that came meanwhile.
        assert!(tested.send(0));
        assert_eq!(tested.kept_and_lost(), (10, 0));
    }

    #[test]
    fn behind_a_collector_that_hangs_no_more_wait_than_the_queue_holds() {
        let tested = tested(8, 8);
        tested.fake.hangs.store(true, Ordering::SeqCst);
        tested.push(100);
        assert_eq!(tested.kept_and_lost(), (0, 92));
        let begin = Instant::now();
        let limit = Duration::from_millis(50);
        tested.spans.shutdown_with_timeout(limit).unwrap_err();
        assert!(begin.elapsed() < 20 * limit);
        // What was on its way when the process ended, and what comes after.
        assert_eq!(tested.kept_and_lost(), (0, 100));
        tested.push(1);
        assert_eq!(tested.kept_and_lost(), (0, 101));
    }
}
