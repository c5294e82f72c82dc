//! A client's connection that tells how it is doing: tonic tells nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

/// How a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    /// The peer has said nothing yet.
    Silent,
    /// The peer speaks: a server does at once, with its HTTP/2 settings.
    Alive,
    /// It is over, or takes no more calls.
    Over,
}

/// Follows a connection's life.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<watch::Sender<Life>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Life::Silent)))
    }
}

impl Pulse {
    /// A life only goes forward.
    pub(crate) fn advance(&self, life: Life) {
        self.0.send_if_modified(|known| {
            let later = *known < life;
            if later {
                *known = life;
            }
            later
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.0.borrow() == Life::Over
    }

    /// Waits until the connection has come as far as `life`; how far it is then.
    pub(crate) async fn reached(&self, life: Life) -> Life {
        let mut watching = self.0.subscribe();
        // The sender lives as long as `self` does.
        let reached = watching.wait_for(|known| *known >= life).await;
        reached.map_or(Life::Over, |known| *known)
    }
}

/// What connections are made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A connection with a pulse.
pub(crate) struct Watched {
    stream: Box<dyn Stream>,
    pulse: Pulse,
    heard: bool,
}

impl Watched {
    pub(crate) fn new(stream: impl Stream + 'static, pulse: Pulse) -> TokioIo<Self> {
        TokioIo::new(Self {
            stream: Box::new(stream),
            pulse,
            heard: false,
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.pulse.advance(Life::Over);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.heard && buffer.filled().len() > before {
            self.heard = true;
            self.pulse.advance(Life::Alive);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
