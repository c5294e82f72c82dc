//! The names of the paths, as the demo and `ringway compare` print them.

use ringway_proto::shop::v1::Path;

/// The path's name: `shm`, `socket`, `grpc-unix`, `grpc-tcp` or `inproc`.
#[must_use]
pub fn path_name(path: Path) -> &'static str {
    match path {
        Path::Unspecified => "unknown",
        Path::Shm => "shm",
        Path::Socket => "socket",
        Path::GrpcUnix => "grpc-unix",
        Path::GrpcTcp => "grpc-tcp",
        Path::Inproc => "inproc",
    }
}
