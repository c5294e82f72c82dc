//! What an operator may set for the local paths of one process.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use ringway_ring::EndpointConfig;

use crate::spin::WaitPolicy;

/// Chooses the engine of sockets where the settings do not.
const ENGINE_VARIABLE: &str = "RINGWAY_SOCKET_ENGINE";

/// The users that may be at the other end, as far as the kernel tells.
///
/// ```
/// use ringway_local::UidPolicy;
///
/// assert!(UidPolicy::SameUser.allows(0)); // root
/// assert!(UidPolicy::Only([1000].into()).allows(1000));
/// assert!(!UidPolicy::Only([1000].into()).allows(1001));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UidPolicy {
    /// This process's own user, and root.
    #[default]
    SameUser,
    /// The users listed.
    Only(BTreeSet<u32>),
    /// Everybody.
    Anyone,
}

impl UidPolicy {
    /// Returns true if a peer of this uid is let in. The uid that stands for all users whom this process's
    /// user namespace does not map is nobody's: it is let in by [`UidPolicy::Anyone`] alone.
    pub fn allows(&self, uid: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.allows_of(uid, own, ringway_sys::is_hidden_uid(uid))
    }

    fn allows_of(&self, uid: u32, own: u32, is_hidden: bool) -> bool {
        match self {
            Self::Anyone => true,
            Self::SameUser | Self::Only(_) if is_hidden => false,
            Self::SameUser => uid == 0 || uid == own,
            Self::Only(uids) => uids.contains(&uid),
        }
    }

    /// Whether users come who can enter nothing that is this process's own.
    pub(crate) fn allows_others(&self) -> bool {
        match self {
            Self::SameUser => false,
            Self::Only(uids) => !uids.iter().all(|uid| Self::SameUser.allows(*uid)),
            Self::Anyone => true,
        }
    }
}

/// Which links a process takes part in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Links {
    /// Shared memory, or a socket where that is refused.
    #[default]
    Any,
    /// Shared memory alone.
    Shm,
    /// A socket alone.
    Socket,
}

/// What moves the bytes of a socket link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SocketEngine {
    /// What `RINGWAY_SOCKET_ENGINE` says (`uring`, `epoll` or `auto`); io_uring where the kernel
    /// allows it, else epoll.
    #[default]
    Auto,
    /// io_uring, or no connection.
    Uring,
    /// epoll; a client that says so has its server do without io_uring as well.
    Epoll,
}

impl SocketEngine {
    /// What was set, or what the environment says.
    pub(crate) fn resolve(self) -> Result<Self, String> {
        match (self, std::env::var(ENGINE_VARIABLE)) {
            (Self::Auto, Ok(name)) => name.parse(),
            (engine, _) => Ok(engine),
        }
    }
}

impl FromStr for SocketEngine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "" | "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            other => Err(format!(
                "`{other}` is no socket engine: set {ENGINE_VARIABLE} to uring, epoll or auto"
            )),
        }
    }
}

/// Settings of the local paths. The defaults suit.
///
/// ```
/// use std::time::Duration;
///
/// let mut config = ringway_local::LocalConfig::default();
/// config.handshake_timeout = Duration::from_secs(30); // a plugin that takes long to start
/// ```
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Windows, numbers of calls, keepalive.
    pub wire: ringway_wire::Config,
    /// Sizes of rings and arenas.
    pub memory: EndpointConfig,
    /// Who may be at the other end.
    pub peers: UidPolicy,
    /// Which links are used: as a client, what is asked for; as a server, what is offered.
    pub links: Links,
    /// What moves the bytes of a socket link.
    pub socket_engine: SocketEngine,
    /// How callers and drivers wait. Default: what `RINGWAY_WAIT` says, else adaptive.
    pub wait_policy: WaitPolicy,
    /// How long a peer may take nothing of what it was sent while calls wait; then it is given up, and they end
    /// `UNAVAILABLE`. A process that is stopped or stuck is found out by it. `None`: for ever. Default: 20 s.
    pub stall_timeout: Option<Duration>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// As a server: lets a client hold several connections, where its callers contend for one. To be left on unless
    /// something of the server is limited for each connection.
    pub lets_clients_hold_several: bool,
    /// Connections that a server holds at once for each of its names; further ones are turned away. Never more
    /// than this process has descriptors and mappings for.
    pub max_connections: usize,
    /// The same for each user: one that floods the server takes no other's place.
    pub max_connections_per_uid: usize,
    /// Bytes that the peers of each user may take up in all of their connections: shared memory that this process
    /// makes for them and they have not given back, and messages of theirs that nobody has read. Never more than half of the memory that it may use, or a quarter where other
    /// users are let in. What does not fit ends `RESOURCE_EXHAUSTED`; a new connection takes a socket.
    pub max_memory_per_uid: usize,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            wire: ringway_wire::Config::default(),
            memory: EndpointConfig::default(),
            peers: UidPolicy::default(),
            links: Links::default(),
            socket_engine: SocketEngine::default(),
            wait_policy: WaitPolicy::from_environment(),
            stall_timeout: Some(Duration::from_secs(20)),
            handshake_timeout: Duration::from_secs(5),
            lets_clients_hold_several: true,
            max_connections: 4096,
            max_connections_per_uid: 2048,
            max_memory_per_uid: usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that runs as the overflow uid sees each user that is not mapped as its own.
    #[test]
    fn a_uid_that_may_be_anybodys_is_nobodys() {
        const OVERFLOW: u32 = 65_534;
        assert!(UidPolicy::SameUser.allows_of(OVERFLOW, OVERFLOW, false));
        assert!(!UidPolicy::SameUser.allows_of(OVERFLOW, OVERFLOW, true));
        assert!(!UidPolicy::Only([OVERFLOW].into()).allows_of(OVERFLOW, 1000, true));
        assert!(UidPolicy::Anyone.allows_of(OVERFLOW, 1000, true));
    }

    #[test]
    fn a_policy_lets_in_whom_it_names() {
        let own = rustix::process::geteuid().as_raw();
        assert!(UidPolicy::SameUser.allows(own));
        assert!(!UidPolicy::SameUser.allows(own + 1));
        assert!(UidPolicy::Only([7].into()).allows(7));
        assert!(!UidPolicy::Only([7].into()).allows(0));
        assert!(UidPolicy::Anyone.allows(12345));
        assert!(UidPolicy::Anyone.allows_others());
        assert!(UidPolicy::Only([own, own + 1].into()).allows_others());
        assert!(!UidPolicy::Only([own, 0].into()).allows_others());
        assert!(!UidPolicy::SameUser.allows_others());
    }
}
