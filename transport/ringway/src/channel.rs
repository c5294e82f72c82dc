//! A client's way to a server: the best path that works, chosen anew when it breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use ringway_local::{ConnectError, Connection, Links, LocalConfig, SocketEngine};
use ringway_net::{Picked, Pool};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::attempt::{self, Attempt, ManyToMany, ManyToOne, One, OneToMany, Plan};
use crate::client::{self, Caller, Failure, Head};
use crate::context;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::method::{CallOptions, Method};
use crate::path::Path;
use crate::retry::{Attempts, Retries};
use crate::server;

/// How long a local server that was not there is not looked for again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

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
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    /// This clone's last local connection, so that a hot call takes no lock to find it.
    cached: Option<Arc<Connection>>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    retries: Retries,
    net: Option<Pool>,
    local: Mutex<Local>,
    /// One task connects, the others wait for what it finds.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Local {
    connection: Option<Arc<Connection>>,
    absent_until: Option<Instant>,
    warned: bool,
}

/// Where a call goes.
pub(crate) enum Route {
    Local(Arc<Connection>),
    Net(Picked),
}

impl Channel {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let needs_net = endpoint.forced.is_none_or(|path| path == Path::Grpc);
        let net = match &endpoint.target {
            Some(target) if needs_net => Some(ringway_net::connect_lazy(target, &endpoint.net)?),
            _ => None,
        };
        let retries = Retries::new(endpoint.retry.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                endpoint,
                retries,
                net,
                local: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
            }),
            cached: None,
        })
    }

    /// Whether a call with these extensions waits while no server can be reached.
    pub(crate) fn waits_for_ready(&self, extensions: &Extensions) -> bool {
        self.shared.retries.waits_for_ready(extensions)
    }

    /// The path that the next call would take, as far as is known without trying.
    pub fn path(&self) -> Path {
        match &self.shared.local.lock().connection {
            Some(connection) if connection.is_open() => Path::over(connection),
            _ => self.shared.endpoint.forced.unwrap_or(Path::Grpc),
        }
    }

    /// Connects now, where that shows whether a forced local path works.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        let shared = &self.shared;
        if shared.endpoint.forced == Some(Path::Grpc) || !shared.endpoint.may_stay_local() {
            return Ok(());
        }
        match shared.find_local().await {
            Ok(_) => Ok(()),
            Err(error) if shared.endpoint.forced.is_some() => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// The connection of the last call, if it is still good.
    fn hot(&self) -> Option<Arc<Connection>> {
        self.cached
            .as_ref()
            .filter(|connection| connection.is_open())
            .cloned()
    }

    /// Where the next call goes.
    pub(crate) async fn route(&mut self, wait_for_ready: bool) -> Result<Route, Status> {
        if let Some(connection) = self.hot()
            && connection.takes_calls()
        {
            return Ok(Route::Local(connection));
        }
        Box::pin(self.route_anew(wait_for_ready)).await
    }

    async fn route_anew(&mut self, wait_for_ready: bool) -> Result<Route, Status> {
        self.cached = None;
        let route = self.shared.route(wait_for_ready).await?;
        if let Route::Local(connection) = &route {
            self.cached = Some(Arc::clone(connection));
        }
        Ok(route)
    }

    /// Adds to a call's metadata what it inherits; how long it may take: the shortest of what it
    /// says, what the endpoint allows, and what is left to the call that is being handled.
    pub(crate) fn complete(&self, metadata: &mut MetadataMap) -> Option<Duration> {
        let inherited = context::pass_on(metadata);
        let stated = match metadata.is_empty() {
            true => None,
            false => ringway_net::timeout::of(metadata.as_ref()),
        };
        let inherited =
            inherited.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limits = [stated, inherited, self.shared.endpoint.timeout];
        limits.into_iter().flatten().min()
    }

    /// Lets go of a connection that took a call no further.
    pub(crate) fn forget(&mut self, connection: &Arc<Connection>) {
        self.cached = None;
        let mut local = self.shared.local.lock();
        if local
            .connection
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(held, connection))
        {
            local.connection = None;
        }
    }
}

impl Shared {
    fn local_path(&self) -> Path {
        self.endpoint.forced.unwrap_or(Path::Shm)
    }

    /// Without a forced path, a host that refuses shared memory is called over a socket.
    fn links(&self) -> Links {
        match self.endpoint.forced {
            Some(Path::Shm) => Links::Shm,
            Some(Path::Socket) => Links::Socket,
            _ => self.endpoint.local.links,
        }
    }

    async fn route(&self, wait_for_ready: bool) -> Result<Route, Status> {
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
    async fn route_now(&self, wait_for_ready: bool) -> Result<Route, Status> {
        if let Some(connection) = &self.local.lock().connection
            && connection.takes_calls()
        {
            return Ok(Route::Local(Arc::clone(connection)));
        }
        let may_stay_local = self.endpoint.may_stay_local();
        match self.endpoint.forced {
            Some(Path::Grpc) => self.net(wait_for_ready).await,
            Some(_) => self
                .find_local()
                .await
                .map(Route::Local)
                .map_err(unavailable),
            None if !may_stay_local => self.net(wait_for_ready).await,
            None if self.is_known_absent() => self.net_for_now(wait_for_ready).await,
            None => match self.find_local().await {
                Ok(connection) => Ok(Route::Local(connection)),
                Err(error) => {
                    self.warn_once(&error);
                    self.net_for_now(wait_for_ready).await
                }
            },
        }
    }

    async fn net(&self, wait_for_ready: bool) -> Result<Route, Status> {
        match &self.net {
            Some(net) => net.pick(wait_for_ready).await.map(Route::Net),
            None => Err(Status::unavailable(format!(
                "`{}` has no network address",
                self.endpoint.name
            ))),
        }
    }

    /// The same, but a call that waits looks for a local server again meanwhile.
    async fn net_for_now(&self, wait_for_ready: bool) -> Result<Route, Status> {
        if !wait_for_ready {
            return self.net(false).await;
        }
        tokio::time::timeout(LOOK_AGAIN_AFTER, self.net(true))
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("no server yet")))
    }

    fn is_known_absent(&self) -> bool {
        let local = self.local.lock();
        local
            .absent_until
            .is_some_and(|until| Instant::now() < until)
    }

    async fn find_local(&self) -> Result<Arc<Connection>, Error> {
        let _turn = self.connecting.lock().await;
        if let Some(held) = &self.local.lock().connection
            && held.takes_calls()
        {
            return Ok(Arc::clone(held));
        }
        let found = self.connect_local().await;
        let mut local = self.local.lock();
        match &found {
            Ok(connection) => {
                *local = Local {
                    connection: Some(Arc::clone(connection)),
                    ..Local::default()
                };
            }
            Err(_) => local.absent_until = Some(Instant::now() + LOOK_AGAIN_AFTER),
        }
        found
    }

    async fn connect_local(&self) -> Result<Arc<Connection>, Error> {
        let Endpoint {
            name,
            directory,
            local,
            ..
        } = &self.endpoint;
        match self.local_path() {
            Path::Inproc => server::inproc_connection(name, local).ok_or_else(|| Error::Forced {
                path: Path::Inproc,
                reason: format!("no server of this process is called `{name}`"),
            }),
            Path::Pipe => match &self.endpoint.pipe {
                Some(pipe) => pipe.connection(local).await,
                None => Err(Error::Forced {
                    path: Path::Pipe,
                    reason: format!("`{name}` is no pipe"),
                }),
            },
            Path::Shm | Path::Socket | Path::Grpc => {
                let local = LocalConfig {
                    links: self.links(),
                    socket_engine: match self.endpoint.epoll {
                        true => SocketEngine::Epoll,
                        false => local.socket_engine,
                    },
                    ..local.clone()
                };
                Ok(ringway_local::connect(directory, name, &local).await?)
            }
        }
    }

    /// An absent server is nothing to warn of: it may well be on another host.
    fn warn_once(&self, error: &Error) {
        if matches!(error, Error::Local(ConnectError::Absent { .. })) {
            return;
        }
        if !std::mem::replace(&mut self.local.lock().warned, true) {
            tracing::warn!(server = %self.endpoint.name, %error, "no local path, going over the network");
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unavailable(error: Error) -> Status {
    Status::unavailable(error.to_string())
}

impl Caller for Channel {
    async fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<R>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let mut request = request;
        let timeout = self.complete(request.metadata_mut());
        let mut first = None;
        if let Some(connection) = self.hot() {
            let head = Head::new(request.metadata(), timeout)?;
            // Asked for only where a further attempt has to know.
            let began = timeout.map(|_| Instant::now());
            let path = Path::over(&connection);
            let message = request.get_ref();
            match client::unary(&connection, path, method, options, &head, message).await {
                Ok(response) => {
                    self.shared.retries.note_success();
                    return Ok(response);
                }
                Err(Failure::Status(status)) if !self.shared.retries.has_policies() => {
                    return Err(status);
                }
                Err(failure) => {
                    first = Some(First {
                        connection,
                        began,
                        failure,
                    })
                }
            }
        }
        let (metadata, extensions, message) = request.into_parts();
        let call = Call {
            plan: Plan { method, options },
            metadata,
            timeout,
            extensions,
        };
        Box::pin(self.make(call, One::new(message), first)).await
    }

    async fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let (mut metadata, extensions, message) = request.into_parts();
        let timeout = self.complete(&mut metadata);
        let call = Call {
            plan: Plan { method, options },
            metadata,
            timeout,
            extensions,
        };
        self.make(call, OneToMany(One::new(message)), None).await
    }

    async fn client_streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<R>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let (mut metadata, extensions, requests) = request.into_parts();
        let timeout = self.complete(&mut metadata);
        let call = Call {
            plan: Plan { method, options },
            metadata,
            timeout,
            extensions,
        };
        let attempt = ManyToOne::new(requests, self.shared.endpoint.retry_buffer_bytes);
        self.make(call, attempt, None).await
    }

    async fn streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let (mut metadata, extensions, requests) = request.into_parts();
        let timeout = self.complete(&mut metadata);
        let call = Call {
            plan: Plan { method, options },
            metadata,
            timeout,
            extensions,
        };
        let attempt = ManyToOne::new(requests, self.shared.endpoint.retry_buffer_bytes);
        self.make(call, ManyToMany(attempt), None).await
    }
}

/// A call, but for its requests.
struct Call<'a> {
    plan: Plan<'a>,
    metadata: MetadataMap,
    timeout: Option<Duration>,
    extensions: Extensions,
}

/// What became of the first attempt, made before anything was kept for a second one.
struct First {
    connection: Arc<Connection>,
    began: Option<Instant>,
    failure: Failure,
}

impl Channel {
    /// Makes a call, with as many attempts as it takes and may have.
    async fn make<A: Attempt>(
        &mut self,
        call: Call<'_>,
        mut attempt: A,
        first: Option<First>,
    ) -> Result<Response<A::Answer>, Status> {
        let shared = Arc::clone(&self.shared);
        let began = first.as_ref().and_then(|first| first.began);
        let mut attempts = Attempts::new(
            &shared.retries,
            call.plan.method,
            call.timeout,
            &call.extensions,
            began,
        );
        if let Some(First {
            connection,
            failure,
            ..
        }) = first
        {
            self.forget_after(&connection, &failure);
            attempts.after(failure).await?;
        }
        loop {
            let made = self.attempt(&call, &mut attempt, &attempts).await?;
            match made {
                Ok(answer) => {
                    shared.retries.note_success();
                    return Ok(answer);
                }
                Err(failure) if attempt.may_be_sent_again() => attempts.after(failure).await?,
                Err(failure) => return Err(failure.into_status()),
            }
        }
    }

    /// One attempt; the outer error is final.
    async fn attempt<A: Attempt>(
        &mut self,
        call: &Call<'_>,
        attempt: &mut A,
        attempts: &Attempts<'_>,
    ) -> Result<Result<Response<A::Answer>, Failure>, Status> {
        let route = self.route(attempts.wait_for_ready);
        let route = attempts.within_deadline(route).await??;
        let mut metadata = call.metadata.clone();
        attempts.mark(&mut metadata);
        let time_left = attempts.time_left();
        match route {
            Route::Local(connection) => {
                let head = Head::new(&metadata, time_left)?;
                let made = attempt.over_local(call.plan, &connection, &head).await;
                if let Err(failure) = &made {
                    self.forget_after(&connection, failure);
                }
                Ok(made)
            }
            Route::Net(instance) => {
                let extensions = call.extensions.clone();
                let mut request = Request::from_parts(metadata, extensions, ());
                if let Some(time_left) = time_left {
                    request.set_timeout(time_left);
                }
                let (metadata, extensions, ()) = request.into_parts();
                let made = attempt
                    .over_network(call.plan, instance.clone(), metadata, extensions)
                    .await;
                instance.note(&made);
                Ok(made.map(over_the_network).map_err(attempt::failure))
            }
        }
    }

    /// Lets go of a connection that took a call no further.
    fn forget_after(&mut self, connection: &Arc<Connection>, failure: &Failure) {
        if !matches!(failure, Failure::Status(_)) {
            self.forget(connection);
        }
    }
}

fn over_the_network<R>(mut response: Response<R>) -> Response<R> {
    response.extensions_mut().insert(Path::Grpc);
    response
}
