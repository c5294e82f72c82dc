//! What can go wrong while stubs are generated.

use std::{io, path::PathBuf};

/// Why there are no stubs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The .proto files are not valid; protox's debug form has file, line and column.
    #[error("the .proto files do not compile: {0:?}")]
    Proto(protox::Error),

    #[error(
        "`codec_path` is {codec_path}, but Ringway's stubs speak protobuf by prost only: \
         generate this service with tonic_prost_build and serve it with `add_service`"
    )]
    CustomCodec { codec_path: String },

    #[error("OUT_DIR is not set: run within a build script, or call `out_dir`")]
    NoOutDir,

    #[error("`skip_protoc_run` reads the descriptor set from `file_descriptor_set_path`: set it")]
    NoDescriptorSet,

    #[error("could not read the descriptor set {path:?}")]
    ReadDescriptorSet { path: PathBuf, source: io::Error },

    #[error("{path:?} is not a descriptor set")]
    DecodeDescriptorSet {
        path: PathBuf,
        source: prost::DecodeError,
    },

    #[error("could not write the descriptor set {path:?}")]
    WriteDescriptorSet { path: PathBuf, source: io::Error },

    /// The seam to tonic: its generated code no longer has the shape that ours is made from.
    #[error(
        "tonic's generated code for {service} has no {missing}: \
         this version of tonic-prost-build is not one that ringway-build knows"
    )]
    UnknownShape { service: String, missing: String },

    #[error("the code generated for {service} is not valid Rust")]
    Syntax { service: String, source: syn::Error },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}
