//! The project's contracts and the stubs generated from them.
#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

/// `ringway.bench.v1`: what `ringway compare` times.
pub mod bench {
    tonic::include_proto!("ringway.bench.v1");

    /// The contract itself, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench.bin"));
}

/// The same contract with plain tonic's stubs and messages of their own: what ours are compared with.
pub mod bench_tonic {
    include!(concat!(env!("OUT_DIR"), "/tonic/ringway.bench.v1.rs"));
}

/// `shop.v1`: the contracts of the example shop in `services/`.
pub mod shop {
    /// The first version.
    pub mod v1 {
        tonic::include_proto!("shop.v1");

        /// The contracts themselves, for reflection.
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shop.bin"));
    }
}

/// `grpc.testing`: the service of gRPC's interoperability tests, as every language has it.
pub mod grpc_testing {
    tonic::include_proto!("grpc.testing");
}
