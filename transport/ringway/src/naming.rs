//! Says how clients on a server's own host find it: by the very name that they dial, and no other way.

use ringway_net::ListenAddress;

/// Tells once, as the server begins, where clients that dial what it listens on would miss its local paths.
pub(crate) fn tell(names: &[String], addresses: &[ListenAddress]) {
    let ports = || addresses.iter().filter_map(port_of_this_host);
    let Some(port) = ports().next() else { return };
    if names.is_empty() {
        tracing::info!(
            "this server has no name, so clients on this host call it over the network: say name(\"localhost:{port}\"), or whatever host:port they dial, for shared memory"
        );
        return;
    }
    let dialled = ["localhost", "127.0.0.1"].map(|host| format!("{host}:{port}"));
    let missed: Vec<_> = dialled
        .iter()
        .filter(|name| !names.contains(name))
        .collect();
    if missed.len() == dialled.len() {
        tracing::info!(
            ?names,
            "clients on this host find this server by these names alone: those that dial {} call it over the network, unless that is a name(..) as well",
            missed
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(" or ")
        );
    }
}

/// The port of an address that clients of this host dial by a loopback name.
fn port_of_this_host(address: &ListenAddress) -> Option<u16> {
    match address {
        ListenAddress::Tcp(tcp) => {
            let here = tcp.ip().is_loopback() || tcp.ip().is_unspecified();
            here.then_some(tcp.port())
        }
        ListenAddress::Unix(_) => None,
    }
}
