//! The paths that the demo can take, and the addresses that lead to them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU16, Ordering};
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

/// A loopback port that nobody has, for a service to listen on. This process gives each port once, and none
/// of those that the kernel gives to connections (`net.ipv4.ip_local_port_range`, by default from 32768 on):
/// of these, one could be taken before the service listens.
///
/// # Errors
/// All are taken, or none may be bound.
pub fn free_port() -> io::Result<SocketAddr> {
    const PORTS: Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes side by side begin at different ones.
    let first = std::process::id().wrapping_mul(97) % u32::from(count);
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in PORTS {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (first + next) % u32::from(count) + u32::from(PORTS.start);
        let port = u16::try_from(port).map_err(io::Error::other)?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(free) => return free.local_addr(),
            Err(error) => last = error,
        }
    }
    Err(last)
}
