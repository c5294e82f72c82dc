//! One server: its sockets, what a handshake with each comes to, and the path that a call takes.

use std::time::Duration;

use ringway::{Channel, Endpoint, Path};
use ringway_local::{Directory, LinkKind, UidPolicy};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::Error;
use super::directory::meet;
use crate::compare::with_causes;
use crate::plain::plain;

/// Longer than any call here takes that works.
const PATIENCE: Duration = Duration::from_secs(5);

/// What would happen to calls to one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// Its sockets on this host, and what a handshake with each came to.
    pub(crate) sockets: Vec<Socket>,
    /// Why no socket was looked at, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_sockets: Option<String>,
    /// The path that a call took; none where the server was not reached.
    pub(crate) path: Option<String>,
    /// What answered, or why nothing did.
    pub(crate) answer: String,
}

/// One socket of a server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Socket {
    pub(crate) file: String,
    /// What the handshake agreed on; none where it failed.
    pub(crate) path: Option<&'static str>,
    /// What moves the bytes, where that is a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<String>,
    pub(crate) peer_uid: Option<u32>,
    pub(crate) peer_pid: Option<u32>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Looks at the server that is called `address`, and calls it.
pub(super) async fn look_at(directory: &Directory, address: &str) -> Result<Server, Error> {
    let endpoint = Endpoint::new(address).map_err(|source| Error::Address {
        address: address.to_owned(),
        source,
    })?;
    let (sockets, no_sockets) = match sockets(directory, address).await {
        Ok(sockets) => (sockets, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let (path, answer) = match tokio::time::timeout(PATIENCE, call(&endpoint)).await {
        Ok((path, answer)) => (path, answer),
        Err(_) => (None, format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Ok(Server {
        address: address.to_owned(),
        sockets,
        no_sockets,
        path: path.map(|path| path.to_string()),
        answer,
    })
}

async fn sockets(directory: &Directory, address: &str) -> Result<Vec<Socket>, String> {
    if address.starts_with("unix:") {
        return Err("the address is that of a Unix socket for gRPC".to_owned());
    }
    if address.starts_with("https:") {
        return Err("TLS is asked for, which no local path has".to_owned());
    }
    let name = address.split_once("://").map_or(address, |(_, name)| name);
    let found = ringway_local::instances(directory, name, &UidPolicy::SameUser);
    let mut sockets = Vec::new();
    for file in found.map_err(|error| error.to_string())? {
        sockets.push(match meet(directory, name, &file).await {
            Ok(met) => Socket {
                file,
                path: Some(match met.kind {
                    LinkKind::Shm => "shm",
                    LinkKind::Socket => "socket",
                    LinkKind::Pipe => "pipe",
                    LinkKind::Inproc => "inproc",
                }),
                engine: met.engine,
                peer_uid: met.uid,
                peer_pid: met.pid,
                reason: None,
            },
            Err(error) => Socket {
                file,
                path: None,
                engine: None,
                peer_uid: None,
                peer_pid: None,
                reason: Some(error.to_string()),
            },
        });
    }
    Ok(sockets)
}

/// A call of the health service, which most servers have: whoever refuses it was reached all the same.
async fn call(endpoint: &Endpoint) -> (Option<Path>, String) {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return (None, with_causes(&error)),
    };
    let asked = HealthClient::<Channel>::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await;
    match asked {
        Ok(response) => {
            let path = Path::of(&response).unwrap_or_else(|| channel.path());
            let status = response.into_inner().status();
            (Some(path), format!("health: {}", status.as_str_name()))
        }
        Err(status) if was_reached(&status) => (Some(channel.path()), refusal(&status)),
        Err(status) => (None, refusal(&status)),
    }
}

fn was_reached(status: &Status) -> bool {
    !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

fn refusal(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "it has no health service, but answered".to_owned(),
        code => format!("{code:?}: {}", plain(status.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_no_command_of_the_terminal() {
        let said = refusal(&Status::internal("\u{1b}]0;forged\u{7}\n| a call | shm |"));
        assert_eq!(said, r"Internal: \u{1b}]0;forged\u{7}\n| a call | shm |");
    }
}
