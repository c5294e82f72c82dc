//! Iterators in place of streams.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::attend::{Attendance, block_on};

/// Requests that may wait to be sent.
const REQUESTS: usize = 64;

/// The responses of a call, in their order. Dropped before its end, it cancels the call.
///
/// ```no_run
/// # fn sum(responses: ringway::blocking::Responses<u64>) -> Result<u64, tonic::Status> {
/// responses.sum()
/// # }
/// ```
pub struct Responses<M> {
    /// None once the call was given up.
    stream: Option<Streaming<M>>,
    over: bool,
    /// Tells that the iterator of the call's requests panicked.
    broken: Option<CancellationToken>,
}

impl<M> Responses<M> {
    /// Waits for the next one; `None` once the call has ended well.
    ///
    /// # Errors
    /// The status that the call ended with.
    pub fn message(&mut self) -> Result<Option<M>, Status> {
        if self.over {
            return Ok(None);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let message = block_on(unless_broken(self.broken.as_ref(), stream.message()));
        self.over = !matches!(message, Ok(Some(_)));
        if message.is_err() {
            // Dropped, it cancels a call that is not over yet.
            self.stream = None;
        }
        message
    }

    /// The trailing metadata, once the responses have ended; whatever is left of them is skipped.
    ///
    /// # Errors
    /// The status that the call ended with.
    pub fn trailers(&mut self) -> Result<Option<MetadataMap>, Status> {
        match &mut self.stream {
            Some(stream) => block_on(unless_broken(self.broken.as_ref(), stream.trailers())),
            None => Ok(None),
        }
    }
}

impl<M> Iterator for Responses<M> {
    type Item = Result<M, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.message().transpose()
    }
}

impl<M> fmt::Debug for Responses<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Responses")
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// What a blocking client takes in place of a stream: anything that can be iterated over, or a
/// [`Request`] of such, with metadata and a timeout. `Kind` tells the two apart.
pub trait IntoRequests<M, Kind> {
    /// The messages.
    type Iter: Iterator<Item = M>;

    /// The messages, with what goes before them.
    fn into_requests(self) -> Request<Self::Iter>;
}

/// The [`IntoRequests`] of messages without more.
#[derive(Debug)]
pub enum Bare {}

/// The [`IntoRequests`] of a [`Request`].
#[derive(Debug)]
pub enum WithHead {}

impl<M, I: IntoIterator<Item = M>> IntoRequests<M, Bare> for I {
    type Iter = I::IntoIter;

    fn into_requests(self) -> Request<I::IntoIter> {
        Request::new(self.into_iter())
    }
}

impl<M, I: IntoIterator<Item = M>> IntoRequests<M, WithHead> for Request<I> {
    type Iter = I::IntoIter;

    fn into_requests(self) -> Request<I::IntoIter> {
        self.map(IntoIterator::into_iter)
    }
}

/// The requests of a call as a stream. It ends where their iterator did; where that panicked it does
/// not end at all, because its end would tell the handler that all is there.
#[derive(Debug)]
pub struct Requests<M>(mpsc::Receiver<Option<M>>);

impl<M> Stream for Requests<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        match ready!(self.0.poll_recv(context)) {
            Some(next) => Poll::Ready(next),
            None => Poll::Pending,
        }
    }
}

/// Waits for a stream of responses to begin.
pub fn responses<M>(
    call: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
) -> Result<Response<Responses<M>>, Status> {
    responses_unless_broken(call, None)
}

fn responses_unless_broken<M>(
    call: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    broken: Option<CancellationToken>,
) -> Result<Response<Responses<M>>, Status> {
    let response = block_on(unless_broken(broken.as_ref(), call))?;
    Ok(response.map(|stream| Responses {
        stream: Some(stream),
        over: false,
        broken,
    }))
}

async fn unless_broken<T>(
    broken: Option<&CancellationToken>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(broken) = broken else {
        return work.await;
    };
    tokio::select! {
        done = work => done,
        () = broken.cancelled() => Err(Status::cancelled("the iterator of the call's requests panicked")),
    }
}

/// Makes a call with a stream of requests and one response. The requests are taken on this thread.
pub fn upload<M, K, R, F>(
    requests: impl IntoRequests<M, K>,
    call: impl FnOnce(Request<Requests<M>>) -> F,
) -> Result<Response<R>, Status>
where
    R: Send + 'static,
    F: Future<Output = Result<Response<R>, Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(REQUESTS);
    let (metadata, extensions, messages) = requests.into_requests().into_parts();
    let request = Request::from_parts(metadata, extensions, Requests(receiver));
    // A task, so that requests are on their way while the next one is made.
    let answer = AbortOnDrop(Attendance::get().runtime.spawn(call(request)));
    for next in messages.map(Some).chain([None]) {
        if let Err(full) = sender.try_send(next)
            && block_on(sender.send(full.into_inner())).is_err()
        {
            // Answered before its end.
            break;
        }
    }
    answer.wait()
}

/// A task that ends when nobody waits for it any more: an iterator of requests may panic.
struct AbortOnDrop<T>(tokio::task::JoinHandle<Result<T, Status>>);

impl<T> AbortOnDrop<T> {
    fn wait(mut self) -> Result<T, Status> {
        let ended = block_on(&mut self.0);
        ended.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Status::cancelled(error.to_string())),
        })
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes a call with a stream of requests and a stream of responses. The requests are taken on a
/// thread of their own: an iterator may wait for the responses to those before.
pub fn exchange<M, K, I, R, F>(
    requests: I,
    call: impl FnOnce(Request<Requests<M>>) -> F,
) -> Result<Response<Responses<R>>, Status>
where
    M: Send + 'static,
    I: IntoRequests<M, K, Iter: Send + 'static>,
    F: Future<Output = Result<Response<Streaming<R>>, Status>>,
{
    let (sender, receiver) = mpsc::channel(REQUESTS);
    let (metadata, extensions, messages) = requests.into_requests().into_parts();
    let request = Request::from_parts(metadata, extensions, Requests(receiver));
    let broken = CancellationToken::new();
    let panics = broken.clone().drop_guard();
    let feeder = move || {
        for next in messages.map(Some).chain([None]) {
            if sender.blocking_send(next).is_err() {
                // Answered before its end.
                break;
            }
        }
        panics.disarm();
    };
    thread::Builder::new()
        .name("ringway-requests".to_owned())
        .spawn(feeder)
        .map_err(|error| {
            Status::resource_exhausted(format!("no thread for the requests: {error}"))
        })?;
    responses_unless_broken(call(request), Some(broken))
}
