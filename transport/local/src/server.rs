//! The server's end: a socket in the rendezvous directory, and a connection for each client.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ringway_sys::{Means, PeerCredentials, peer_credentials};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::is_stale;
use crate::config::{LocalConfig, UidPolicy};
use crate::connection::{Connection, HandlerFuture, ServedMethod, Started};
use crate::directory::{Directory, OpenDirectory};
use crate::error::DirectoryError;
use crate::places::{Place, Places};
use crate::rendezvous::Rendezvous;
use crate::seldom::Seldom;

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
    directory: OpenDirectory,
    file: String,
    name: String,
    listener: UnixListener,
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
        let opened = directory.create_for(name, peers)?;
        remove_stale_sockets(&opened);
        let file = socket_file();
        let failed = |error| DirectoryError::Create {
            path: opened.path().join(&file),
            error,
        };
        let listener = UnixListener::bind(opened.short_path(&file)).map_err(failed)?;
        if peers.allows_others() {
            opened.open_to_others(&file).map_err(failed)?;
        }
        Ok(Self {
            directory: opened,
            file,
            name: name.to_owned(),
            listener,
        })
    }

    /// The name that clients ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts clients until `shutdown` is done; then drains: clients are told to go elsewhere,
    /// and calls in flight may finish. Dropped, it closes every connection.
    pub async fn serve(
        self,
        service: Arc<dyn Serve>,
        config: LocalConfig,
        shutdown: impl Future<Output = ()>,
    ) {
        let (stop, stopping) = watch::channel(false);
        let places = Arc::new(Places::new(&config, Means::of_this_process()));
        let config = Arc::new(config);
        let mut clients = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
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
                        clients.spawn(client.serve(stream, stopping.clone()));
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

    /// Serves a client until it goes, or until the server drains.
    async fn serve(self, stream: UnixStream, mut stopping: watch::Receiver<bool>) {
        let connection = match self.greet(stream).await {
            Ok(connection) => {
                connection.set_name(&self.name);
                ClosedOnDrop::new(connection)
            }
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

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever finds it later removes it: nothing depends on this.
        let _ = fs::remove_file(self.directory.short_path(&self.file));
    }
}

/// Out of descriptors: accepting again at once would only spin.
async fn wait_out(error: &io::Error) {
    tracing::warn!(%error, "can't accept a local client");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

fn remove_stale_sockets(directory: &OpenDirectory) {
    for socket in directory.sockets().unwrap_or_default() {
        let path = directory.short_path(&socket);
        let stale =
            std::os::unix::net::UnixStream::connect(&path).is_err_and(|error| is_stale(&error));
        if stale {
            // Another server may have been quicker.
            let _ = fs::remove_file(path);
        }
    }
}

/// A name that no other instance takes, in whatever container it runs: there each process is likely
/// to be number 1. The number is for people who look into the directory.
fn socket_file() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (pid, instance) = (std::process::id(), instance_number() >> 64);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{pid}-{instance:016x}-{number}.sock")
}
