//! The servers of this process that its own clients can call: the `inproc` path.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::join_all;
use parking_lot::Mutex;
use ringway_local::{ClosedOnDrop, Connection, InprocServer, LocalConfig, Serve};
use tokio::runtime::Handle;

use crate::services::Services;

/// The servers of this process, by name, for the `inproc` path.
static INPROC: OnceLock<Mutex<HashMap<String, Vec<Weak<Inproc>>>>> = OnceLock::new();

/// What the `inproc` path needs of a server.
#[derive(Debug)]
pub(crate) struct Inproc {
    services: Arc<Services>,
    local: LocalConfig,
    /// The runtime that serves: the one that has bound it, else the one that serves it first.
    runtime: OnceLock<Handle>,
    /// The server's ends.
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// A server's names, for as long as it can be found by them.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) names: Vec<String>,
    server: Arc<Inproc>,
}

impl Registration {
    pub(crate) fn new(names: &[String], services: &Arc<Services>, local: &LocalConfig) -> Self {
        let server = Arc::new(Inproc {
            services: Arc::clone(services),
            local: local.clone(),
            runtime: Handle::try_current().map_or_else(|_| OnceLock::new(), OnceLock::from),
            connections: Mutex::default(),
        });
        let mut servers = INPROC.get_or_init(Mutex::default).lock();
        for name in names {
            let instances = servers.entry(name.clone()).or_default();
            instances.push(Arc::downgrade(&server));
        }
        Self {
            names: names.to_vec(),
            server,
        }
    }

    /// Can be found until `shutdown` is done; then drains.
    pub(crate) async fn serve(self, shutdown: impl Future<Output = ()>) {
        self.server.runtime.get_or_init(Handle::current);
        shutdown.await;
        let server = Arc::clone(&self.server);
        drop(self);
        let connections = std::mem::take(&mut *server.connections.lock());
        let held = connections.iter().filter_map(Weak::upgrade);
        let held: Vec<_> = held.map(ClosedOnDrop::new).collect();
        join_all(held.iter().map(ClosedOnDrop::drain)).await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut servers = INPROC.get_or_init(Mutex::default).lock();
        for name in &self.names {
            let Some(instances) = servers.get_mut(name) else {
                continue;
            };
            instances.retain(|instance| instance.as_ptr() != Arc::as_ptr(&self.server));
            if instances.is_empty() {
                servers.remove(name);
            }
        }
    }
}

/// The servers of this process that are called `name`.
pub(crate) fn instances(name: &str) -> Vec<Arc<Inproc>> {
    let servers = INPROC.get_or_init(Mutex::default).lock();
    let found = servers.get(name).into_iter().flatten();
    found.filter_map(Weak::upgrade).collect()
}

impl Inproc {
    /// What tells it from others, while a client holds its services.
    pub(crate) fn id(&self) -> String {
        format!("{:p}", Arc::as_ptr(&self.services))
    }

    /// A connection to it, for a client that has found it as `name`.
    pub(crate) fn connect(&self, name: &str, config: &LocalConfig) -> Arc<Connection> {
        let server = InprocServer {
            name,
            service: Arc::clone(&self.services) as Arc<dyn Serve>,
            config: &self.local,
            runtime: self.runtime.get().cloned(),
        };
        ringway_local::connect_inproc(server, config, |end| {
            let mut connections = self.connections.lock();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Arc::downgrade(end));
        })
    }
}
