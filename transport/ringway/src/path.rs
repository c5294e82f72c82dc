//! The paths a call can take, and how a response tells which one it took.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use ringway_local::LinkKind;
use tonic::Extensions;

/// What carried a call.
///
/// Every response carries the path it came by as an extension:
///
/// ```
/// use ringway::Path;
///
/// let mut response = tonic::Response::new(());
/// response.extensions_mut().insert(Path::Shm);
/// assert_eq!(Path::of(&response), Some(Path::Shm));
/// assert_eq!("socket".parse(), Ok(Path::Socket));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Path {
    /// Memory regions shared by two processes on one host.
    Shm,
    /// A Unix stream socket with Ringway's own frames.
    Socket,
    /// Two pipes between a parent and its child process, with Ringway's own frames.
    Pipe,
    /// A pair of queues inside one process.
    Inproc,
    /// HTTP/2 over TCP or a Unix socket: ordinary gRPC.
    Grpc,
}

impl Path {
    /// The path that `response` came by; `None` if it did not come through a [`crate::Channel`].
    pub fn of<T>(response: &tonic::Response<T>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// The extensions of a response that came by this path. To copy ready ones costs less than to make them.
    pub(crate) fn mark(self) -> Extensions {
        static MARKS: OnceLock<[Extensions; 5]> = OnceLock::new();
        const ALL: [Path; 5] = [
            Path::Shm,
            Path::Socket,
            Path::Pipe,
            Path::Inproc,
            Path::Grpc,
        ];
        let marks = MARKS.get_or_init(|| {
            ALL.map(|path| {
                let mut extensions = Extensions::new();
                extensions.insert(path);
                extensions
            })
        });
        marks[self as usize].clone()
    }

    /// The path that a local connection is.
    pub(crate) fn over(connection: &ringway_local::Connection) -> Self {
        connection.kind().into()
    }

    /// The name used in addresses, environment variables, tables and spans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Socket => "socket",
            Self::Pipe => "pipe",
            Self::Inproc => "inproc",
            Self::Grpc => "grpc",
        }
    }

    /// OpenTelemetry's `network.transport`; `None` for gRPC, which has more than one.
    pub(crate) const fn transport(self) -> Option<&'static str> {
        match self {
            Self::Shm => Some("shm"),
            Self::Socket => Some("unix"),
            Self::Pipe => Some("pipe"),
            Self::Inproc => Some("inproc"),
            Self::Grpc => None,
        }
    }

    /// Whether calls on this path stay on the host.
    pub const fn is_local(self) -> bool {
        !matches!(self, Self::Grpc)
    }
}

impl From<LinkKind> for Path {
    fn from(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Shm => Self::Shm,
            LinkKind::Socket => Self::Socket,
            LinkKind::Pipe => Self::Pipe,
            LinkKind::Inproc => Self::Inproc,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a path: use shm, socket, pipe, inproc or grpc")]
pub struct UnknownPath(pub String);

impl FromStr for Path {
    type Err = UnknownPath;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "shm" => Ok(Self::Shm),
            "socket" => Ok(Self::Socket),
            "pipe" => Ok(Self::Pipe),
            "inproc" => Ok(Self::Inproc),
            "grpc" => Ok(Self::Grpc),
            other => Err(UnknownPath(other.to_owned())),
        }
    }
}
