//! The client's end.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::identity::Bearer;
use crate::v1::box_office_client::BoxOfficeClient;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client whose calls bear a token.
pub type Client = BoxOfficeClient<InterceptedService<Channel, Bearer>>;

/// Connects to the server at `address` on behalf of `name`; by TLS, if there is an authority that vouches
/// for the server.
///
/// # Errors
/// No server listens there, or it is none that the authority vouches for; or the name can't be sent.
pub async fn connect(
    address: SocketAddr,
    name: &str,
    authority: Option<Certificate>,
) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let channel = endpoint(address, authority)?.connect().await?;
    over(channel, name)
}

/// Shares the load between the servers at `addresses`.
///
/// # Errors
/// An address that is none; or the name can't be sent.
pub fn balanced(
    addresses: &[SocketAddr],
    name: &str,
) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let endpoints = addresses.iter().map(|address| endpoint(*address, None));
    let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>()?;
    over(Channel::balance_list(endpoints.into_iter()), name)
}

/// Calls over `channel`, on behalf of `name`.
///
/// # Errors
/// The name can't be sent.
pub fn over(channel: Channel, name: &str) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let bearer = Bearer::new(name)?;
    Ok(BoxOfficeClient::with_interceptor(channel, bearer))
}

fn endpoint(
    address: SocketAddr,
    authority: Option<Certificate>,
) -> Result<Endpoint, Box<dyn Error + Send + Sync>> {
    let scheme = if authority.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .user_agent(concat!("tickets/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .tcp_nodelay(true);
    Ok(match authority {
        None => endpoint,
        Some(authority) => {
            let tls = ClientTlsConfig::new().ca_certificate(authority);
            endpoint.tls_config(tls.domain_name("localhost"))?
        }
    })
}
