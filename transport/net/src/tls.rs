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
    /// Names the features: no type implements it, so the compiler tells what a constructor needs.
    #[diagnostic::on_unimplemented(
        message = "ringway was built without TLS",
        label = "needs the feature `tls-ring` or `tls-aws-lc`",
        note = "enable one in Cargo.toml: `features = [\"tls-ring\"]` of the dependency `ringway`"
    )]
    pub trait Tls {}

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum ClientTlsConfig {}

    impl ClientTlsConfig {
        /// Can't be called: enable one of the features `tls-ring` and `tls-aws-lc`.
        #[allow(clippy::new_without_default, reason = "none is ever made")]
        pub fn new() -> Self
        where
            for<'missing> Self: Tls,
        {
            unreachable!("no type implements `Tls`")
        }
    }

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum ServerTlsConfig {}

    impl ServerTlsConfig {
        /// Can't be called: enable one of the features `tls-ring` and `tls-aws-lc`.
        #[allow(clippy::new_without_default, reason = "none is ever made")]
        pub fn new() -> Self
        where
            for<'missing> Self: Tls,
        {
            unreachable!("no type implements `Tls`")
        }
    }

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum Certificate {}

    impl Certificate {
        /// Can't be called: enable one of the features `tls-ring` and `tls-aws-lc`.
        pub fn from_pem(_pem: impl AsRef<[u8]>) -> Self
        where
            for<'missing> Self: Tls,
        {
            unreachable!("no type implements `Tls`")
        }
    }

    /// Has no value: enable one of the features `tls-ring` and `tls-aws-lc`.
    #[derive(Clone, Debug)]
    pub enum Identity {}

    impl Identity {
        /// Can't be called: enable one of the features `tls-ring` and `tls-aws-lc`.
        pub fn from_pem(_cert: impl AsRef<[u8]>, _key: impl AsRef<[u8]>) -> Self
        where
            for<'missing> Self: Tls,
        {
            unreachable!("no type implements `Tls`")
        }
    }
}
