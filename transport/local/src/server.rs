//! The server's end: a socket in the rendezvous directory, and a connection for each client.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use ringway_sys::peer_credentials;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::client::is_stale;
use crate::config::LocalConfig;
use crate::connection::{Connection, HandlerFuture, Started};
use crate::directory::{Directory, OpenDirectory};
use crate::error::DirectoryError;
use crate::rendezvous::Rendezvous;

/// Answers calls.
pub trait Serve: Send + Sync + fmt::Debug {
    /// What `path` (`/package.Service/Method`) leads to; asked once for each connection.
    fn resolve(&self, path: &str) -> Option<u64>;

    /// The handler of a call that was just opened.
    fn start(&self, started: Started) -> HandlerFuture;
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
    connections: Arc<Mutex<Vec<Weak<Connection>>>>,
}

impl Listener {
    /// Listens as `name`. Sockets of instances that have gone are removed.
    ///
    /// # Errors
    /// A [`DirectoryError`] that says what to do.
    pub fn bind(directory: &Directory, name: &str) -> Result<Self, DirectoryError> {
        let opened = directory.create_for(name)?;
        remove_stale_sockets(&opened);
        let file = format!("{}-{:08x}.sock", std::process::id(), next_number());
        let listener = UnixListener::bind(opened.short_path(&file)).map_err(|error| {
            DirectoryError::Create {
                path: opened.path().join(&file),
                error,
            }
        })?;
        Ok(Self {
            directory: opened,
            file,
            name: name.to_owned(),
            listener,
            connections: Arc::default(),
        })
    }

    /// The name that clients ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts clients until `shutdown` is done; then drains: clients are told to go elsewhere,
    /// and calls in flight may finish.
    pub async fn serve(
        self,
        service: Arc<dyn Serve>,
        config: LocalConfig,
        shutdown: impl Future<Output = ()>,
    ) {
        let places = Arc::new(Semaphore::new(config.max_connections));
        let config = Arc::new(config);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream, &places, &service, &config),
                    Err(error) => wait_out(&error).await,
                },
            }
        }
        let connections = Arc::clone(&self.connections);
        drop(self);
        let connections = std::mem::take(&mut *connections.lock());
        drain(connections).await;
    }

    /// A client takes its place before it has said anything: half-open ones count as well.
    fn welcome(
        &self,
        stream: UnixStream,
        places: &Arc<Semaphore>,
        service: &Arc<dyn Serve>,
        config: &Arc<LocalConfig>,
    ) {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            tracing::warn!(name = %self.name, limit = config.max_connections, "too many local connections, one turned away");
            return;
        };
        let (service, config) = (Arc::clone(service), Arc::clone(config));
        let (name, connections) = (self.name.clone(), Arc::clone(&self.connections));
        tokio::spawn(async move {
            let _place = place;
            match greet(stream, &name, service, &config).await {
                Ok(connection) => {
                    remember(&connections, &connection);
                    connection.hold_until_closed().await;
                }
                Err(reason) => tracing::warn!(%name, %reason, "a local client was turned away"),
            }
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever finds it later removes it: nothing depends on this.
        let _ = fs::remove_file(self.directory.short_path(&self.file));
    }
}

/// Notes a connection, and forgets those that have ended.
fn remember(connections: &Mutex<Vec<Weak<Connection>>>, connection: &Arc<Connection>) {
    let mut connections = connections.lock();
    connections.retain(|connection| connection.strong_count() > 0);
    connections.push(Arc::downgrade(connection));
}

async fn greet(
    stream: UnixStream,
    name: &str,
    service: Arc<dyn Serve>,
    config: &LocalConfig,
) -> Result<Arc<Connection>, String> {
    let peer = peer_credentials(stream.as_fd()).map_err(|error| error.to_string())?;
    if !config.peers.allows(peer.uid) {
        return Err(format!("uid {} is not allowed", peer.uid));
    }
    let rendezvous = Rendezvous {
        stream,
        config,
        name,
        instance: instance_number(),
        peer,
    };
    match timeout(config.handshake_timeout, rendezvous.answer(service)).await {
        Ok(answered) => answered,
        Err(_) => Err("it did not finish the handshake in time".into()),
    }
}

/// Has clients go elsewhere, waits until every call is answered, and closes.
pub async fn drain(connections: impl IntoIterator<Item = Weak<Connection>>) {
    let held: Vec<Arc<Connection>> = connections
        .into_iter()
        .filter_map(|connection| connection.upgrade())
        .collect();
    for connection in &held {
        connection.drain();
    }
    for connection in held {
        connection.until_idle().await;
        connection.close();
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

fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
