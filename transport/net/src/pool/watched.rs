//! A client's connection that tells how it is doing, since tonic tells nobody, and that is read to its
//! end.
//!
//! A server that has closed may have said before which calls it has not seen, and have answered the
//! others. h2 gives all of that up when it can't write any more: whoever writes to a connection that
//! the server has closed would lose what is still there to be read. So [`Watched`] takes such writes
//! as done, and lets the reader find the end.

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
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        polled.map(|written| taken_if_closed(written, bytes.len()))
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
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        polled.map(|written| taken_if_closed(written, slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What came of a write, which counts as done if the peer has closed: reading ends then by itself.
fn taken_if_closed(written: io::Result<usize>, len: usize) -> io::Result<usize> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match written {
        Err(error)
            if matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset
            ) =>
        {
            Ok(len)
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LAST_WORDS: &[u8] = b"which calls were not seen";

    /// Writes to a peer that says its last words, and closes with some of what it got unread.
    async fn heard_after_the_end(stream: impl Stream + 'static, mut peer: impl Write) -> Vec<u8> {
        let mut watched = Watched::new(stream, Pulse::default()).into_inner();
        watched.write_all(b"unread").await.unwrap();
        peer.write_all(LAST_WORDS).unwrap();
        drop(peer);
        for _ in 0..2 {
            watched.write_all(b"too late").await.unwrap();
        }
        let mut heard = Vec::new();
        let read = async {
            let mut buffer = [0; 64];
            // It ends either way, as the kernel likes.
            while let Ok(len @ 1..) = watched.read(&mut buffer).await {
                heard.extend_from_slice(&buffer[..len]);
            }
        };
        let limit = Duration::from_secs(30);
        timeout(limit, read).await.expect("reading does not end");
        heard
    }

    #[tokio::test]
    async fn a_closed_connection_is_read_to_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        assert_eq!(heard_after_the_end(tcp, peer).await, LAST_WORDS);

        let (unix, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        unix.set_nonblocking(true).unwrap();
        let unix = UnixStream::from_std(unix).unwrap();
        assert_eq!(heard_after_the_end(unix, peer).await, LAST_WORDS);
    }
}
