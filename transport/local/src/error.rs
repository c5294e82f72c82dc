//! What can go wrong on a local path: one enum for each place where it is met.

use std::io;
use std::path::PathBuf;

/// Why a rendezvous directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The name can't be a directory entry.
    #[error(
        "`{0}` can't be a server's name: use host:port, at most 255 bytes, without `/` and not starting with `.`"
    )]
    Name(String),
    /// The directory can't be made.
    #[error(
        "can't make the socket directory {path}: {error}; set RINGWAY_DIR to a directory of yours"
    )]
    Create {
        /// Which directory.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The directory can't be opened.
    #[error(
        "can't open the socket directory {path}: {error}; set RINGWAY_DIR to a directory of yours"
    )]
    Open {
        /// Which directory.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The directory belongs to somebody else.
    #[error(
        "the socket directory {path} belongs to uid {owner_uid}, this process is uid {own_uid}: run both ends as one user, or set RINGWAY_DIR"
    )]
    Owner {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        owner_uid: u32,
        /// Who we are.
        own_uid: u32,
    },
    /// Others may write to the directory.
    #[error(
        "the socket directory {path} has mode {mode:o}, so others could put a socket of theirs in it: chmod 0700 {path}"
    )]
    Writable {
        /// Which directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Why no local connection came to be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens under the name.
    #[error(
        "no server called `{name}` listens in {directory}: is it running on this host, with the same RINGWAY_DIR?"
    )]
    Absent {
        /// The name that was looked for.
        name: String,
        /// Where.
        directory: PathBuf,
    },
    /// There is no directory in which servers could be found.
    #[error(
        "there is no socket directory {directory}, so `{name}` can't be found on this host: if it runs here, give both ends one directory (in containers: a shared volume) and name it by RINGWAY_DIR"
    )]
    NoDirectory {
        /// The name that was looked for.
        name: String,
        /// The directory that is not there.
        directory: PathBuf,
    },
    /// A socket is there, and nobody listens on it.
    #[error(
        "nobody listens on {path} any more: the server `{name}` was killed, or runs on another host or with another RINGWAY_DIR; start it anew here, or remove the file"
    )]
    Stale {
        /// The name that was looked for.
        name: String,
        /// The socket that was left behind.
        path: PathBuf,
    },
    /// The directory must not be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The peer's user is not one that is allowed.
    #[error(
        "`{name}` is served by uid {uid}, which is not allowed: allow it with allow_local, or run both ends as one user"
    )]
    PeerUid {
        /// The server's name.
        name: String,
        /// The uid found.
        uid: u32,
    },
    /// The handshake failed.
    #[error("handshake with `{name}` failed: {reason}")]
    Handshake {
        /// The server's name.
        name: String,
        /// What was wrong.
        reason: String,
    },
    /// The handshake took too long.
    #[error("`{name}` did not finish the handshake within {seconds} s")]
    HandshakeTimeout {
        /// The server's name.
        name: String,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The region could not be made or was refused.
    #[error("shared memory with `{name}` failed: {reason}")]
    Region {
        /// The server's name.
        name: String,
        /// What was wrong.
        reason: String,
    },
    /// A system call failed.
    #[error("can't connect to `{name}`: {error}")]
    Io {
        /// The server's name.
        name: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A child process can't be started.
    #[error("can't start `{program}`: {error}")]
    Start {
        /// The program.
        program: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A child process went before it served.
    #[error(
        "`{program}` has gone ({end}) before it served over its pipes ({reason}): does it call serve_pipe()?"
    )]
    ChildGone {
        /// The program.
        program: String,
        /// How it ended.
        end: String,
        /// What the handshake came to.
        reason: String,
    },
}

/// Why a pipe can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// Nobody handed pipes to this process.
    #[error(
        "no parent started this process to serve over pipes (RINGWAY_PIPE is not set): start it with ringway::Child"
    )]
    NoParent,
    /// The environment says something else than which descriptors the pipes are.
    #[error("RINGWAY_PIPE={0} does not name two pipes: leave it to ringway::Child")]
    Variable(String),
    /// A descriptor that was handed over is not the pipe that it should be.
    #[error(
        "descriptor {number} is not the pipe that the parent made ({error}): take the pipes over once, before anything closes descriptors"
    )]
    Descriptor {
        /// Which descriptor.
        number: i32,
        /// What was found.
        error: io::Error,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer closed its end, or its process ended.
    #[error("the peer has gone")]
    PeerGone,
    /// The peer did not answer a keepalive ping in time. It may still be there, stopped or cut off,
    /// and act on what it was sent when it comes to.
    #[error("the peer took nothing, or answered no ping, in time: it may be stopped or stuck")]
    PeerSilent,
    /// The peer was a child process of this one, and has gone.
    #[error("the child process has gone: {0}")]
    ChildGone(String),
    /// The peer broke the protocol; nothing of it is believed any more.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(String),
    /// This end closed the connection.
    #[error("the connection was closed here")]
    ByUs,
    /// The connection is that of the process from which this one was forked.
    #[error(
        "it is the connection of the process from which this one was forked: make a channel after the fork, in the child"
    )]
    Inherited,
    /// A system call failed.
    #[error("the connection failed: {0}")]
    Io(String),
}

/// What a sender waits for. Each comes in a way of its own: who waited for another would be woken in
/// vain, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Room in the ring, or in the socket's buffer.
    #[error("no room on the link")]
    Room,
    /// The call's credit.
    #[error("no credit for the call")]
    CallCredit,
    /// The connection's credit.
    #[error("no credit on the connection")]
    Credit,
    /// The connection's credit for large messages.
    #[error("no credit for large messages on the connection")]
    LargeCredit,
    /// The call's share of the connection's credit.
    #[error("no credit left for the call's share")]
    Share,
    /// A block for a large message.
    #[error("no free block for a large message")]
    Memory,
}

impl ConnectError {
    /// Whether no such server is on this host, as far as can be seen; nothing was refused.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::NoDirectory { .. } | Self::Stale { .. }
        )
    }
}

/// Why a frame was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection has ended; nothing of the call reached the peer.
    #[error("the connection has ended: {0}")]
    Closed(Closed),
    /// The peer takes no new calls.
    #[error("the peer takes no new calls")]
    GoingAway,
    /// The deadline had passed before anything was sent.
    #[error("the deadline has already passed")]
    DeadlinePassed,
    /// The call has ended meanwhile.
    #[error("the call has ended")]
    CallEnded,
    /// Something is missing now; wait for it.
    #[error("{0} now")]
    Blocked(Lack),
    /// A limit of this connection.
    #[error("{0}")]
    Limit(String),
    /// Memory for the message could not be had.
    #[error("no memory for a message of {len_bytes} bytes: {reason}")]
    Memory {
        /// The message's length.
        len_bytes: usize,
        /// Why not.
        reason: String,
    },
}
