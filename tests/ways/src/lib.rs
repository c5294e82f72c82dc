//! Ways of writing against tonic's public API: one source (`ways.rs`), compiled once with tonic's types
//! and once with Ringway's. Only the `use` lines differ.
#![forbid(unsafe_code)]
// tonic's `Server` adds services by `&mut`, and people write `let mut` for it.
#![allow(unused_mut)]

/// With tonic's types.
pub mod over_tonic {
    use tonic::transport::channel::Change;
    use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

    #[allow(missing_docs)]
    pub mod stubs {
        include!(concat!(env!("OUT_DIR"), "/tonic/ways.rs"));
    }

    include!("ways.rs");
}

/// With Ringway's.
pub mod over_ringway {
    use ringway::{Change, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

    #[allow(missing_docs)]
    pub mod stubs {
        include!(concat!(env!("OUT_DIR"), "/ringway/ways.rs"));
    }

    include!("ways.rs");
}
