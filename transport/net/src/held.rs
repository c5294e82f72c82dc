//! A server's hold on its connections: how many there are, and their end when the server is cut off.
//!
//! tonic serves each connection in a task of its own that nobody else can end; what both sides of
//! that task share is the connection itself, so that is where the end is brought about.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// The connections of one server. Dropped, it cuts them off.
#[derive(Debug)]
pub(crate) struct Hold {
    ends: Arc<Mutex<Vec<Weak<End>>>>,
    places: Option<Arc<Semaphore>>,
}

/// Takes note of connections on behalf of a [`Hold`].
#[derive(Clone, Debug)]
pub(crate) struct Register {
    ends: Weak<Mutex<Vec<Weak<End>>>>,
    places: Option<Arc<Semaphore>>,
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
    /// Of so many connections at once.
    pub(crate) fn new(max_connections: Option<usize>) -> Self {
        Self {
            ends: Arc::default(),
            places: max_connections.map(|max| Arc::new(Semaphore::new(max))),
        }
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            ends: Arc::downgrade(&self.ends),
            places: self.places.clone(),
        }
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
    /// Takes hold of a connection, if there is a place for it; otherwise it is closed.
    pub(crate) fn hold<C>(&self, connection: C) -> Option<Held<C>> {
        let place = match &self.places {
            None => None,
            Some(places) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    tracing::warn!("too many connections, one turned away");
                    return None;
                }
            },
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
            _place: place,
        })
    }
}

/// A connection that ends when its server is cut off.
#[derive(Debug)]
pub(crate) struct Held<C> {
    connection: C,
    end: Arc<End>,
    _place: Option<OwnedSemaphorePermit>,
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
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Held<C> {
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
        Pin::new(&mut self.connection).poll_shutdown(context)
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
