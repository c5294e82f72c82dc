//! Handlers that do what a test says, and echo beside that.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ringway_proto::bench::bench_server::Bench;
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Entered, Seen, payload};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// The sequence number of messages that are echoed at once, whatever the script.
pub(crate) const PING: u64 = 0;

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;
type Script<Q, A> = Arc<dyn Fn(Request<Q>) -> Answering<A> + Send + Sync>;
pub(crate) type Payloads = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

/// A service of scripts.
#[derive(Clone)]
pub(crate) struct Scripted {
    unary: Script<Payload, Payload>,
    upload: Script<Streaming<Payload>, Summary>,
    download: Script<StreamRequest, Payloads>,
    /// Counts what the scripts handle.
    pub(crate) seen: Arc<Seen>,
}

impl Scripted {
    /// Runs `script` for unary calls that are no pings.
    pub(crate) fn unary<A>(script: impl Fn(Request<Payload>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Result<Payload, Status>> + Send + 'static,
    {
        Self {
            unary: Arc::new(move |request| Box::pin(script(request))),
            upload: Arc::new(|request| Box::pin(count(request.into_inner()))),
            download: Arc::new(|request| {
                Box::pin(async move { Ok(ready(request.get_ref().count)) })
            }),
            seen: Arc::default(),
        }
    }

    /// Echoes.
    pub(crate) fn echo() -> Self {
        Self::unary(|request| async { Ok(request.into_inner()) })
    }

    /// Runs `script` for uploads, too.
    pub(crate) fn upload<A>(
        self,
        script: impl Fn(Request<Streaming<Payload>>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = Result<Summary, Status>> + Send + 'static,
    {
        Self {
            upload: Arc::new(move |request| Box::pin(script(request))),
            ..self
        }
    }

    /// Answers with `script` where a client asks for more than one message.
    pub(crate) fn download(self, script: impl Fn() -> Payloads + Send + Sync + 'static) -> Self {
        let script = move |request: Request<StreamRequest>| {
            let count = request.get_ref().count;
            let answer = if count > 1 { script() } else { ready(count) };
            Box::pin(std::future::ready(Ok(answer))) as Answering<Payloads>
        };
        Self {
            download: Arc::new(script),
            ..self
        }
    }
}

fn ready(count: u64) -> Payloads {
    Box::pin(tokio_stream::iter(0..count).map(|sequence| Ok(payload(sequence, 16))))
}

async fn count(mut payloads: Streaming<Payload>) -> Result<Summary, Status> {
    let mut summary = Summary::default();
    while let Some(payload) = payloads.message().await? {
        summary.messages += 1;
        summary.bytes += payload.data.len() as u64;
    }
    Ok(summary)
}

#[tonic::async_trait]
impl Bench for Scripted {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        if request.get_ref().sequence == PING {
            return Ok(Response::new(request.into_inner()));
        }
        let _inside = self.seen.enter(request.get_ref().sequence);
        (self.unary)(request).await.map(Response::new)
    }

    type ServerStreamStream = Payloads;

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        (self.download)(request).await.map(Response::new)
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let _inside = self.seen.enter(PING);
        (self.upload)(request).await.map(Response::new)
    }

    type BidiStream = Payloads;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}

/// A guard that blocks its thread when it is dropped.
#[derive(Debug)]
pub(crate) struct BlocksWhenDropped {
    pub(crate) sleep: Duration,
    /// Counts it as gone once it has slept.
    pub(crate) _inside: Entered,
}

impl Drop for BlocksWhenDropped {
    fn drop(&mut self) {
        std::thread::sleep(self.sleep);
    }
}

/// Where handlers block their threads until the test lets them go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Blocks the thread.
    pub(crate) fn block(&self) {
        let (is_open, opens) = &*self.0;
        let guard = is_open.lock().unwrap();
        drop(opens.wait_while(guard, |is_open| !*is_open).unwrap());
    }

    /// Lets all go.
    pub(crate) fn open(&self) {
        let (is_open, opens) = &*self.0;
        *is_open.lock().unwrap() = true;
        opens.notify_all();
    }
}

/// Opens a gate at the end of a test, failed or not: no thread stays behind.
#[derive(Debug)]
pub(crate) struct OpensAtEnd(pub(crate) Gate);

impl Drop for OpensAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}
