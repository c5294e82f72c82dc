//! A client's connections to all instances of a server, and which one takes a call.
//!
//! As gRPC's `round_robin` does it: every address that the name resolves to is connected, calls go
//! to those that are connected in turn, and those that are lost are connected again with backoff,
//! while the others take their calls.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `resolver.rs` | from a name to addresses |
//! | `subchannel.rs` | one address: connecting, backoff |
//! | `pause.rs` | the time between two attempts, cut short by calls |
//! | `watched.rs` | one connection, and how it is doing |

mod pause;
mod resolver;
mod subchannel;
mod watched;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::Service;

use self::pause::{PATIENCE, Pause};
pub use self::resolver::{Resolve, Resolving, SystemResolver};
pub(crate) use self::subchannel::ConnectionOver;
use self::subchannel::{Address, Connector, State, Subchannel};
use crate::backoff::Backoff;
use crate::fate::came_too_late;
use crate::spawn::spawn;
use crate::{NetOptions, OutlierOptions, Target};

/// Names are not resolved anew more often than this, however many connections are lost.
const RESOLVE_PAUSE: Duration = Duration::from_millis(500);

/// Connections to all instances of a server. Cheap to clone; clones share the connections. They are
/// made when the first call is, and kept from then on.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: Target,
    connector: Arc<Connector>,
    options: NetOptions,
    started: AtomicBool,
    instances: Mutex<Instances>,
    /// Whose turn it is.
    next: AtomicUsize,
    changed: Arc<Notify>,
    astray: Arc<Notify>,
    /// What all calls go through, in place of instances.
    given: Option<Channel>,
    /// Between two attempts to resolve the name.
    unresolved: Arc<Pause>,
}

#[derive(Debug, Default)]
struct Instances {
    subchannels: Arc<[Arc<Subchannel>]>,
    /// Why no address is known.
    unresolved: Option<Arc<str>>,
}

/// The instance that takes a call.
#[derive(Clone, Debug)]
pub struct Picked {
    channel: Channel,
    /// None where a connector of the caller's own leads to the server.
    subchannel: Option<Arc<Subchannel>>,
    outliers: Option<OutlierOptions>,
}

impl Picked {
    /// What the call goes through. It has one connection, and no second one.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What carries it, as OpenTelemetry names it: `tcp` or `unix`.
    pub fn transport(&self) -> &'static str {
        match self.subchannel.as_ref().map(|found| &found.address) {
            Some(Address::Tcp(_)) | None => "tcp",
            Some(Address::Unix(_)) => "unix",
        }
    }

    /// Takes note of a call's end: an instance that fails again and again is put aside.
    pub fn note<T>(&self, ended: &Result<T, Status>) {
        if let Some(outliers) = &self.outliers
            && let Some(subchannel) = &self.subchannel
        {
            let record = &subchannel.record;
            match ended {
                Err(status) if came_too_late(status) => {}
                Err(status) if status.code() == Code::Unavailable => {
                    record.note_failed(outliers, Instant::now());
                }
                _ => record.note_served(),
            }
        }
    }
}

/// What the instances allow for a call.
enum Choice {
    Take(Picked),
    /// It may soon be possible.
    Wait,
    Fail(Status),
}

impl Pool {
    /// All calls go through `channel`, which connects as it likes.
    pub(crate) fn over(
        target: Target,
        channel: Channel,
        endpoint: Endpoint,
        options: &NetOptions,
    ) -> Self {
        Self::made(target, endpoint, options, Some(channel))
    }

    pub(crate) fn new(target: Target, endpoint: Endpoint, options: &NetOptions) -> Self {
        Self::made(target, endpoint, options, None)
    }

    fn made(
        target: Target,
        endpoint: Endpoint,
        options: &NetOptions,
        given: Option<Channel>,
    ) -> Self {
        let connector = Connector {
            endpoint,
            nodelay: options.tcp_nodelay,
            tuning: options.tuning.clone(),
            min_connect_timeout: options.connect_timeout,
            backoff: options.backoff,
        };
        Self(Arc::new(Shared {
            target,
            connector: Arc::new(connector),
            options: options.clone(),
            started: AtomicBool::new(false),
            instances: Mutex::default(),
            next: AtomicUsize::new(0),
            changed: Arc::default(),
            astray: Arc::default(),
            given,
            unresolved: Arc::default(),
        }))
    }

    /// The instance that takes the next call. Waits while one may soon be connected; while none
    /// can be, only if `wait_for_ready`.
    ///
    /// # Errors
    /// `UNAVAILABLE`, with the reason why no instance can be reached.
    pub async fn pick(&self, wait_for_ready: bool) -> Result<Picked, Status> {
        if let Some(channel) = &self.0.given {
            return Ok(Picked {
                channel: channel.clone(),
                subchannel: None,
                outliers: None,
            });
        }
        self.0.start();
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.0.choose() {
                Choice::Take(picked) => return Ok(picked),
                Choice::Fail(status) if !wait_for_ready => return Err(status),
                // A call that waits is one that comes, again and again.
                Choice::Wait | Choice::Fail(_) => drop(timeout(PATIENCE, changed).await),
            }
        }
    }
}

impl Shared {
    /// Finds the instances; at the first call, because many channels never leave their host.
    fn start(self: &Arc<Self>) {
        if self.started.load(Ordering::Relaxed) || self.started.swap(true, Ordering::SeqCst) {
            return;
        }
        match &self.target {
            Target::Unix(path) => self.set_addresses(vec![Address::Unix(path.clone())]),
            Target::Network { host, port, .. } => match literal(host, *port) {
                Some(address) => self.set_addresses(vec![Address::Tcp(address)]),
                None => {
                    let resolving = KeepsResolved(Arc::downgrade(self));
                    spawn(async move { keep_resolved(&resolving.0).await });
                }
            },
        }
    }

    /// Keeps the instances that are still named, and connects the new ones.
    fn set_addresses(&self, addresses: Vec<Address>) {
        let mut instances = self.instances.lock();
        let known = Arc::clone(&instances.subchannels);
        let mut subchannels: Vec<Arc<Subchannel>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if subchannels.iter().any(|named| named.address == address) {
                continue;
            }
            let kept = known.iter().find(|known| known.address == address);
            subchannels.push(kept.cloned().unwrap_or_else(|| {
                Subchannel::start(address, &self.connector, &self.changed, &self.astray)
            }));
        }
        *instances = Instances {
            subchannels: subchannels.into(),
            unresolved: None,
        };
        drop(instances);
        self.changed.notify_waiters();
    }

    fn note_unresolved(&self, reason: String) {
        tracing::debug!(target = %self.target, %reason, "can't resolve");
        self.instances.lock().unresolved = Some(reason.into());
        self.changed.notify_waiters();
    }

    fn choose(&self) -> Choice {
        let (subchannels, unresolved) = {
            let instances = self.instances.lock();
            (
                Arc::clone(&instances.subchannels),
                instances.unresolved.clone(),
            )
        };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut aside, mut connecting, mut failed) = (None, false, None);
        for offset in 0..subchannels.len() {
            let subchannel = &subchannels[turn.wrapping_add(offset) % subchannels.len()];
            subchannel.keep();
            match subchannel.state() {
                State::Ready(transport) => {
                    let picked = Picked {
                        channel: transport.channel,
                        subchannel: Some(Arc::clone(subchannel)),
                        outliers: self.options.outliers,
                    };
                    if !subchannel.record.is_aside(Instant::now()) {
                        return Choice::Take(picked);
                    }
                    aside = aside.or(Some(picked));
                }
                State::Connecting => connecting = true,
                State::Failed(reason) => failed = failed.or(Some(reason)),
            }
        }
        if aside.is_none() && !connecting {
            connecting = self.has_attempts_made(&subchannels, unresolved.is_some());
        }
        // Better one that fails than none.
        match (aside, connecting, failed.or(unresolved)) {
            (Some(picked), _, _) => Choice::Take(picked),
            (None, false, Some(reason)) => Choice::Fail(Status::unavailable(format!(
                "`{}` can't be reached: {reason}; is its server running, and is this its address?",
                self.target
            ))),
            (None, _, _) => Choice::Wait,
        }
    }

    /// Has instances connected, or their name resolved, for a call that none of them takes. Returns true
    /// while something may soon come of it.
    fn has_attempts_made(&self, subchannels: &[Arc<Subchannel>], is_unresolved: bool) -> bool {
        let resolving = is_unresolved && self.unresolved.cut_short();
        subchannels
            .iter()
            .fold(resolving, |soon, subchannel| subchannel.is_wanted() | soon)
    }
}

fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddr::new(host.parse().ok()?, port))
}

/// A task that resolves the server's name, until it ends: with its runtime at the earliest, and then the next call
/// has another one do it.
struct KeepsResolved(Weak<Shared>);

impl Drop for KeepsResolved {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.started.store(false, Ordering::SeqCst);
        }
    }
}

/// Resolves the server's name: at once, every interval, and when instances go astray.
async fn keep_resolved(pool: &Weak<Shared>) {
    let Some(first) = pool.upgrade() else { return };
    let Target::Network { host, port, .. } = first.target.clone() else {
        return;
    };
    let options = first.options.clone();
    let (astray, pause) = (Arc::clone(&first.astray), Arc::clone(&first.unresolved));
    drop(first);
    let mut backoff = Backoff::new(options.backoff);
    loop {
        let began = Instant::now();
        let resolved = options.resolver.resolve(&host, port).await;
        let Some(shared) = pool.upgrade() else { return };
        let addresses = match resolved {
            Ok(addresses) if addresses.is_empty() => {
                // It is an answer: no instance is left. A failure to resolve tells nothing of them.
                shared.set_addresses(Vec::new());
                Err("it has no address".to_owned())
            }
            resolved => resolved.map_err(|error| error.to_string()),
        };
        match addresses {
            Ok(addresses) => {
                backoff.reset();
                shared.set_addresses(addresses.into_iter().map(Address::Tcp).collect());
                drop(shared);
                sleep(RESOLVE_PAUSE).await;
                // What went astray meanwhile has left its note; else the interval passes.
                let _ = timeout(options.resolve_interval, astray.notified()).await;
            }
            Err(reason) => {
                pause.begin(began.into(), backoff.next_delays());
                shared.note_unresolved(format!("`{host}` can't be resolved: {reason}"));
                drop(shared);
                pause.over().await;
            }
        }
    }
}

impl Service<Request<Body>> for Pool {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pool = self.clone();
        Box::pin(async move {
            let mut picked = pool.pick(false).await?;
            poll_fn(|context| picked.poll_ready(context)).await?;
            let answered = picked.call(request).await;
            picked.note(&answered);
            answered
        })
    }
}

impl Service<Request<Body>> for Picked {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(context).map_err(status)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.channel.call(request);
        Box::pin(async move { answer.await.map_err(status) })
    }
}

/// The status of a call that the transport failed.
fn status(error: tonic::transport::Error) -> Status {
    crate::fate::mapped(Status::from_error(error.into()))
}
