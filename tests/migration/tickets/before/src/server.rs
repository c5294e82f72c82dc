//! The server: what it offers, and how it ends.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_web::GrpcWebLayer;

use crate::counting::Counter;
use crate::identity::Doorman;
use crate::office::Office;
use crate::shows::Shows;
use crate::v1::DESCRIPTORS;
use crate::v1::box_office_server::BoxOfficeServer;

/// A call that takes longer is given up.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// What a server is to serve, and where.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it proves itself with, where it speaks TLS.
    pub identity: Option<Identity>,
    /// What is on.
    pub shows: Shows,
    /// Counts the calls.
    pub counter: Counter,
}

/// Serves until `shutdown` is done: then it says that it does not serve any more, and lets the calls in
/// flight finish.
///
/// # Errors
/// The address can't be had, or the identity is none.
pub async fn serve(
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<BoxOfficeServer<Office>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    let office = BoxOfficeServer::with_interceptor(Office::of(settings.shows), Doorman);

    let mut server = Server::builder();
    if let Some(identity) = settings.identity {
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    server
        .accept_http1(true)
        .timeout(LONGEST_CALL)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(settings.counter)
        .layer(GrpcWebLayer::new())
        .add_service(health_service)
        .add_service(reflection)
        .add_service(office)
        .serve_with_shutdown(settings.address, async {
            shutdown.await;
            health.set_not_serving::<BoxOfficeServer<Office>>().await;
        })
        .await?;
    Ok(())
}
