//! One instance of a server: connected, and connected again with gRPC's backoff.
//!
//! tonic reconnects by itself, but at once and without an end; so each of its channels is given one
//! connection, and what follows that one is decided here.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

use super::pause::Pause;
use super::watched::{Life, Pulse, Watched};
use crate::ClientTuning;
use crate::backoff::{Backoff, BackoffOptions};
use crate::outlier::Record;
use crate::spawn::spawn;

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The channel was given one connection, and that one is over. Nothing of the call was sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is over")]
pub(crate) struct ConnectionOver;

/// What all instances of a server are connected with.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) endpoint: Endpoint,
    pub(crate) nodelay: bool,
    pub(crate) tuning: ClientTuning,
    pub(crate) min_connect_timeout: Duration,
    pub(crate) backoff: BackoffOptions,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) address: Address,
    pub(crate) record: Record,
    state: Mutex<State>,
    /// Between two attempts to connect.
    pause: Arc<Pause>,
    /// Told of each change that may let a call go on.
    changed: Arc<Notify>,
    /// Told when the instance was lost or can't be reached.
    astray: Arc<Notify>,
    connector: Arc<Connector>,
    /// A task keeps it connected.
    kept: AtomicBool,
}

/// What an instance can do for a call.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// It may soon be connected.
    Connecting,
    /// It takes calls.
    Ready(Transport),
    /// It could not be connected; it is tried again later, and until that succeeds calls that do
    /// not wait fail.
    Failed(Arc<str>),
}

/// One HTTP/2 connection.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) channel: Channel,
    pulse: Pulse,
}

impl Subchannel {
    /// Begins to connect; goes on for as long as the subchannel is held. Within a tokio runtime.
    pub(crate) fn start(
        address: Address,
        connector: &Arc<Connector>,
        changed: &Arc<Notify>,
        astray: &Arc<Notify>,
    ) -> Arc<Self> {
        let subchannel = Arc::new(Self {
            address,
            record: Record::default(),
            state: Mutex::new(State::Connecting),
            pause: Arc::default(),
            changed: Arc::clone(changed),
            astray: Arc::clone(astray),
            connector: Arc::clone(connector),
            kept: AtomicBool::new(false),
        });
        subchannel.keep();
        subchannel
    }

    /// Has a task keep it connected, if the one that did has ended with its runtime, and its connection with it.
    /// Within a tokio runtime.
    pub(crate) fn keep(self: &Arc<Self>) {
        if self.kept.load(Ordering::Relaxed) || self.kept.swap(true, Ordering::SeqCst) {
            return;
        }
        let kept = Kept(Arc::downgrade(self));
        let (address, connector) = (self.address.clone(), Arc::clone(&self.connector));
        spawn(async move { keep_connected(&kept.0, address, connector).await });
    }

    /// What it can do for a call.
    pub(crate) fn state(&self) -> State {
        let mut state = self.state.lock();
        if let State::Ready(transport) = &*state
            && transport.pulse.is_over()
        {
            *state = State::Connecting;
        }
        state.clone()
    }

    /// Takes note of a call that no instance takes: connects anew where that is due. Returns true while
    /// the call should wait for what comes of it.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(*self.state.lock(), State::Failed(_)) && self.pause.cut_short()
    }

    fn enter(&self, state: State) {
        *self.state.lock() = state;
        self.changed.notify_waiters();
    }
}

/// A task that keeps a subchannel connected, until it ends.
struct Kept(Weak<Subchannel>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(subchannel) = self.0.upgrade() {
            subchannel.kept.store(false, Ordering::SeqCst);
            // A call that comes now has it connected anew.
            subchannel.enter(State::Connecting);
        }
    }
}

async fn keep_connected(
    subchannel: &Weak<Subchannel>,
    address: Address,
    connector: Arc<Connector>,
) {
    let mut backoff = Backoff::new(connector.backoff);
    while subchannel.strong_count() > 0 {
        let began = Instant::now();
        let delays = backoff.next_delays();
        // "MIN_CONNECT_TIMEOUT": a long backoff allows a long attempt.
        let limit = delays.at_most.max(connector.min_connect_timeout);
        let connected = match timeout(limit, connect(&address, &connector)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("nothing came of it within {limit:?}")),
        };
        match connected {
            Ok(transport) => {
                backoff.reset();
                let pulse = transport.pulse.clone();
                let Some(held) = subchannel.upgrade() else {
                    return;
                };
                held.enter(State::Ready(transport));
                drop(held);
                pulse.reached(Life::Over).await;
                let Some(held) = subchannel.upgrade() else {
                    return;
                };
                held.enter(State::Connecting);
                held.astray.notify_one();
            }
            Err(reason) => {
                tracing::debug!(%address, %reason, "can't connect");
                let Some(held) = subchannel.upgrade() else {
                    return;
                };
                let pause = Arc::clone(&held.pause);
                pause.begin(began, delays);
                held.enter(State::Failed(format!("{address}: {reason}").into()));
                held.astray.notify_one();
                drop(held);
                pause.over().await;
            }
        }
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects, and waits until the server has said something: a port forwarder accepts for anybody.
async fn connect(address: &Address, connector: &Connector) -> Result<Transport, String> {
    let (pulse, used) = (Pulse::default(), Arc::new(AtomicBool::new(false)));
    let dial = {
        let (address, pulse, nodelay) = (address.clone(), pulse.clone(), connector.nodelay);
        let tuning = connector.tuning.clone();
        tower::service_fn(move |_uri: http::Uri| {
            let (address, pulse, tuning) = (address.clone(), pulse.clone(), tuning.clone());
            let again = used.swap(true, Ordering::SeqCst);
            async move {
                if again {
                    // tonic found the connection closed, maybe by a GOAWAY that lets calls finish.
                    pulse.advance(Life::Over);
                    return Err(ConnectionOver.into());
                }
                Ok::<_, BoxError>(dial(&address, nodelay, &tuning, pulse).await?)
            }
        })
    };
    let channel = connector.endpoint.connect_with_connector(dial).await;
    let channel = channel.map_err(|error| innermost(&error))?;
    match pulse.reached(Life::Alive).await {
        Life::Over => Err("the server closed the connection at once".into()),
        _ => Ok(Transport { channel, pulse }),
    }
}

async fn dial(
    address: &Address,
    nodelay: bool,
    tuning: &ClientTuning,
    pulse: Pulse,
) -> io::Result<TokioIo<Watched>> {
    match address {
        Address::Tcp(address) => {
            let stream = tuning.connect(*address).await?;
            stream.set_nodelay(nodelay)?;
            Ok(Watched::new(stream, pulse))
        }
        Address::Unix(path) => Ok(Watched::new(UnixStream::connect(path).await?, pulse)),
    }
}

/// What the kernel or TLS said, without the wrappers around it.
fn innermost(error: &tonic::transport::Error) -> String {
    let mut inner: &dyn StdError = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
