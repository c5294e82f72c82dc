//! Two pipes as a way to another process, one for each direction. Whoever holds the other ends is
//! the peer: nobody else can get at them, so no name leads here and no uid is asked for.
//!
//! A parent tells its child in `RINGWAY_PIPE` which descriptors the pipes are, so that standard
//! input and output stay what the child's author takes them for.

use std::future::Future;
use std::io;
#[cfg(feature = "plugins")]
use std::os::fd::{AsFd, AsRawFd};
use std::os::fd::{OwnedFd, RawFd};
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ringway_sys::{PeerCredentials, pipe as sys};
use ringway_wire::{Capabilities, Hello, Role};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::clock;
use crate::config::LocalConfig;
use crate::connection::Connection;
use crate::error::{ConnectError, PipeError};
use crate::far_end::FarEnd;
use crate::link::LinkKind;
use crate::link::stream::Stream;
use crate::link::stream::pipes::Pipes;
use crate::rendezvous::{StreamPeer, receive_hello, send_hello, start_over, text};
use crate::server::{ClosedOnDrop, Serve, instance_number};

/// Tells a child which descriptors its pipes are: `reader:identity,writer:identity`.
const VARIABLE: &str = "RINGWAY_PIPE";
/// Frames over the pipes that the hellos came by.
const PIPE: Capabilities = Capabilities(8);

/// One end of a way to another process: a pipe to read from, and one to write to.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    peer: Option<PeerCredentials>,
}

impl Pipe {
    /// Reads from one pipe and writes to another: those that somebody else has made. Each is a
    /// pipe(7) or a FIFO, and its descriptor stops blocking once it is used.
    pub fn new(reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Self {
        Self {
            reader: reader.into(),
            writer: writer.into(),
            peer: None,
        }
    }

    /// Both ends of a new way.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (there, back) = (sys::pipe()?, sys::pipe()?);
        Ok((Self::new(there.0, back.1), Self::new(back.0, there.1)))
    }

    /// The pipes with which a parent started this process, [`Child`](crate::Child). To be taken
    /// over once, and early: until then the programs that this one starts inherit them as well.
    ///
    /// # Errors
    /// No parent made any, or they were taken over or closed before.
    pub fn from_parent() -> Result<Self, PipeError> {
        let value = std::env::var(VARIABLE).map_err(|_| PipeError::NoParent)?;
        let [reader, writer] = parse(&value).ok_or(PipeError::Variable(value))?;
        let inherit = |(number, identity)| {
            sys::inherit(number, identity).map_err(|error| PipeError::Descriptor { number, error })
        };
        Ok(Self {
            reader: inherit(reader)?,
            writer: inherit(writer)?,
            peer: Some(parent()),
        })
    }

    /// What the child that gets this end is told in its environment.
    #[cfg(feature = "plugins")]
    pub(crate) fn variable(&self) -> io::Result<(&'static str, String)> {
        let one = |end: &OwnedFd| -> io::Result<String> {
            Ok(format!(
                "{}:{}",
                end.as_raw_fd(),
                sys::identity(end.as_fd())?
            ))
        };
        let value = format!("{},{}", one(&self.reader)?, one(&self.writer)?);
        Ok((VARIABLE, value))
    }

    #[cfg(feature = "plugins")]
    pub(crate) fn into_descriptors(self) -> [OwnedFd; 2] {
        [self.reader, self.writer]
    }

    #[cfg(feature = "plugins")]
    pub(crate) fn set_peer(&mut self, peer: PeerCredentials) {
        self.peer = Some(peer);
    }

    /// A client's connection to whoever serves at the other end.
    ///
    /// # Errors
    /// A [`ConnectError`]: the descriptors are no pipes, or the handshake failed.
    pub async fn connect(self, config: &LocalConfig) -> Result<Arc<Connection>, ConnectError> {
        let met = timeout(config.handshake_timeout, self.calling(config)).await;
        named("the peer", config, met)
    }

    fn calling(self, config: &LocalConfig) -> BoxFuture<'_, Result<Arc<Connection>, String>> {
        Box::pin(self.call(config, None))
    }

    pub(crate) async fn call(
        self,
        config: &LocalConfig,
        far_end: Option<Arc<FarEnd>>,
    ) -> Result<Arc<Connection>, String> {
        let mut ends = Ends::new(self)?;
        let ours = hello(Role::Client, config);
        send_hello(&mut ends.writer, &ours).await?;
        let theirs = receive_hello(&mut ends.reader).await?;
        ends.start(&ours, &theirs, config, None, far_end)
    }
}

/// Serves the client at the other end of `pipe` until it hangs up or `shutdown` is done; then
/// drains. Dropped, it closes the connection. A client that hangs up without a word is no error.
///
/// # Errors
/// A [`ConnectError`]: the descriptors are no pipes, or the handshake failed.
pub async fn serve(
    pipe: Pipe,
    service: Arc<dyn Serve>,
    config: &LocalConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConnectError> {
    let mut shutdown = pin!(shutdown);
    let connection = tokio::select! {
        () = &mut shutdown => return Ok(()),
        connection = answered(pipe, service, config) => connection?,
    };
    let Some(connection) = connection else {
        return Ok(());
    };
    let connection = ClosedOnDrop::new(connection);
    tokio::select! {
        () = connection.until_closed() => {}
        () = &mut shutdown => connection.drain().await,
    }
    Ok(())
}

/// Boxed, because [`serve`] is compiled for each kind of shutdown.
fn answered<'a>(
    pipe: Pipe,
    service: Arc<dyn Serve>,
    config: &'a LocalConfig,
) -> BoxFuture<'a, Result<Option<Arc<Connection>>, ConnectError>> {
    Box::pin(answer(pipe, service, config))
}

async fn answer(
    pipe: Pipe,
    service: Arc<dyn Serve>,
    config: &LocalConfig,
) -> Result<Option<Arc<Connection>>, ConnectError> {
    let handshake = |reason| ConnectError::Handshake {
        name: "the peer".to_owned(),
        reason,
    };
    let mut ends = Ends::new(pipe).map_err(handshake)?;
    // The client may take its time to come; once it has begun it has to go on.
    let mut first = [0];
    let begun = ends.reader.read(&mut first).await;
    if begun.map_err(|error| handshake(text(error)))? == 0 {
        return Ok(None);
    }
    let met = async {
        let mut rest = AsyncReadExt::chain(&first[..], &mut ends.reader);
        let theirs = receive_hello(&mut rest).await?;
        let ours = hello(Role::Server, config);
        // Sent before it is judged: the client, too, should learn which versions do not fit.
        send_hello(&mut ends.writer, &ours).await?;
        ends.start(&ours, &theirs, config, Some(service), None)
    };
    let met = timeout(config.handshake_timeout, met).await;
    named("the peer", config, met).map(Some)
}

/// Both pipes, while the ends meet.
struct Ends {
    reader: pipe::Receiver,
    writer: pipe::Sender,
    peer: Option<PeerCredentials>,
}

impl Ends {
    fn new(pipe: Pipe) -> Result<Self, String> {
        let no_pipe = |which| move |error| format!("the {which} end is no pipe: {error}");
        Ok(Self {
            reader: pipe::Receiver::from_owned_fd(pipe.reader).map_err(no_pipe("reading"))?,
            writer: pipe::Sender::from_owned_fd(pipe.writer).map_err(no_pipe("writing"))?,
            peer: pipe.peer,
        })
    }

    /// Frames follow the hellos.
    fn start(
        self,
        ours: &Hello,
        theirs: &Hello,
        config: &LocalConfig,
        service: Option<Arc<dyn Serve>>,
        far_end: Option<Arc<FarEnd>>,
    ) -> Result<Arc<Connection>, String> {
        let agreed = ours.negotiate(theirs).map_err(|error| error.to_string())?;
        if !agreed.capabilities.has(PIPE) {
            return Err("the peer does not know pipes".into());
        }
        let role = match service {
            Some(_) => Role::Server,
            None => Role::Client,
        };
        let core = ringway_wire::Connection::new(role, &agreed, &config.wire, clock::now());
        let reader = self.reader.into_nonblocking_fd().map_err(text)?;
        let writer = self.writer.into_nonblocking_fd().map_err(text)?;
        let stream = Stream::over_pipes(Pipes::new(reader, writer, far_end)).map_err(text)?;
        let peer = StreamPeer {
            credentials: self.peer,
            ..StreamPeer::default()
        };
        let connection = start_over(&stream, LinkKind::Pipe, core, service, peer)?;
        connection.configure(config);
        Ok(connection)
    }
}

fn hello(role: Role, config: &LocalConfig) -> Hello {
    // Two pipes lead to one server: it needs no name.
    Hello::new(role, &config.wire, instance_number(), "", PIPE)
}

/// Says in the error who it was that `met` failed with.
pub(crate) fn named<T>(
    name: &str,
    config: &LocalConfig,
    met: Result<Result<T, String>, tokio::time::error::Elapsed>,
) -> Result<T, ConnectError> {
    let name = name.to_owned();
    match met {
        Ok(Ok(met)) => Ok(met),
        Ok(Err(reason)) => Err(ConnectError::Handshake { name, reason }),
        Err(_) => Err(ConnectError::HandshakeTimeout {
            name,
            seconds: config.handshake_timeout.as_secs(),
        }),
    }
}

/// The parent, which the kernel says nothing of: this process's real user is who started it.
fn parent() -> PeerCredentials {
    PeerCredentials {
        pid: rustix::process::getppid()
            .and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    }
}

/// Number and identity of both descriptors.
fn parse(value: &str) -> Option<[(RawFd, u64); 2]> {
    let one = |end: &str| {
        let (number, identity) = end.split_once(':')?;
        Some((number.parse().ok()?, identity.parse().ok()?))
    };
    let (reader, writer) = value.split_once(',')?;
    Some([one(reader)?, one(writer)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_is_told_is_read_back() {
        let (pipe, _other) = Pipe::pair().unwrap();
        let (_, value) = pipe.variable().unwrap();
        let [reader, writer] = parse(&value).unwrap();
        assert_eq!(reader.0, pipe.reader.as_raw_fd());
        assert_eq!(writer.0, pipe.writer.as_raw_fd());
        assert_eq!(writer.1, sys::identity(pipe.writer.as_fd()).unwrap());
        for nonsense in [
            "",
            "3",
            "3,4",
            "3:1",
            "3:1,4",
            "a:1,4:2",
            "3:1,4:x",
            "3:1,4:2,5:3",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test]
    async fn what_is_no_pipe_is_refused() {
        let null = || std::fs::File::open("/dev/null").unwrap();
        let (reader, writer) = sys::pipe().unwrap();
        let config = LocalConfig::default();
        for pipe in [
            Pipe::new(null(), null()),
            Pipe::new(reader.try_clone().unwrap(), null()),
            Pipe::new(writer, reader),
        ] {
            let error = pipe.connect(&config).await.unwrap_err().to_string();
            assert!(error.contains("is no pipe"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_peer_of_another_kind_is_refused() {
        let (ours, theirs) = Pipe::pair().unwrap();
        let config = LocalConfig::default();
        let client = tokio::spawn(async move { ours.connect(&LocalConfig::default()).await });
        let mut ends = Ends::new(theirs).unwrap();
        receive_hello(&mut ends.reader).await.unwrap();
        let other = Capabilities(2);
        let hello = Hello::new(Role::Server, &config.wire, 1, "", other);
        send_hello(&mut ends.writer, &hello).await.unwrap();
        let error = client.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("does not know pipes"), "{error}");
    }
}
