//! Both ends in one process, joined by a pair of queues.

use std::sync::Arc;

use ringway_wire::{Negotiated, Role};

use crate::config::LocalConfig;
use crate::connection::{Connection, Parts, Wakeups};
use crate::link::{self, LinkKind, Watch, queue};
use crate::server::Serve;

/// A client's connection to `service`, in the same process and runtime; `config` is the client's.
/// `note` is shown the server's end, for its owner to drain.
pub fn connect(
    (service, served): (Arc<dyn Serve>, &LocalConfig),
    config: &LocalConfig,
    note: impl FnOnce(&Arc<Connection>),
) -> Arc<Connection> {
    let [client, server] = queue::pair();
    let server = start(Role::Server, server, Some(service), [served, config]);
    note(&server);
    // The server's end lives as long as the client's queue does.
    tokio::spawn(async move { server.hold_until_closed().await });
    start(Role::Client, client, None, [config, served])
}

fn start(
    role: Role,
    (sender, receiver): (queue::Sender, queue::Receiver),
    service: Option<Arc<dyn Serve>>,
    [config, peers]: [&LocalConfig; 2],
) -> Arc<Connection> {
    let agreed = Negotiated::within_process(role, &config.wire, &peers.wire);
    let (out, into) = (sender.registration(), receiver.registration());
    let connection = Connection::start(Parts {
        kind: LinkKind::Inproc,
        core: ringway_wire::Connection::new(role, &agreed, &config.wire, Connection::now()),
        watch: Watch::Queue(receiver.watch()),
        sender: link::Sender::Queue(sender),
        receiver: link::Receiver::Queue(receiver),
        large: None,
        wakeups: Wakeups::default(),
        service,
        peer: None,
        socket_peer: None,
    });
    out.belongs_to(&connection);
    into.belongs_to(&connection);
    connection
}
