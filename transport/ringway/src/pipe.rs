//! Two pipes as a way to another process, for the public.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use ringway_local::{Connection, LocalConfig};
use tokio::sync::OnceCell;

use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::path::Path;

/// One end of a way to another process: a pipe to read from, and one to write to.
///
/// A parent that starts its server as a [`Child`](crate::Child), and a child that calls
/// [`serve_pipe`](crate::Server::serve_pipe), need not know of it. It is for pipes that come
/// about in another way: from an inherited descriptor, a FIFO, or the standard streams of a program
/// behind `ssh` or `docker run -i` (where nothing else may print to standard output then).
///
/// ```
/// use ringway::{Pipe, Server};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (here, there) = Pipe::pair()?;
/// let server = Server::builder().pipe(there).bind().await?;
/// let serving = tokio::spawn(server.serve());
/// let channel = here.connect().await?;
/// assert_eq!(channel.path(), ringway::Path::Pipe);
/// drop(channel); // hangs up, and with its last pipe the server ends
/// serving.await??;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Pipe(pub(crate) ringway_local::Pipe);

impl Pipe {
    /// Reads from one pipe and writes to another: those that somebody else has made. Each is a
    /// pipe(7) or a FIFO, and its open file stops blocking once it is used.
    pub fn new(reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Self {
        Self(ringway_local::Pipe::new(reader, writer))
    }

    /// Both ends of a new way.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (here, there) = ringway_local::Pipe::pair()?;
        Ok((Self(here), Self(there)))
    }

    /// The pipes with which a parent started this process as its [`Child`](crate::Child). To be
    /// taken over once, and early: until then the programs that this one starts inherit them.
    ///
    /// # Errors
    /// [`Error::Pipe`]: no parent made any, or they were taken over or closed before.
    pub fn from_parent() -> Result<Self, Error> {
        Ok(Self(ringway_local::Pipe::from_parent()?))
    }

    /// A channel to whoever serves at the other end. Once that has gone, calls end `UNAVAILABLE`
    /// for ever. Within a tokio runtime. Settings are those of [`Endpoint::from`] the pipe.
    ///
    /// # Errors
    /// [`Error::Local`]: the descriptors are no pipes, or the handshake failed.
    pub async fn connect(self) -> Result<Channel, Error> {
        Endpoint::from(self).connect().await
    }
}

/// The server at the other end. All channels to it share the pipe.
impl From<Pipe> for Endpoint {
    fn from(pipe: Pipe) -> Self {
        Self::over(WayByPipe {
            unused: Mutex::new(Some(pipe.0)),
            connection: OnceCell::new(),
        })
    }
}

/// What an endpoint has of a pipe: it leads to one connection, and to none after that.
#[derive(Debug)]
pub(crate) struct WayByPipe {
    unused: Mutex<Option<ringway_local::Pipe>>,
    connection: OnceCell<Arc<Connection>>,
}

impl WayByPipe {
    /// One that is used already.
    #[cfg(feature = "plugins")]
    pub(crate) fn connected(connection: Arc<Connection>) -> Self {
        Self {
            unused: Mutex::new(None),
            connection: OnceCell::new_with(Some(connection)),
        }
    }

    /// The one connection that there is.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        config: &LocalConfig,
    ) -> Result<Arc<Connection>, Error> {
        let connection = match self.connection.get() {
            Some(connection) => Arc::clone(connection),
            None => self.connected_apart(config).await?,
        };
        if connection.takes_calls() {
            return Ok(connection);
        }
        Err(forced(match connection.why_closed() {
            Some(why) => why.to_string(),
            None => "the peer takes no new calls".to_owned(),
        }))
    }

    /// Connects in a task of its own: the call that waits for it may be given up, and the pipe is used by then.
    async fn connected_apart(
        self: &Arc<Self>,
        config: &LocalConfig,
    ) -> Result<Arc<Connection>, Error> {
        let (way, config) = (Arc::clone(self), config.clone());
        let connecting = ringway_local::runtime::spawn(async move {
            let connection = way.connection.get_or_try_init(|| way.connect(&config));
            connection.await.map(Arc::clone)
        });
        let connected = connecting.await;
        connected.unwrap_or_else(|ended| Err(forced(format!("its handshake ended: {ended}"))))
    }

    async fn connect(&self, config: &LocalConfig) -> Result<Arc<Connection>, Error> {
        let unused = self.unused.lock().take();
        let pipe = unused.ok_or_else(|| forced("its handshake has failed before".to_owned()))?;
        Ok(pipe.connect(config).await?)
    }
}

fn forced(reason: String) -> Error {
    let path = Path::Pipe;
    Error::Forced { path, reason }
}
