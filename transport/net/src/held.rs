//! A server's hold on its connections: how many there are, and their end when the server is cut off.
//!
//! tonic serves each connection in a task of its own that nobody else can end; what both sides of
//! that task share is the connection itself, so that is where the end is brought about.
//!
//! It is also where a connection is closed such that the client hears the last words. To close a
//! socket that holds something unread resets the connection, and a client that is still sending may
//! then lose the GOAWAY that names the calls which nobody saw. So a connection that was shut down is
//! read until the client has closed as well, for a while.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use crate::seldom::Seldom;

/// How long a client may take to close a connection that the server has shut down; as with grpc-go.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may take for the first bytes of HTTP/2 (RFC 9113, 3.4): as a local handshake. From
/// then on pings tell whether it lives.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of that preface; a TLS handshake begins with more.
const PREFACE_BYTES: usize = 24;

/// The connections of one server. Dropped, it cuts them off.
#[derive(Debug)]
pub(crate) struct Hold {
    ends: Arc<Mutex<Vec<Weak<End>>>>,
    places: Places,
}

/// Takes note of connections on behalf of a [`Hold`].
#[derive(Clone, Debug)]
pub(crate) struct Register {
    ends: Weak<Mutex<Vec<Weak<End>>>>,
    places: Places,
    preface_timeout: Duration,
    /// It was said that there are too many; not again before there is room.
    is_full: Arc<AtomicBool>,
    /// Held by each connection, where a task waits for the last of them to go.
    alive: Option<mpsc::Sender<Infallible>>,
}

/// How many connections there may be, together and of each user.
#[derive(Clone, Debug, Default)]
struct Places {
    all: Option<Arc<Semaphore>>,
    of_users: Option<Users>,
}

/// How many places each user may have, and who has some.
#[derive(Clone, Debug)]
struct Users {
    limit: usize,
    places: Arc<Mutex<HashMap<u32, Weak<Semaphore>>>>,
}

impl Users {
    /// A place for a client that runs as `uid`. While it is taken, its user's other places are known.
    fn take(&self, uid: u32) -> Option<(OwnedSemaphorePermit, Arc<Semaphore>)> {
        let mut places = self.places.lock();
        places.retain(|_, of_user| of_user.strong_count() > 0);
        let known = places.get(&uid).and_then(Weak::upgrade);
        let of_user = known.unwrap_or_else(|| {
            let of_user = Arc::new(Semaphore::new(self.limit));
            places.insert(uid, Arc::downgrade(&of_user));
            of_user
        });
        let place = Arc::clone(&of_user).try_acquire_owned().ok()?;
        Some((place, of_user))
    }
}

/// How a connection learns that it is over.
#[derive(Debug, Default)]
struct End {
    over: AtomicBool,
    reader: AtomicWaker,
}

impl End {
    fn bring_about(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.reader.wake();
    }
}

impl Hold {
    /// Of so many connections at once, and of so many of each user where a Unix socket tells who that is.
    pub(crate) fn new(max_connections: Option<usize>, max_per_uid: Option<usize>) -> Self {
        let users = |limit| Users {
            limit,
            places: Arc::default(),
        };
        Self {
            ends: Arc::default(),
            places: Places {
                all: max_connections.map(|max| Arc::new(Semaphore::new(max))),
                of_users: max_per_uid.map(users),
            },
        }
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            ends: Arc::downgrade(&self.ends),
            places: self.places.clone(),
            preface_timeout: PREFACE_TIMEOUT,
            is_full: Arc::default(),
            alive: None,
        }
    }

    /// A register, and a future that is done when it and all of its connections have gone.
    pub(crate) fn register_until_gone(&self) -> (Register, impl Future<Output = ()> + use<>) {
        let (alive, mut gone) = mpsc::channel(1);
        let register = Register {
            alive: Some(alive),
            ..self.register()
        };
        (register, async move {
            gone.recv().await;
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for end in self.ends.lock().drain(..).filter_map(|end| end.upgrade()) {
            end.bring_about();
        }
    }
}

impl Register {
    /// Takes hold of a connection, of a client that runs as `uid` if that is known, if there is a place
    /// for it; otherwise it is closed.
    pub(crate) fn hold<C>(&self, connection: C, uid: Option<u32>) -> Option<Held<C>> {
        let place = match &self.places.all {
            None => None,
            Some(places) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => {
                    self.is_full.store(false, Ordering::Relaxed);
                    Some(place)
                }
                Err(_) => {
                    if !self.is_full.swap(true, Ordering::Relaxed) {
                        tracing::warn!("too many connections, further ones are turned away");
                    }
                    return None;
                }
            },
        };
        let of_user = match (&self.places.of_users, uid) {
            (Some(users), Some(uid)) => match users.take(uid) {
                Some(of_user) => Some(of_user),
                None => {
                    static TOLD: Seldom = Seldom::new();
                    if TOLD.is_due() {
                        tracing::warn!(uid, "too many connections of one user, one turned away");
                    }
                    return None;
                }
            },
            _ => None,
        };
        let end = Arc::new(End::default());
        match self.ends.upgrade() {
            Some(ends) => {
                let mut ends = ends.lock();
                if ends.len() == ends.capacity() {
                    ends.retain(|end| end.strong_count() > 0);
                }
                ends.push(Arc::downgrade(&end));
            }
            None => end.bring_about(),
        }
        Some(Held {
            connection,
            end,
            preface: Some(Preface::begin(self.preface_timeout)),
            lingering: None,
            _place: place,
            _of_user: of_user,
            _alive: self.alive.clone(),
        })
    }
}

/// A connection that ends when its server is cut off.
#[derive(Debug)]
pub(crate) struct Held<C> {
    connection: C,
    end: Arc<End>,
    /// Until the client has shown that it speaks.
    preface: Option<Preface>,
    /// From when it was shut down.
    lingering: Option<Pin<Box<Sleep>>>,
    _place: Option<OwnedSemaphorePermit>,
    _of_user: Option<(OwnedSemaphorePermit, Arc<Semaphore>)>,
    _alive: Option<mpsc::Sender<Infallible>>,
}

/// What a client has to say first, and by when.
#[derive(Debug)]
struct Preface {
    missing: usize,
    overdue: Pin<Box<Sleep>>,
}

impl Preface {
    fn begin(timeout: Duration) -> Self {
        Self {
            missing: PREFACE_BYTES,
            overdue: Box::pin(sleep(timeout)),
        }
    }
}

impl<C: AsyncRead + Unpin> Held<C> {
    /// Reads on, and forgets what comes, until the client closes or has had its time.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let lingering = self
            .lingering
            .get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut unwanted = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut *self).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl<C: Connected> Connected for Held<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Held<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.end.reader.register(context.waker());
        if self.end.over.load(Ordering::SeqCst) {
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the server was cut off");
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(context, buffer);
        if let Some(preface) = &mut self.preface {
            let came = buffer.filled().len() - before;
            preface.missing = preface.missing.saturating_sub(came);
            if preface.missing == 0 {
                self.preface = None;
            } else if preface.overdue.as_mut().poll(context).is_ready() {
                let what = "the client did not begin to speak HTTP/2 in time";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
        }
        polled
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Held<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.connection).poll_shutdown(context))?;
        }
        self.poll_linger(context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn held(hold: &Hold) -> (Held<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(64);
        (hold.register().hold(server, None).unwrap(), client)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_shut_down_is_read_until_the_client_closes() {
        let hold = Hold::new(None, None);
        let (mut held, mut client) = held(&hold);
        client.write_all(b"a late call").await.unwrap();
        let mut shutting = std::pin::pin!(held.shutdown());
        assert!(poll!(&mut shutting).is_pending());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.write_all(&[0; 64]).await.unwrap();
        assert!(poll!(&mut shutting).is_pending());
        // There is room again only if that was read.
        client.write_all(&[0; 64]).await.unwrap();
        drop(client);
        let began = tokio::time::Instant::now();
        shutting.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// Reads until something or nothing more comes, and for how long.
    async fn read_for(held: &mut Held<DuplexStream>) -> (io::Result<usize>, Duration) {
        let began = tokio::time::Instant::now();
        let read = held.read(&mut [0; 64]).await;
        (read, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_to_speak_is_cut_off() {
        let hold = Hold::new(None, None);
        let (mut silent, _client) = held(&hold);
        let (read, took) = read_for(&mut silent).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(took, PREFACE_TIMEOUT);

        // So is one that begins, and says no more.
        let (mut slow, mut client) = held(&hold);
        client.write_all(&[b'P'; PREFACE_BYTES - 1]).await.unwrap();
        assert_eq!(read_for(&mut slow).await.0.unwrap(), PREFACE_BYTES - 1);
        let (read, took) = read_for(&mut slow).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(took, PREFACE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_begun_may_be_silent() {
        let hold = Hold::new(None, None);
        let (mut held, mut client) = held(&hold);
        client.write_all(&[b'P'; PREFACE_BYTES]).await.unwrap();
        assert_eq!(read_for(&mut held).await.0.unwrap(), PREFACE_BYTES);
        let later = async {
            tokio::time::sleep(100 * PREFACE_TIMEOUT).await;
            client.write_all(b"x").await.unwrap();
        };
        let (read, ()) = tokio::join!(read_for(&mut held), later);
        assert_eq!(read.0.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_is_not_waited_for() {
        let hold = Hold::new(None, None);
        let (mut held, mut client) = held(&hold);
        let began = tokio::time::Instant::now();
        let going_on = async {
            for _ in 0..100 {
                client.write_all(&[0; 64]).await.unwrap();
                tokio::time::advance(LINGER / 10).await;
            }
        };
        tokio::select! {
            shut = held.shutdown() => shut.unwrap(),
            () = going_on => {}
        }
        assert!(began.elapsed() < 2 * LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_off_ends_the_lingering() {
        let hold = Hold::new(None, None);
        let (mut held, _client) = held(&hold);
        let began = tokio::time::Instant::now();
        let mut shutting = std::pin::pin!(poll_fn(|context| {
            Pin::new(&mut held).poll_shutdown(context)
        }));
        assert!(poll!(&mut shutting).is_pending());
        drop(hold);
        shutting.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
