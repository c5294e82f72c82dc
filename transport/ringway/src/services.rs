//! What a server's local paths lead to: services, found by a call's path.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use ringway_local::{HandlerFuture, HandlerPolicy, Pace, Serve, ServedMethod, Started};

use crate::bridge;
use crate::dispatch::{LocalService, ServerCall};
use crate::introspection::latency::{self, Source, Timing};

/// All services of a server, by path.
#[derive(Default)]
pub(crate) struct Services {
    /// Where there are layers: all services behind them.
    pub(crate) layered: Option<bridge::HttpService>,
    /// Requests that are no HTTP ones say who calls.
    pub(crate) connect_info: bool,
    typed: Vec<Arc<dyn LocalService>>,
    http: Vec<(&'static str, bridge::HttpService)>,
    routes: HashMap<&'static str, u64>,
    pub(crate) policies: Policies,
    paces: Mutex<HashMap<Box<str>, Arc<Pace>>>,
}

/// Where handlers run, as the application has it.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) default: HandlerPolicy,
    /// By the method's path.
    pub(crate) of_methods: HashMap<String, HandlerPolicy>,
}

/// Methods whose pace is remembered, at most: a service of HTTP types may take any path.
const MAX_PACES: usize = 1024;

/// Marks a route as one to a service that speaks HTTP types.
const HTTP: u64 = 1 << 63;

impl fmt::Debug for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.routes.keys()).finish()
    }
}

impl Services {
    pub(crate) fn add(&mut self, service: Arc<dyn LocalService>) {
        let index = self.typed.len() as u64;
        for (number, method) in service.methods().iter().enumerate() {
            self.routes
                .insert(method.path(), index << 32 | number as u64);
        }
        self.typed.push(service);
    }

    pub(crate) fn add_http(&mut self, name: &'static str, service: bridge::HttpService) {
        self.http.push((name, service));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.http.iter().any(|(known, _)| *known == name)
            || self.typed.iter().any(|service| {
                service
                    .methods()
                    .first()
                    .is_some_and(|method| method.service() == name)
            })
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
        match latency::is_watched() {
            true => self.timed(started),
            false => self.dispatch(started),
        }
    }
}

impl Services {
    fn route(&self, path: &str) -> Option<u64> {
        if self.layered.is_some() {
            return Some(HTTP);
        }
        if let Some(route) = self.routes.get(path) {
            return Some(*route);
        }
        let service = path.strip_prefix('/')?.split_once('/')?.0;
        let index = self.http.iter().position(|(name, _)| *name == service)?;
        Some(HTTP | index as u64)
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
        let mut paces = self.paces.lock();
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
        if route & HTTP != 0 {
            return self.http[index].1.answer(call);
        }
        let service = usize::try_from(route >> 32).unwrap_or(usize::MAX);
        self.typed[service].dispatch(index, call)
    }
}
