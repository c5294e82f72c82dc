//! The paths that the demo can take, and the addresses that lead to them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path as FilePath;
use std::{fmt, io};

use ringway_proto::shop::v1::Path;
use shop_link::{Address, path_name};

/// A path as `--paths` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DemoPath {
    /// Memory that two processes share.
    Shm,
    /// Unix sockets with Ringway's own frames.
    Socket,
    /// HTTP/2 over Unix sockets.
    GrpcUnix,
    /// HTTP/2 over loopback TCP.
    GrpcTcp,
}

impl DemoPath {
    /// What a hop over it reports.
    pub(crate) fn carries(self) -> Path {
        match self {
            Self::Shm => Path::Shm,
            Self::Socket => Path::Socket,
            Self::GrpcUnix => Path::GrpcUnix,
            Self::GrpcTcp => Path::GrpcTcp,
        }
    }

    /// Where a service listens, and is called, on this path.
    pub(crate) fn address(self, scratch: &FilePath, service: &str) -> io::Result<Address> {
        // A name is enough where no port is listened on: the directory is this demo's own.
        let name = || format!("{service}:1");
        Ok(match self {
            Self::Shm => Address::Shm(name()),
            Self::Socket => Address::Socket(name()),
            Self::GrpcUnix => Address::Unix(scratch.join(format!("{service}.sock"))),
            Self::GrpcTcp => Address::Tcp(free_port()?.to_string()),
        })
    }
}

impl fmt::Display for DemoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(path_name(self.carries()))
    }
}

/// A loopback port that nobody has. Whoever takes it between here and its use makes
/// the service fail with a clear error.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
