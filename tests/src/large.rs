//! A handler for large messages, and what they cost its process in memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway_proto::bench::bench_server::Bench;
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{is_intact, payload, peak_resident_bytes, resident_bytes};

/// Makes messages as long as it is asked for, and takes them in without giving them back.
#[derive(Debug, Clone, Copy, Default)]
pub struct LargeHandler;

type Payloads = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

#[tonic::async_trait]
impl Bench for LargeHandler {
    type ServerStreamStream = Payloads;
    type BidiStream = Payloads;

    /// An empty request asks for so many bytes as its sequence says, or for one of the [questions](PeakMemory)
    /// about this process; another one is told how long it was.
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let sent = request.into_inner();
        assert!(is_intact(&sent));
        let Payload { sequence, data } = sent;
        if data.is_empty() {
            if let Some(answer) = PeakMemory::answer(sequence) {
                return Ok(Response::new(payload(answer, 0)));
            }
            return Ok(Response::new(payload(
                1,
                usize::try_from(sequence).unwrap(),
            )));
        }
        Ok(Response::new(payload(data.len() as u64, 0)))
    }

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        let StreamRequest { count, size_bytes } = request.into_inner();
        let messages = (0..count).map(move |n| Ok(payload(n, size_bytes as usize)));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let (mut requests, mut summary) = (request.into_inner(), Summary::default());
        while let Some(sent) = requests.message().await? {
            assert!(is_intact(&sent));
            summary.messages += 1;
            summary.bytes += sent.data.len() as u64;
        }
        Ok(Response::new(summary))
    }

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}

/// The most memory that this process had since it was last asked to begin anew.
#[derive(Debug)]
pub struct PeakMemory;

static BEFORE: AtomicUsize = AtomicUsize::new(0);

impl PeakMemory {
    /// Asks a [`LargeHandler`] to begin anew, as the sequence of an empty message.
    pub const BEGIN: u64 = u64::MAX;
    /// Asks it for the growth since then, in bytes.
    pub const GROWTH: u64 = u64::MAX - 1;

    /// Begins anew (`clear_refs`, proc_pid_clear_refs(5)). What was in use when that was first done is no growth.
    pub fn begin() {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        // So memory that is not given back counts for every message that follows.
        let _ = BEFORE.compare_exchange(0, resident_bytes(), Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Bytes that the process had at its peak since then, beyond those with which it first began.
    pub fn growth() -> usize {
        peak_resident_bytes().saturating_sub(BEFORE.load(Ordering::SeqCst))
    }

    fn answer(question: u64) -> Option<u64> {
        match question {
            Self::BEGIN => {
                Self::begin();
                Some(0)
            }
            Self::GROWTH => Some(Self::growth() as u64),
            _ => None,
        }
    }
}
