//! The names by which clients on a server's own host find it: the very `host:port` that they dial, and no other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringway_net::ListenAddress;

use crate::error::Error;

/// Returns `names` with the port that is bound in place of a 0 and, if `from_listen`, what clients of this host
/// dial to reach `addresses`; each once.
///
/// # Errors
/// [`Error::NameWithoutPort`] where no port is bound by which to name the server.
pub(crate) fn settled(
    names: &[String],
    from_listen: bool,
    addresses: &[ListenAddress],
) -> Result<Vec<String>, Error> {
    let tcp = || addresses.iter().filter_map(tcp_of);
    let port = tcp().next().map(|address| address.port());
    let mut settled: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        settled.push(match (name.strip_suffix(":0"), port) {
            (None, _) => name.clone(),
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(_), None) => return Err(Error::NameWithoutPort(name.clone())),
        });
    }
    if from_listen {
        if port.is_none() {
            return Err(Error::NameWithoutPort("name_from_listen()".to_owned()));
        }
        settled.extend(tcp().flat_map(dialled));
    }
    let mut once = Vec::with_capacity(settled.len());
    for name in settled {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Ok(once)
}

/// What clients of this host dial to reach `address`.
fn dialled(address: SocketAddr) -> Vec<String> {
    let hosts: &[&str] = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST => {
            &["localhost", "127.0.0.1"]
        }
        IpAddr::V6(ip) if ip.is_unspecified() => &["localhost", "127.0.0.1", "[::1]"],
        IpAddr::V6(ip) if ip.is_loopback() => &["localhost", "[::1]"],
        _ => return vec![address.to_string()],
    };
    let port = address.port();
    hosts.iter().map(|host| format!("{host}:{port}")).collect()
}

fn tcp_of(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Tcp(tcp) => Some(*tcp),
        ListenAddress::Unix(_) => None,
    }
}

/// Tells once, as the server begins, where clients that dial what it listens on would miss its local paths.
pub(crate) fn tell(names: &[String], addresses: &[ListenAddress]) {
    let ports = || addresses.iter().filter_map(port_of_this_host);
    let Some(port) = ports().next() else { return };
    if names.is_empty() {
        tracing::info!(
            "this server has no name, so clients on this host call it over the network: say name_from_listen() or name(\"localhost:{port}\"), or whatever host:port they dial, for shared memory"
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
    let tcp = tcp_of(address)?;
    let here = tcp.ip().is_loopback() || tcp.ip().is_unspecified();
    here.then_some(tcp.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str], from_listen: bool, addresses: &[&str]) -> Result<Vec<String>, Error> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        settled(&names, from_listen, &addresses)
    }

    #[test]
    fn a_zero_is_the_port_that_is_bound() {
        let listens = ["unix:/catalog.sock", "0.0.0.0:7001", "127.0.0.1:7002"];
        let names = named(&["catalog:0", "catalog:9"], false, &listens).unwrap();
        assert_eq!(names, ["catalog:7001", "catalog:9"]);
    }

    #[test]
    fn names_from_addresses_are_what_clients_dial() {
        for (address, names) in [
            ("127.0.0.1:1", &["localhost:1", "127.0.0.1:1"][..]),
            ("0.0.0.0:1", &["localhost:1", "127.0.0.1:1"]),
            ("[::1]:1", &["localhost:1", "[::1]:1"]),
            ("[::]:1", &["localhost:1", "127.0.0.1:1", "[::1]:1"]),
            ("127.0.0.2:1", &["127.0.0.2:1"]),
            ("10.0.0.7:1", &["10.0.0.7:1"]),
        ] {
            assert_eq!(named(&[], true, &[address]).unwrap(), names, "{address}");
        }
        let twice = named(&["localhost:1"], true, &["127.0.0.1:1", "[::1]:1"]).unwrap();
        assert_eq!(twice, ["localhost:1", "127.0.0.1:1", "[::1]:1"]);
    }

    #[test]
    fn without_a_port_there_is_no_name() {
        for error in [
            named(&["catalog:0"], false, &["unix:/catalog.sock"]).unwrap_err(),
            named(&[], true, &[]).unwrap_err(),
        ] {
            assert!(error.to_string().contains("listen("), "{error}");
        }
    }
}
