//! What an operator may set for the local paths of one process.

use std::collections::BTreeSet;
use std::time::Duration;

use ringway_ring::EndpointConfig;

/// Which users may be at the other end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UidPolicy {
    /// This process's own user, and root.
    #[default]
    SameUser,
    /// The users listed.
    Only(BTreeSet<u32>),
    /// Everybody who can reach the socket: the directory's permissions decide.
    Anyone,
}

impl UidPolicy {
    /// Whether a peer of this uid is let in.
    pub fn allows(&self, uid: u32) -> bool {
        match self {
            Self::SameUser => uid == 0 || uid == rustix::process::geteuid().as_raw(),
            Self::Only(uids) => uids.contains(&uid),
            Self::Anyone => true,
        }
    }
}

/// Settings of the local paths. The defaults suit.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Windows, numbers of calls, keepalive.
    pub wire: ringway_wire::Config,
    /// Sizes of rings and arenas.
    pub memory: EndpointConfig,
    /// Who may be at the other end.
    pub peers: UidPolicy,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Connections that a server holds at once; further ones are turned away.
    pub max_connections: usize,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            wire: ringway_wire::Config::default(),
            memory: EndpointConfig::default(),
            peers: UidPolicy::default(),
            handshake_timeout: Duration::from_secs(5),
            max_connections: 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_lets_in_whom_it_names() {
        let own = rustix::process::geteuid().as_raw();
        assert!(UidPolicy::SameUser.allows(own));
        assert!(!UidPolicy::SameUser.allows(own + 1));
        assert!(UidPolicy::Only([7].into()).allows(7));
        assert!(!UidPolicy::Only([7].into()).allows(0));
        assert!(UidPolicy::Anyone.allows(12345));
    }
}
