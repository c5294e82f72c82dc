//! Whether a service is well, as an orchestrator asks.

use std::time::Duration;

use ringway::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Address;

/// How long a service that is well may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a service counts as not being well.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The address can't be used.
    #[error("can't ask at {address}: {source}")]
    Address {
        /// Where it should be.
        address: String,
        /// What is wrong with it.
        source: ringway::Error,
    },
    /// It does not answer, or not as `grpc.health.v1` says.
    #[error("{address} does not answer: {status}")]
    Silent {
        /// Where it should be.
        address: String,
        /// What came of the call.
        status: Box<tonic::Status>,
    },
    /// It says so itself.
    #[error("{address} is up and says {}", .status.as_str_name())]
    NotServing {
        /// Where it is.
        address: String,
        /// Its own words.
        status: ServingStatus,
    },
}

/// Asks `grpc.health.v1.Health` whether the server at `address` serves; over gRPC, unless the
/// address names another path. An unspecified address (`0.0.0.0`), as servers listen on, is asked
/// for on this host.
///
/// # Errors
/// Whatever it is that keeps others from calling it.
pub async fn probe(address: &Address) -> Result<(), Unhealthy> {
    let address = dialled(address).to_string();
    let endpoint = Endpoint::new(&*address).map(|endpoint| endpoint.connect_lazy());
    let channel = endpoint.map_err(|source| Unhealthy::Address {
        address: address.clone(),
        source,
    })?;
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(PATIENCE);
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer.map_err(|status| Unhealthy::Silent {
        address: address.clone(),
        status: Box::new(status),
    })?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        status => Err(Unhealthy::NotServing { address, status }),
    }
}

/// How a client on the same host reaches what listens at `address`.
fn dialled(address: &Address) -> Address {
    let Address::Auto(authority) = address else {
        return address.clone();
    };
    let local = [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")]
        .into_iter()
        .find_map(|(any, local)| Some(local.to_owned() + authority.strip_prefix(any)?));
    Address::Tcp(local.unwrap_or_else(|| authority.clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (listens, asked) in [
            ("0.0.0.0:50051", "grpc://127.0.0.1:50051"),
            ("[::]:50051", "grpc://[::1]:50051"),
            ("10.0.0.1:50051", "grpc://10.0.0.1:50051"),
            ("shm://catalog:50051", "shm://catalog:50051"),
        ] {
            assert_eq!(dialled(&listens.parse().unwrap()).to_string(), asked);
        }
    }
}
