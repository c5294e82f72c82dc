//! A client's way to a server: the best path that works, chosen anew when it breaks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use ringway_local::{Connection, Links, clock, fork};
use ringway_net::{Picked, Pool, rt};
use tonic::codegen::StdError;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Status};

use crate::admission::{Admission, Admitted};
use crate::balance::Members;
use crate::context;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::instances::{Instance, Instances, Stay};
use crate::locate::is_elsewhere;
use crate::metadata;
use crate::path::Path;
use crate::retry::{Retries, WaitForReady};
use crate::stats::{self, Course};

/// How long a local server that was not there is not looked for again.
pub(crate) const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
const INHERITED: &str = "the channel was made by the process from which this one was forked: make one of its own after the fork";

/// Calls a server over the best path that works.
///
/// Cheap to clone; all clones share their connections. A channel that lost its local server goes
/// on over the network, keeps looking, and comes back.
///
/// ```no_run
/// # #[tokio::main] async fn main() -> Result<(), ringway::Error> {
/// let channel = ringway::Endpoint::new("catalog:50051")?.connect().await?;
/// // let mut client = CatalogClient::new(channel);
/// # drop(channel); Ok(()) }
/// ```
#[derive(Debug)]
pub struct Channel {
    pub(crate) shared: Arc<Shared>,
    /// Where this clone's last local call went, so that a hot call takes no lock to find it.
    stay: Option<Stay>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) retries: Retries,
    pub(crate) net: Option<Pool>,
    pub(crate) instances: Instances,
    /// A task looks for further instances.
    pub(crate) looking: AtomicBool,
    pub(crate) local: Mutex<Local>,
    /// One task connects, the others wait for what it finds.
    pub(crate) connecting: tokio::sync::Mutex<()>,
    pub(crate) admission: Option<Admission>,
    /// How calls name the client on local paths, where it asked for a name.
    user_agent: Option<HeaderValue>,
    /// Where calls go, in place of a way of its own.
    members: Option<Arc<Members>>,
    /// Why no call is made.
    refused: Option<Arc<str>>,
    /// Tells the process that made it from its forked children.
    generation: u32,
    pub(crate) course: Course,
}

#[derive(Debug, Default)]
pub(crate) struct Local {
    pub(crate) absent_until: Option<Instant>,
    /// Why no local path leads to the server.
    pub(crate) why: Option<Arc<str>>,
    pub(crate) warned: bool,
    pub(crate) told: bool,
}

impl Clone for Channel {
    fn clone(&self) -> Self {
        let stay = self.stay.as_ref().filter(|stay| stay.holds_for_clones());
        Self {
            shared: Arc::clone(&self.shared),
            stay: stay.cloned(),
        }
    }
}

/// Where a call goes, and its permission to go there where that is another channel's to give.
pub(crate) struct Routed<W> {
    pub(crate) to: W,
    pub(crate) admitted: Option<Admitted>,
    /// The channel that leads there, where it is another one: its settings hold for the call.
    pub(crate) member: Option<Arc<Shared>>,
}

impl<W> Routed<W> {
    /// By a way of the channel's own: it was asked for permission before.
    pub(crate) fn own(to: W) -> Self {
        Self {
            to,
            admitted: None,
            member: None,
        }
    }
}

/// Where a call goes.
pub(crate) enum Route {
    Local(Arc<Instance>),
    Net(Picked),
}

impl Channel {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, Error> {
        endpoint.check()?;
        let net = endpoint.pool()?;
        Ok(Self::made(Shared {
            net,
            ..Shared::of(endpoint)
        }))
    }

    /// Over the network alone, by a way that is there.
    pub(crate) fn through(endpoint: Endpoint, net: Pool) -> Self {
        Self::made(Shared {
            net: Some(net),
            ..Shared::of(endpoint)
        })
    }

    /// Makes no call: what was asked for can't be had, and less would not be what was asked for.
    pub(crate) fn refusing(endpoint: Endpoint, error: &Error) -> Self {
        Self::made(Shared {
            refused: Some(format!("{error:?}").into()),
            ..Shared::of(endpoint)
        })
    }

    /// Has its calls go where others lead.
    pub(crate) fn balanced(members: Arc<Members>) -> Self {
        Self::made(Shared {
            members: Some(members),
            ..Shared::of(Endpoint::of_several())
        })
    }

    fn made(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        stats::add(&shared);
        Self::over(shared)
    }

    /// Configures a channel to `address`, as [`Endpoint::from`] does.
    pub fn builder(address: Uri) -> Endpoint {
        Endpoint::from(address)
    }

    /// Configures a channel to `address`, as [`Endpoint::from_static`] does.
    pub fn from_static(address: &'static str) -> Endpoint {
        Endpoint::from_static(address)
    }

    /// Configures a channel to `address`.
    ///
    /// # Errors
    /// As [`Endpoint::from_shared`].
    pub fn from_shared(address: impl Into<Bytes>) -> Result<Endpoint, Error> {
        Endpoint::from_shared(address)
    }

    /// A channel over connections that `connector` makes, as [`Endpoint::connect_with_connector`].
    ///
    /// # Errors
    /// As [`Endpoint::connect_with_connector`].
    pub async fn connect<C>(connector: C, endpoint: Endpoint) -> Result<Self, Error>
    where
        C: tower::Service<Uri> + Send + 'static,
        C::Response: rt::Read + rt::Write + Send + Unpin,
        C::Future: Send,
        StdError: From<C::Error> + Send,
    {
        endpoint.connect_with_connector(connector).await
    }

    /// A clone that has made no call yet.
    pub(crate) fn over(shared: Arc<Shared>) -> Self {
        Self { shared, stay: None }
    }

    /// Whether a call with these extensions waits while no server can be reached.
    pub(crate) fn waits_for_ready(&self, extensions: &Extensions) -> bool {
        self.shared.waits_for_ready(extensions)
    }

    /// The path that the next call would take, as far as is known without trying.
    pub fn path(&self) -> Path {
        match self.shared.instances.any() {
            Some(connection) => Path::over(&connection),
            None => self.shared.endpoint.forced.unwrap_or(Path::Grpc),
        }
    }

    /// Connects now: to a local instance or, where no path is forced, over the network.
    /// Boxed here, so that this crate holds its machine code, and not once more each program that connects.
    pub(crate) fn connect_now(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.shared.connect_now())
    }

    /// The instance that takes the next call, where that is known without waiting: the one of the last call,
    /// if it is still the right one, or one of those that are connected.
    pub(crate) fn at_hand(&mut self) -> Option<(&Arc<Instance>, &Shared)> {
        if self.shared.is_inherited() {
            return None;
        }
        let instances = &self.shared.instances;
        if !self
            .stay
            .as_mut()
            .is_some_and(|stay| stay.goes_on(instances))
        {
            self.stay = instances.choose();
            if self.stay.is_some() {
                self.shared.look_for_more();
            }
            self.note_path();
        }
        Some((self.stay.as_ref()?.instance(), &self.shared))
    }

    /// Notes by which path calls go now.
    fn note_path(&self) {
        if let Some(stay) = &self.stay {
            let path = Path::over(&stay.instance().connection);
            self.shared.course.takes(path, &self.shared.endpoint.name);
        }
    }

    /// Where the next call goes.
    pub(crate) async fn route(&mut self, wait_for_ready: bool) -> Result<Routed<Route>, Status> {
        if let Some((instance, _)) = self.at_hand()
            && instance.connection.takes_calls()
        {
            return Ok(Routed::own(Route::Local(Arc::clone(instance))));
        }
        self.route_anew(wait_for_ready).await
    }

    /// Boxed here, so that this crate holds its machine code, and not once more each kind of call of each program.
    fn route_anew(&mut self, wait_for_ready: bool) -> BoxFuture<'_, Result<Routed<Route>, Status>> {
        Box::pin(self.find_route(wait_for_ready))
    }

    async fn find_route(&mut self, wait_for_ready: bool) -> Result<Routed<Route>, Status> {
        if self.shared.is_inherited() {
            return Err(Status::failed_precondition(INHERITED));
        }
        self.stay = None;
        let Routed {
            to,
            admitted,
            member,
        } = self.shared.route(wait_for_ready).await?;
        let to = match to {
            // The next call may be another member's.
            Way::Local(stay) if self.shared.members.is_some() => {
                Route::Local(Arc::clone(stay.instance()))
            }
            Way::Local(stay) => {
                let instance = Arc::clone(self.stay.insert(stay).instance());
                self.note_path();
                Route::Local(instance)
            }
            Way::Net(picked) => {
                let server = &self.shared.endpoint.name;
                self.shared.course.takes(Path::Grpc, server);
                Route::Net(picked)
            }
        };
        Ok(Routed {
            to,
            admitted,
            member,
        })
    }

    /// Adds to a call's metadata what it inherits; returns when it has to be over: after the shortest of what it
    /// says, what the endpoint allows, and what is left to the call that is being handled.
    pub(crate) fn complete(&self, metadata: &mut MetadataMap) -> Option<Instant> {
        let inherited = context::pass_on(metadata);
        self.shared.add_user_agent(metadata);
        let stated = match metadata.is_empty() {
            true => None,
            false => ringway_net::timeout::of(metadata.as_ref()),
        };
        let timeout = stated.into_iter().chain(self.shared.timeout()).min();
        let own = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        inherited.into_iter().chain(own).min()
    }

    /// Lets go of a connection that took a call no further.
    pub(crate) fn forget(&mut self, connection: &Arc<Connection>) {
        self.stay = None;
        self.shared.instances.remove(connection);
    }
}

/// Where calls go for a while.
pub(crate) enum Way {
    Local(Stay),
    Net(Picked),
}

impl Shared {
    /// With no way yet.
    fn of(endpoint: Endpoint) -> Self {
        Self {
            retries: Retries::new(endpoint.retry.clone()),
            admission: Admission::of(&endpoint),
            user_agent: user_agent_of(&endpoint),
            endpoint,
            net: None,
            instances: Instances::default(),
            looking: AtomicBool::new(false),
            local: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            course: Course::default(),
            members: None,
            refused: None,
            generation: fork::generation(),
        }
    }

    /// Returns true if a call with these extensions waits while no server can be reached.
    pub(crate) fn waits_for_ready(&self, extensions: &Extensions) -> bool {
        match &self.members {
            Some(members) => extensions
                .get::<WaitForReady>()
                .map_or_else(|| members.wait_for_ready(), |wait| wait.0),
            None => self.retries.waits_for_ready(extensions),
        }
    }

    /// Names the client in a call's metadata, where it asked for a name and the call has none.
    pub(crate) fn add_user_agent(&self, metadata: &mut MetadataMap) {
        if let Some(user_agent) = &self.user_agent {
            let headers = metadata.as_mut();
            headers
                .entry(USER_AGENT)
                .or_insert_with(|| user_agent.clone());
        }
    }

    /// Whether this process was forked from the one that made the channel: its connections and tasks are there.
    fn is_inherited(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Takes back what [`Channel::complete`] says of the client: over the network tonic says it.
    pub(crate) fn leave_user_agent_to_tonic(&self, headers: &mut HeaderMap) {
        let said = self.user_agent.as_ref();
        if said.is_some() && headers.get(USER_AGENT) == said {
            headers.remove(USER_AGENT);
        }
    }

    /// The longest that a call may take, where it does not say less.
    fn timeout(&self) -> Option<Duration> {
        match &self.members {
            Some(members) => members.timeout(),
            None => self.endpoint.timeout,
        }
    }

    pub(crate) fn note(&self, instance: &Instance, failed: Option<&Status>) {
        let outliers = self.endpoint.net.outliers.as_ref();
        self.instances.note(instance, failed, outliers);
    }

    pub(crate) fn local_path(&self) -> Path {
        self.endpoint.forced.unwrap_or(Path::Shm)
    }

    /// Without a forced path, a host that refuses shared memory is called over a socket.
    pub(crate) fn links(&self) -> Links {
        match self.endpoint.forced {
            Some(Path::Shm) => Links::Shm,
            Some(Path::Socket) => Links::Socket,
            _ => self.endpoint.local.links,
        }
    }

    /// Connects to a local instance or, where no path is forced, over the network.
    async fn connect_now(self: &Arc<Self>) -> Result<(), Error> {
        if self.endpoint.forced != Some(Path::Grpc) && self.endpoint.may_stay_local() {
            match self.find_local().await {
                Ok(_) => return Ok(()),
                Err(error) if self.endpoint.forced.is_some() => return Err(error),
                Err(error) => self.say_once(&error),
            }
        }
        let connected = self.net(false).await;
        connected.map(drop).map_err(|status| Error::NotConnected {
            reason: self.with_why(status).message().to_owned(),
        })
    }

    pub(crate) async fn route(
        self: &Arc<Self>,
        wait_for_ready: bool,
    ) -> Result<Routed<Way>, Status> {
        if let Some(refused) = &self.refused {
            return Err(Status::failed_precondition(&**refused));
        }
        loop {
            match self.route_now(wait_for_ready).await {
                // A pipe that has ended is never ready again.
                Err(_) if wait_for_ready && self.endpoint.pipe.is_none() => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await
                }
                found => return found,
            }
        }
    }

    /// A route as things are; waits for the network while no local server comes.
    async fn route_now(self: &Arc<Self>, wait_for_ready: bool) -> Result<Routed<Way>, Status> {
        match &self.members {
            Some(members) => members.route().await,
            None => self.own_route(wait_for_ready).await.map(Routed::own),
        }
    }

    async fn own_route(self: &Arc<Self>, wait_for_ready: bool) -> Result<Way, Status> {
        if let Some(stay) = self.instances.choose() {
            return Ok(Way::Local(stay));
        }
        let may_stay_local = self.endpoint.may_stay_local();
        match self.endpoint.forced {
            Some(Path::Grpc) => self.net(wait_for_ready).await,
            Some(_) => self.find_local().await.map(Way::Local).map_err(unavailable),
            None if !may_stay_local => self.net(wait_for_ready).await,
            None if self.is_known_absent() => self.net_for_now(wait_for_ready).await,
            None => match self.find_local().await {
                Ok(stay) => Ok(Way::Local(stay)),
                Err(error) => {
                    self.say_once(&error);
                    self.net_for_now(wait_for_ready).await
                }
            },
        }
    }

    async fn net(&self, wait_for_ready: bool) -> Result<Way, Status> {
        match &self.net {
            Some(net) => net.pick(wait_for_ready).await.map(Way::Net),
            None => Err(Status::unavailable(format!(
                "`{}` has no network address",
                self.endpoint.name
            ))),
        }
    }

    /// The same, but a call that waits looks for a local server again meanwhile.
    async fn net_for_now(&self, wait_for_ready: bool) -> Result<Way, Status> {
        if !wait_for_ready {
            let found = self.net(false).await;
            return found.map_err(|status| self.with_why(status));
        }
        tokio::time::timeout(LOOK_AGAIN_AFTER, self.net(true))
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("no server yet")))
    }

    /// Says beside why the network leads nowhere why this host does not either.
    fn with_why(&self, status: Status) -> Status {
        let why = self.local.lock().why.clone();
        match why {
            Some(why) if status.code() == Code::Unavailable => {
                let both = format!("{why}; over the network: {}", status.message());
                let mut said =
                    Status::with_metadata(status.code(), both, status.metadata().clone());
                said.set_source(Arc::new(status));
                said
            }
            _ => status,
        }
    }

    fn is_known_absent(&self) -> bool {
        let local = self.local.lock();
        local
            .absent_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Says once why calls go over the network. A server that is just not there is nothing to warn of:
    /// it may well be on another host.
    fn say_once(&self, error: &Error) {
        let mut local = self.local.lock();
        if is_elsewhere(error) {
            if !std::mem::replace(&mut local.told, true) {
                tracing::info!(server = %self.endpoint.name, reason = %error, "going over the network");
            }
        } else if !std::mem::replace(&mut local.warned, true) {
            tracing::warn!(server = %self.endpoint.name, %error, "no local path, going over the network");
        }
    }
}

/// The client's name, before Ringway's own.
fn user_agent_of(endpoint: &Endpoint) -> Option<HeaderValue> {
    let asked = endpoint.net.tuning.user_agent.as_ref()?;
    let both = [asked.as_bytes(), b" ", metadata::USER_AGENT.as_bytes()].concat();
    HeaderValue::from_bytes(&both).ok()
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unavailable(error: Error) -> Status {
    Status::unavailable(error.to_string())
}
