//! The service that is timed, written as a user would write it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::payload::{Source, check};
use super::stubs::{Count, Payload, ours, plain};
use super::work::HandlerWork;

/// Messages that the bidi handler may have ready before it waits for its caller.
const BIDI_DEPTH: usize = 16;

/// Echoes, streams and counts payloads, after the work that `--handler-us` and its like ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handler(pub(crate) HandlerWork);

/// Each set of stubs has a trait of its own, the same in all but its path.
macro_rules! bench {
    ($stubs:ident) => {
        #[tonic::async_trait]
        impl $stubs::Bench for Handler {
            async fn unary(
                &self,
                request: Request<$stubs::Payload>,
            ) -> Result<Response<$stubs::Payload>, Status> {
                self.0.perform();
                Ok(Response::new(request.into_inner()))
            }

            type ServerStreamStream = ReadySource<$stubs::Payload>;

            async fn server_stream(
                &self,
                request: Request<$stubs::StreamRequest>,
            ) -> Result<Response<Self::ServerStreamStream>, Status> {
                let $stubs::StreamRequest { count, size_bytes } = request.into_inner();
                self.0.perform();
                ReadySource::new(count, size_bytes).map(Response::new)
            }

            async fn client_stream(
                &self,
                request: Request<Streaming<$stubs::Payload>>,
            ) -> Result<Response<$stubs::Summary>, Status> {
                let count = count(request.into_inner()).await?;
                self.0.perform();
                Ok(Response::new(count.into()))
            }

            type BidiStream = ReceiverStream<Result<$stubs::Payload, Status>>;

            async fn bidi(
                &self,
                request: Request<Streaming<$stubs::Payload>>,
            ) -> Result<Response<Self::BidiStream>, Status> {
                let (sender, receiver) = mpsc::channel(BIDI_DEPTH);
                tokio::spawn(echo(request.into_inner(), sender, self.0));
                Ok(Response::new(ReceiverStream::new(receiver)))
            }
        }
    };
}
bench!(ours);
bench!(plain);

async fn count<P: Payload>(mut payloads: Streaming<P>) -> Result<Count, Status> {
    let mut count = Count::default();
    let mut first = None;
    while let Some(payload) = payloads.message().await? {
        let expected = *first.get_or_insert(payload.sequence()) + count.messages;
        let size_bytes = payload.data().len();
        check(&payload, expected, size_bytes)
            .map_err(|mismatch| Status::data_loss(mismatch.to_string()))?;
        count.messages += 1;
        count.bytes += size_bytes as u64;
    }
    Ok(count)
}

async fn echo<P>(
    mut payloads: Streaming<P>,
    replies: mpsc::Sender<Result<P, Status>>,
    work: HandlerWork,
) {
    while let Some(reply) = payloads.message().await.transpose() {
        let last = reply.is_err();
        work.perform();
        if replies.send(reply).await.is_err() || last {
            return;
        }
    }
}

/// The ready source behind `ServerStream`: it never waits.
#[derive(Debug)]
pub(crate) struct ReadySource<P>(Source<P>);

impl<P> ReadySource<P> {
    fn new(count: u64, size_bytes: u32) -> Result<Self, Status> {
        let size_bytes = usize::try_from(size_bytes)
            .map_err(|_| Status::out_of_range("size_bytes is more than this host addresses"))?;
        Ok(ReadySource(Source::new(size_bytes, 0, count)))
    }
}

impl<P: Payload> Stream for ReadySource<P> {
    type Item = Result<P, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
