//! Whether a service is well, for an orchestrator: exit status 0 if so.

use std::str::FromStr;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, StatusCode, Uri};
use shop_link::Address;

use crate::Error;
use crate::shopper::connect;

/// How long a page may take.
const PATIENCE_S: u64 = 2;

/// Whom to ask.
#[derive(clap::Args, Debug)]
pub struct Probe {
    /// A service's address, asked by `grpc.health.v1`, or a page that must answer 200
    /// (`http://HOST:PORT/PATH`).
    #[arg(env = "SHOP_LISTEN", default_value = "127.0.0.1:50051")]
    at: Asked,
}

#[derive(Clone, Debug)]
enum Asked {
    Service(Address),
    Page(Uri),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") {
            let address = text.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Service(address));
        }
        let page: Uri = text.parse().map_err(|error| format!("{error}"))?;
        match page.port_u16() {
            Some(_) => Ok(Self::Page(page)),
            None => Err("a page needs a port: http://HOST:PORT/PATH".to_owned()),
        }
    }
}

impl Probe {
    /// Asks once.
    ///
    /// # Errors
    /// What keeps it from being well.
    pub async fn ask(&self) -> Result<(), Error> {
        match &self.at {
            Asked::Service(address) => Ok(shop_link::probe(address).await?),
            Asked::Page(page) => {
                let patience = Duration::from_secs(PATIENCE_S);
                tokio::time::timeout(patience, answers(page))
                    .await
                    .map_err(|_| Error::PageSilent(page.clone(), PATIENCE_S))?
            }
        }
    }
}

async fn answers(page: &Uri) -> Result<(), Error> {
    let host = page.authority().map_or("", http::uri::Authority::as_str);
    let mut connection = connect(host).await?;
    let mut request = Request::new(http_body_util::Full::default());
    let path = page.path_and_query().cloned();
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    let host = HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(HOST, host);
    match connection.send_request(request).await?.status() {
        StatusCode::OK => Ok(()),
        status => Err(Error::Page {
            page: page.clone(),
            status,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_a_service_or_a_page() {
        assert!(matches!("0.0.0.0:1".parse(), Ok(Asked::Service(_))));
        assert!(matches!("http://a:1/healthz".parse(), Ok(Asked::Page(_))));
        for text in ["http://a/healthz", "http://", "catalog"] {
            assert!(text.parse::<Asked>().is_err(), "{text}");
        }
    }
}
