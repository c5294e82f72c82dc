//! The server's end: a socket in the rendezvous directory, and a connection for each client.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use ringway_sys::{Means, PeerCredentials, peer_credentials};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::{LocalConfig, UidPolicy};
use crate::connection::{Connection, HandlerFuture, ServedMethod, Started};
use crate::directory::Directory;
use crate::error::DirectoryError;
use crate::places::{Place, Places};
use crate::rendezvous::Rendezvous;
use crate::seldom::Seldom;
use crate::socket_file::SocketFile;

/// How often a server looks if its socket is still where clients look for it: programs that remove old
/// files and sessions that end take it away, and its clients have nowhere else to find it.
const LOOK_FOR_SOCKET_EVERY: Duration = Duration::from_secs(2);

/// Answers calls.
pub trait Serve: Send + Sync + fmt::Debug {
    /// The method at `path` (`/package.Service/Method`); asked once for each connection.
    fn resolve(&self, path: &str) -> Arc<ServedMethod>;

    /// The handler of a call that was just opened. It takes what is `started` from where it lies: that is
    /// large to move.
    fn start(&self, started: &mut Option<Started>) -> HandlerFuture;
}

/// The random number of this process, which tells it from the one before.
pub(crate) fn instance_number() -> u128 {
    static INSTANCE: OnceLock<u128> = OnceLock::new();
    *INSTANCE.get_or_init(|| {
        let half = |salt: u64| u128::from(RandomState::new().hash_one((std::process::id(), salt)));
        half(1) << 64 | half(2)
    })
}

/// A server's socket in the rendezvous directory. Its file goes away with it.
#[derive(Debug)]
pub struct Listener {
    directory: Directory,
    peers: UidPolicy,
    name: String,
    socket: SocketFile,
    /// Said that the socket can't be made anew.
    complained: bool,
}

impl Listener {
    /// Listens as `name`, where `peers` can reach it. Sockets of instances that have gone are
    /// removed.
    ///
    /// # Errors
    /// A [`DirectoryError`] that says what to do.
    pub fn bind(
        directory: &Directory,
        name: &str,
        peers: &UidPolicy,
    ) -> Result<Self, DirectoryError> {
        Ok(Self {
            socket: SocketFile::bind(directory, name, peers)?,
            directory: directory.clone(),
            peers: peers.clone(),
            name: name.to_owned(),
            complained: false,
        })
    }

    /// The name that clients ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts clients until `shutdown` is done; then drains: clients are told to go elsewhere,
    /// and calls in flight may finish. Dropped, it closes every connection.
    pub async fn serve(
        mut self,
        service: Arc<dyn Serve>,
        config: LocalConfig,
        shutdown: impl Future<Output = ()>,
    ) {
        let (stop, stopping) = watch::channel(false);
        let places = Arc::new(Places::new(&config, Means::of_this_process()));
        let config = Arc::new(config);
        let mut clients = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        let mut look = interval(LOOK_FOR_SOCKET_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = clients.join_next() => {}
                _ = look.tick() => self.keep_in_place(),
                accepted = self.socket.listener().accept() => match accepted {
                    Ok((stream, _)) => {
                        // It has its place before it has said anything: half-open ones count as well.
                        let Some((peer, place)) = self.admit(&stream, &places) else {
                            continue;
                        };
                        let client = Client {
                            name: self.name.clone(),
                            peer,
                            service: Arc::clone(&service),
                            config: Arc::clone(&config),
                            _place: place,
                        };
                        clients.spawn(client.serving(stream, stopping.clone()));
                    }
                    Err(error) => wait_out(&error).await,
                },
            }
        }
        drop(self);
        stop.send_replace(true);
        while clients.join_next().await.is_some() {}
    }
}

impl Listener {
    /// Makes the socket anew where it was taken away.
    fn keep_in_place(&mut self) {
        if self.socket.is_in_place() {
            return;
        }
        let gone = self.socket.path();
        match SocketFile::bind(&self.directory, &self.name, &self.peers) {
            Ok(socket) => {
                tracing::warn!(name = %self.name, path = %gone.display(), "the socket was taken away, made anew");
                self.socket = socket;
                self.complained = false;
            }
            Err(error) if !self.complained => {
                tracing::warn!(name = %self.name, %error, "the socket was taken away, no new client finds this server");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    /// Finds out who has come, and whether there is a place for it.
    fn admit(&self, stream: &UnixStream, places: &Arc<Places>) -> Option<(PeerCredentials, Place)> {
        let peer = peer_credentials(stream.as_fd()).map_err(|error| error.to_string());
        let admitted = peer.and_then(|peer| Ok((peer, places.take(peer.uid)?)));
        admitted
            .map_err(|reason| turned_away(&self.name, &reason))
            .ok()
    }
}

/// Says why a client is not served. One that comes again and again does not fill the log.
fn turned_away(name: &str, reason: &str) {
    static TOLD: Seldom = Seldom::new();
    if let Some(untold) = TOLD.ask(Instant::now()) {
        tracing::warn!(name, reason, untold, "a local client was turned away");
    }
}

/// What one client is served with.
struct Client {
    name: String,
    peer: PeerCredentials,
    service: Arc<dyn Serve>,
    config: Arc<LocalConfig>,
    _place: Place,
}

impl Client {
    async fn greet(&self, stream: UnixStream) -> Result<Arc<Connection>, String> {
        let (peer, config) = (self.peer, &self.config);
        if !config.peers.allows(peer.uid) {
            return Err(format!("uid {} is not allowed", peer.uid));
        }
        let rendezvous = Rendezvous {
            stream,
            config,
            name: &self.name,
            instance: instance_number(),
            peer,
        };
        let answer = rendezvous.answer(Arc::clone(&self.service));
        match timeout(config.handshake_timeout, answer).await {
            Ok(answered) => answered,
            Err(_) => Err("it did not finish the handshake in time".into()),
        }
    }

    /// Serves a client in a task. Boxed here: [`Listener::serve`] is compiled for each kind of shutdown, and this
    /// crate holds the machine code of its clients.
    fn serving(
        self,
        stream: UnixStream,
        stopping: watch::Receiver<bool>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.serve(stream, stopping))
    }

    /// Serves a client until it goes, or until the server drains.
    async fn serve(self, stream: UnixStream, mut stopping: watch::Receiver<bool>) {
        let connection = match self.greet(stream).await {
            Ok(connection) => ClosedOnDrop::new(connection),
            Err(reason) => {
                turned_away(&self.name, &reason);
                return;
            }
        };
        // The sender lives as long as the server does.
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        tokio::select! {
            () = connection.until_closed() => {}
            () = stopped => connection.drain().await,
        }
    }
}

/// A connection of a server that closes when this is dropped: a server that is cut off leaves none
/// behind that nobody serves.
#[derive(Debug)]
pub struct ClosedOnDrop(Arc<Connection>);

impl ClosedOnDrop {
    /// Takes the responsibility for `connection`.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self(connection)
    }

    /// Waits until the connection has ended.
    pub(crate) async fn until_closed(&self) {
        Arc::clone(&self.0).hold_until_closed().await;
    }

    /// Drains the connection.
    pub async fn drain(&self) {
        self.0.drain().await;
    }
}

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Out of descriptors: accepting again at once would only spin.
async fn wait_out(error: &io::Error) {
    tracing::warn!(%error, "can't accept a local client");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}
