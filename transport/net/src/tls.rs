//! TLS as far as the features of this crate go: tonic's types with any of them, and without types of the
//! same names that have no values, so that all other code is the same either way.

#[cfg(feature = "_tls-any")]
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

#[cfg(not(feature = "_tls-any"))]
pub use self::without::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use tonic::transport::{Endpoint, Error, Server};

/// Has connections of `endpoint` go through TLS.
///
/// # Errors
/// The configuration can't be used.
#[cfg(feature = "_tls-any")]
pub fn client(endpoint: Endpoint, tls: &ClientTlsConfig) -> Result<Endpoint, Error> {
    endpoint.tls_config(tls.clone())
}

/// Has connections to `server` go through TLS.
///
/// # Errors
/// The configuration can't be used.
#[cfg(feature = "_tls-any")]
pub fn server(server: Server, tls: &ServerTlsConfig) -> Result<Server, Error> {
    server.tls_config(tls.clone())
}

/// Is never called: there is no configuration.
///
/// # Errors
/// None.
#[cfg(not(feature = "_tls-any"))]
pub fn client(_endpoint: Endpoint, tls: &ClientTlsConfig) -> Result<Endpoint, Error> {
    match *tls {}
}

/// Is never called: there is no configuration.
///
/// # Errors
/// None.
#[cfg(not(feature = "_tls-any"))]
pub fn server(_server: Server, tls: &ServerTlsConfig) -> Result<Server, Error> {
    match *tls {}
}

#[cfg(not(feature = "_tls-any"))]
mod without {
    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum ClientTlsConfig {}

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum ServerTlsConfig {}

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum Certificate {}

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum Identity {}
}
