//! Both ends in one process, joined by a pair of queues.

use std::sync::Arc;

use ringway_wire::{Negotiated, Role};
use tokio::runtime::Handle;

use crate::clock;
use crate::config::LocalConfig;
use crate::connection::{Connection, Parts, Wakeups};
use crate::link::{self, LinkKind, Watch, queue};
use crate::server::Serve;

/// The server of a connection within one process.
#[derive(Debug)]
pub struct InprocServer<'a> {
    /// The name by which its client has found it.
    pub name: &'a str,
    /// Answers calls.
    pub service: Arc<dyn Serve>,
    /// The server's settings.
    pub config: &'a LocalConfig,
    /// The runtime that serves, which runs the handlers. `None` is the client's.
    pub runtime: Option<Handle>,
}

/// A client's connection to `server_side`, in the same process; `config` is the client's.
/// `note` is shown the server's end, for its owner to drain.
pub fn connect(
    server_side: InprocServer<'_>,
    config: &LocalConfig,
    note: impl FnOnce(&Arc<Connection>),
) -> Arc<Connection> {
    let [client, server] = queue::pair();
    let InprocServer {
        name,
        service,
        config: served,
        runtime,
    } = server_side;
    let serving = runtime.clone().unwrap_or_else(Handle::current);
    let server = start(
        Role::Server,
        server,
        Some((service, runtime)),
        [served, config],
        name,
    );
    note(&server);
    // The server's end lives as long as the client's queue does.
    serving.spawn(async move { server.hold_until_closed().await });
    start(Role::Client, client, None, [config, served], name)
}

fn start(
    role: Role,
    (sender, receiver): (queue::Sender, queue::Receiver),
    service: Option<(Arc<dyn Serve>, Option<Handle>)>,
    [config, peers]: [&LocalConfig; 2],
    name: &str,
) -> Arc<Connection> {
    let agreed = Negotiated::within_process(role, &config.wire, &peers.wire);
    let (service, runtime) = service.unzip();
    let (out, into) = (sender.registration(), receiver.registration());
    let connection = Connection::start(Parts {
        kind: LinkKind::Inproc,
        core: ringway_wire::Connection::new(role, &agreed, &config.wire, clock::now()),
        watch: Watch::Queue(receiver.watch()),
        sender: link::Sender::Queue(sender),
        receiver: link::Receiver::Queue(receiver),
        large: None,
        wakeups: Wakeups::default(),
        service,
        peer: None,
        socket_peer: None,
        name: name.into(),
        runtime: runtime.flatten(),
    });
    connection.configure(config);
    out.belongs_to(&connection);
    into.belongs_to(&connection);
    connection
}
