//! A handler behind an address.

use std::convert::Infallible;
use std::time::Duration;

use ringway::Server;
use ringway::codegen::Service;
use ringway_proto::shop::v1::DESCRIPTORS;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::ServingStatus;

use crate::{Address, Error};

/// How long calls in flight may take once a service was told to end.
pub const DRAIN: Duration = Duration::from_secs(2);

/// By what a service is found, beside where it listens.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Names {
    /// What clients on this host dial to reach it, if that is not where it listens: a container's
    /// name, say.
    #[arg(long = "name", value_name = "HOST:PORT")]
    names: Vec<String>,
}

/// Serves `service` at `address`, under `names`, until `until` is ready, then lets the calls in
/// flight end for up to [`DRAIN`]. Beside it stand `grpc.health.v1.Health` and server
/// reflection (`v1` and `v1alpha`), and what `ringway top` asks.
///
/// # Errors
/// [`Error::Listen`] if the address can't be taken, [`Error::Serve`] if the
/// server fails later.
pub async fn serve<S, F>(
    address: &Address,
    names: &Names,
    service: S,
    until: F,
) -> Result<(), Error>
where
    S: NamedService
        + Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    F: Future<Output = ()> + Send,
{
    let refused = |source| Error::Listen {
        address: address.to_string(),
        source,
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status(S::NAME, ServingStatus::Serving)
        .await;
    let server = at(address, names).map_err(refused)?.add_service(service);
    let server = described(server)?.add_service(health);
    let server = server.introspection();
    let server = server.drain_timeout(DRAIN).bind().await.map_err(refused)?;
    let until = async {
        until.await;
        for name in ["", S::NAME] {
            let status = ServingStatus::NotServing;
            reporter.set_service_status(name, status).await;
        }
    };
    match server.serve_with_shutdown(until).await {
        // A call that is cut off after it has had its time.
        Ok(()) | Err(ringway::Error::DrainTimedOut { .. }) => Ok(()),
        Err(source) => Err(Error::Serve {
            address: address.to_string(),
            source,
        }),
    }
}

/// Adds reflection of the shop's contracts.
fn described(server: Server) -> Result<Server, Error> {
    let contracts = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(server
        .add_service(contracts().build_v1()?)
        .add_service(contracts().build_v1alpha()?))
}

/// A server that can be reached at `address`, by the paths that it names, and as `names`.
fn at(address: &Address, names: &Names) -> Result<Server, ringway::Error> {
    let mut server = Server::builder();
    for name in local_names(address, names) {
        server = server.name(name);
    }
    if let Some(grpc) = address.grpc() {
        server = server.listen(&grpc)?;
    }
    Ok(server)
}

/// Nobody dials where a server listens if that has other names: it is `0.0.0.0`, as a rule.
fn local_names<'a>(address: &'a Address, names: &'a Names) -> Vec<&'a str> {
    match names.names.is_empty() {
        true => address.local_name().into_iter().collect(),
        false => names.names.iter().map(String::as_str).collect(),
    }
}

/// Tells a server to take no new calls.
#[derive(Debug)]
pub struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// Ready once the server should end.
    pub async fn ready(self) {
        // A sender that is gone asks for the same.
        let _ = self.0.await;
    }
}

/// Runs a server until it has drained after `until`, but no longer than [`DRAIN`]
/// past it; `None` if it was cut off.
pub async fn bounded<T, S: Future<Output = T>>(
    until: impl Future<Output = ()>,
    server: impl FnOnce(Stop) -> S,
) -> Option<T> {
    let (stop, stopped) = oneshot::channel();
    let overdue = async {
        until.await;
        let _ = stop.send(());
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server(Stop(stopped)) => Some(ended),
        () = overdue => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_for_the_address_that_is_listened_on() {
        let address = "0.0.0.0:50051".parse().unwrap();
        assert_eq!(local_names(&address, &Names::default()), ["0.0.0.0:50051"]);
        let names = Names {
            names: vec!["catalog:50051".to_owned()],
        };
        assert_eq!(local_names(&address, &names), ["catalog:50051"]);
    }
}
