//! What a server's local paths lead to: services, found by a call's path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use http::{Request, Response};
use parking_lot::Mutex;
use ringway_local::{HandlerFuture, HandlerPolicy, Pace, Serve, ServedMethod, Started};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::service::Routes;

use crate::bridge;
use crate::dispatch::{LocalService, ServerCall};
use crate::latency::{self, Source, Timing};
use crate::limit::Limited;

/// All services of a server, by path.
#[derive(Clone, Default)]
pub(crate) struct Services {
    /// Where there are layers: all services behind them.
    pub(crate) layered: Option<Arc<bridge::HttpService>>,
    /// What answers calls for services that are not here.
    pub(crate) others: Option<Arc<bridge::HttpService>>,
    /// Requests that are no HTTP ones say who calls.
    pub(crate) connect_info: bool,
    /// Where calls of a connection take turns: all services once more.
    pub(crate) limited: Option<Arc<Limited>>,
    names: Vec<&'static str>,
    typed: Vec<Arc<dyn LocalService>>,
    http: Vec<(&'static str, Arc<bridge::HttpService>)>,
    routes: HashMap<&'static str, u64>,
    pub(crate) policies: Policies,
    paces: Paces,
}

/// What was learnt of methods. A server that is configured on from another learns by itself.
#[derive(Default)]
struct Paces(Mutex<HashMap<Box<str>, Arc<Pace>>>);

impl Clone for Paces {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Where handlers run, as the application has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) default: HandlerPolicy,
    /// By the method's path.
    pub(crate) of_methods: HashMap<String, HandlerPolicy>,
}

/// Methods whose pace is remembered, at most: a service of HTTP types may take any path.
const MAX_PACES: usize = 1024;

/// Marks a route as one to a service that speaks HTTP types.
const HTTP: u64 = 1 << 63;
/// The route to what answers calls for services that are not here.
const OTHERS: u64 = HTTP | u32::MAX as u64;

impl fmt::Debug for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.routes.keys()).finish()
    }
}

impl Services {
    pub(crate) fn add(&mut self, name: &'static str, service: Arc<dyn LocalService>) {
        self.names.push(name);
        let index = self.typed.len() as u64;
        for (number, method) in service.methods().iter().enumerate() {
            self.routes
                .insert(method.path(), index << 32 | number as u64);
        }
        self.typed.push(service);
    }

    pub(crate) fn add_http(&mut self, name: &'static str, service: bridge::HttpService) {
        self.names.push(name);
        self.http.push((name, Arc::new(service)));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// The names of all services that were added by themselves.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.names.clone()
    }
}

impl Serve for Services {
    fn resolve(&self, path: &str) -> Arc<ServedMethod> {
        let route = self.route(path);
        Arc::new(ServedMethod {
            route,
            path: path.into(),
            pace: self.pace(path),
            max_request_bytes: self.max_request_bytes(path, route),
        })
    }

    fn start(&self, started: &mut Option<Started>) -> HandlerFuture {
        match &self.limited {
            Some(limited) => limited.start(started),
            None => self.begin(started),
        }
    }
}

impl Services {
    /// Handles a call whose turn it is.
    pub(crate) fn begin(&self, started: &mut Option<Started>) -> HandlerFuture {
        if latency::is_watched() {
            self.timed(started)
        } else {
            self.dispatch(started)
        }
    }

    fn route(&self, path: &str) -> Option<u64> {
        if self.layered.is_some() {
            return Some(HTTP);
        }
        if let Some(route) = self.routes.get(path) {
            return Some(*route);
        }
        let service = service_of(path)?;
        if let Some(index) = self.http.iter().position(|(name, _)| *name == service) {
            return Some(HTTP | index as u64);
        }
        let is_another = self.others.is_some() && !self.has(service);
        is_another.then_some(OTHERS)
    }

    /// The longest request that the method at `path` takes, behind layers as well: they hand on messages. Of
    /// services that tonic generated only they themselves know.
    fn max_request_bytes(&self, path: &str, route: Option<u64>) -> u32 {
        let Some(typed) = self.routes.get(path) else {
            return if route.is_some() { u32::MAX } else { 0 };
        };
        let service = usize::try_from(typed >> 32).unwrap_or(usize::MAX);
        let service = self.typed.get(service);
        let limit = service.map_or(0, |service| service.max_decoding_bytes());
        u32::try_from(limit).unwrap_or(u32::MAX)
    }

    /// What was learnt of the method at `path`, on whichever connection.
    fn pace(&self, path: &str) -> Arc<Pace> {
        let mut paces = self.paces.0.lock();
        if let Some(pace) = paces.get(path) {
            return Arc::clone(pace);
        }
        let policy = self.policies.of_methods.get(path);
        let pace = Arc::new(Pace::new(policy.copied().unwrap_or(self.policies.default)));
        if paces.len() < MAX_PACES {
            paces.insert(path.into(), Arc::clone(&pace));
        }
        pace
    }

    /// The methods that clients on this host have named, and that there are, with what was learnt of each.
    pub(crate) fn paces(&self) -> Vec<(String, Arc<Pace>)> {
        let paces = self.paces.0.lock();
        let known = paces.iter().filter(|(path, _)| self.route(path).is_some());
        known
            .map(|(path, pace)| (path.to_string(), Arc::clone(pace)))
            .collect()
    }

    #[cold]
    fn timed(&self, started: &mut Option<Started>) -> HandlerFuture {
        let connection = started
            .as_ref()
            .map(|started| started.call.connection().id());
        let timing = connection.map(|connection| Timing::begin(Source::Local(connection)));
        let handler = self.dispatch(started);
        Box::pin(async move {
            handler.await;
            if let Some(timing) = timing {
                timing.end();
            }
        })
    }

    fn dispatch(&self, started: &mut Option<Started>) -> HandlerFuture {
        let call = ServerCall::new(started, self.connect_info);
        let Some(route) = call.route() else {
            return call.unimplemented();
        };
        let index = usize::try_from(route & 0xffff_ffff).unwrap_or(usize::MAX);
        if let Some(layered) = &self.layered {
            return layered.answer(call);
        }
        if route == OTHERS
            && let Some(others) = &self.others
        {
            return others.answer(call);
        }
        if route & HTTP != 0 {
            return self.http[index].1.answer(call);
        }
        let service = usize::try_from(route >> 32).unwrap_or(usize::MAX);
        self.typed[service].dispatch(index, call)
    }
}

/// The service that a call's path names.
fn service_of(path: &str) -> Option<&str> {
    Some(path.strip_prefix('/')?.split_once('/')?.0)
}

/// Services that were added by themselves, and what answers for all others, as HTTP.
#[derive(Clone)]
pub(crate) struct Spare<O> {
    names: Arc<[&'static str]>,
    own: Routes,
    others: O,
}

impl<O> Spare<O> {
    pub(crate) fn new(names: Vec<&'static str>, own: Routes, others: O) -> Self {
        Self {
            names: names.into(),
            own,
            others,
        }
    }
}

impl<O> Service<Request<Body>> for Spare<O>
where
    O: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    O::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        let Ok(()) = ready!(Service::<Request<Body>>::poll_ready(&mut self.own, context));
        self.others.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = service_of(request.uri().path());
        if service.is_some_and(|service| self.names.contains(&service)) {
            Box::pin(self.own.call(request))
        } else {
            Box::pin(self.others.call(request))
        }
    }
}
