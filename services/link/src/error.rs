//! What can go wrong between a service and its transport.

/// Why a service can't be served or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is neither of the forms understood.
    #[error(
        "`{0}` is no address: write HOST:PORT, with shm://, socket:// or grpc:// in front to force a path, or unix:/PATH"
    )]
    Address(String),
    /// The listener could not be set up.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where it should have listened.
        address: String,
        /// Why it can't.
        source: ringway::Error,
    },
    /// The contracts that the stubs were made from can't be read again for reflection.
    #[error("can't describe the shop's contracts: {0}")]
    Contracts(#[from] tonic_reflection::server::Error),
    /// The server stopped by itself.
    #[error("the server on {address} failed: {source}")]
    Serve {
        /// Where it listened.
        address: String,
        /// What it failed of.
        source: ringway::Error,
    },
    /// A client could not be set up for an address.
    #[error("can't reach {service} at {address}: {source}")]
    Connect {
        /// The service that was meant.
        service: &'static str,
        /// The address given for it.
        address: String,
        /// Why it is no use.
        source: ringway::Error,
    },
}
