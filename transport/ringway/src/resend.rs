//! A stream of requests that can be read again from its beginning: as long as it is short enough to
//! be kept, and until an answer commits the call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use prost::Message;
use ringway_net::Kept;
use tokio_stream::Stream;

/// A stream of requests, and those that were read already.
pub(crate) struct Requests<S: Stream>(Arc<Mutex<Source<S>>>);

struct Source<S: Stream> {
    /// `None` once the one reader that is left has taken it along.
    stream: Option<Pin<Box<S>>>,
    kept: Vec<Arc<S::Item>>,
    kept_bytes: usize,
    limit_bytes: usize,
    /// Which attempt reads.
    reader: u64,
    committed: bool,
}

impl<S> Requests<S>
where
    S: Stream,
    S::Item: Message,
{
    /// Keeps up to `limit_bytes` of messages.
    pub(crate) fn new(stream: S, limit_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Source {
            stream: Some(Box::pin(stream)),
            kept: Vec::new(),
            kept_bytes: 0,
            limit_bytes,
            reader: 0,
            committed: false,
        })))
    }

    /// The requests from the first on, for another attempt. What read them before gets no more.
    pub(crate) fn reader(&self) -> Reader<S> {
        let mut source = self.0.lock();
        source.reader += 1;
        Reader {
            source: Arc::clone(&self.0),
            number: source.reader,
            next: 0,
            own: None,
        }
    }

    /// Whether all that was read is still there.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        !self.0.lock().committed
    }

    /// The call will not be sent again.
    pub(crate) fn commit(&self) {
        self.0.lock().committed = true;
    }
}

/// One attempt's requests.
pub(crate) struct Reader<S: Stream> {
    source: Arc<Mutex<Source<S>>>,
    number: u64,
    next: usize,
    /// The stream itself, once nothing is kept any more.
    own: Option<Pin<Box<S>>>,
}

impl<S> Stream for Reader<S>
where
    S: Stream,
    S::Item: Message,
{
    type Item = Kept<S::Item>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(own) = &mut self.own {
            return own
                .as_mut()
                .poll_next(context)
                .map(|item| item.map(Kept::Own));
        }
        let this = &mut *self;
        let mut source = this.source.lock();
        if source.reader != this.number {
            // Another attempt reads: this one's must not seem complete.
            return Poll::Pending;
        }
        if let Some(kept) = source.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Kept::Shared(Arc::clone(kept))));
        }
        if source.committed {
            source.kept = Vec::new();
            this.own = source.stream.take();
            drop(source);
            return match &mut this.own {
                Some(own) => own
                    .as_mut()
                    .poll_next(context)
                    .map(|item| item.map(Kept::Own)),
                None => Poll::Ready(None),
            };
        }
        let Some(stream) = &mut source.stream else {
            return Poll::Ready(None);
        };
        let Some(message) = ready!(stream.as_mut().poll_next(context)) else {
            // Dropped as soon as it has ended: it may hold what others wait for.
            source.stream = None;
            return Poll::Ready(None);
        };
        this.next += 1;
        Poll::Ready(Some(source.keep(message)))
    }
}

impl<S> Source<S>
where
    S: Stream,
    S::Item: Message,
{
    fn keep(&mut self, message: S::Item) -> Kept<S::Item> {
        // An empty message takes room as well.
        let len = message.encoded_len() + size_of::<S::Item>();
        if self.kept_bytes + len > self.limit_bytes {
            self.committed = true;
            self.kept = Vec::new();
            return Kept::Own(message);
        }
        self.kept_bytes += len;
        let message = Arc::new(message);
        self.kept.push(Arc::clone(&message));
        Kept::Shared(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    use ringway_net::Outgoing;
    use tokio_stream::StreamExt;

    fn words() -> impl Stream<Item = String> {
        tokio_stream::iter(["a", "b", "c"].map(str::to_owned))
    }

    async fn read<S: Stream<Item = String>>(reader: &mut Reader<S>, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            text += reader.next().await.unwrap().message();
        }
        text
    }

    #[tokio::test]
    async fn a_second_reader_begins_again() {
        let requests = Requests::new(words(), 1000);
        let mut first = requests.reader();
        assert_eq!(read(&mut first, 2).await, "ab");
        let mut second = requests.reader();
        assert_eq!(read(&mut second, 3).await, "abc");
        assert!(second.next().await.is_none());
        assert!(futures_util::poll!(pin!(first.next())).is_pending());
        assert!(requests.may_be_sent_again());
    }

    #[tokio::test]
    async fn what_is_committed_is_read_to_its_end() {
        let requests = Requests::new(words(), 1000);
        let mut first = requests.reader();
        assert_eq!(read(&mut first, 2).await, "ab");
        let mut second = requests.reader();
        requests.commit();
        assert_eq!(read(&mut second, 3).await, "abc");
        assert!(second.next().await.is_none());
        assert!(!requests.may_be_sent_again());
    }

    #[tokio::test]
    async fn what_grows_too_large_to_keep_is_committed() {
        let limit = 2 * (size_of::<String>() + "a".to_owned().encoded_len());
        let requests = Requests::new(words(), limit);
        let mut reader = requests.reader();
        assert_eq!(read(&mut reader, 2).await, "ab");
        assert!(requests.may_be_sent_again());
        assert_eq!(read(&mut reader, 1).await, "c");
        assert!(!requests.may_be_sent_again());
        assert!(reader.next().await.is_none());
    }
}
