//! What an operator may set on one side of a connection.

use std::time::Duration;

use crate::limits;

/// Settings of one side. The defaults suit; their reasons stand in [`crate::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Server: slots for calls that the client may use. A client beyond it gets
    /// [`crate::OpenError::TooManyCalls`] before anything is sent.
    pub call_slots: u32,
    /// Server: calls that it runs at once. One more is answered with `RESOURCE_EXHAUSTED`.
    pub max_concurrent_calls: u32,
    /// Server: the longest that a call may take, whatever its client allows.
    pub call_timeout: Option<Duration>,
    /// Bytes of messages that the peer may have under way on one call.
    pub stream_window_bytes: u32,
    /// The same for the whole connection.
    pub connection_window_bytes: u32,
    /// Server: calls that may be reset before they were answered, in a second.
    pub max_early_resets: u32,
    /// Whether, and how, to find out that a silent peer is dead.
    pub keepalive: Option<KeepAlive>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            call_slots: limits::DEFAULT_CALL_SLOTS,
            max_concurrent_calls: limits::DEFAULT_CALL_SLOTS,
            call_timeout: None,
            stream_window_bytes: limits::DEFAULT_STREAM_WINDOW_BYTES,
            connection_window_bytes: limits::DEFAULT_CONNECTION_WINDOW_BYTES,
            max_early_resets: limits::DEFAULT_MAX_EARLY_RESETS,
            keepalive: None,
        }
    }
}

/// Ping a silent peer, and give it up if it stays silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Further silence after which the peer counts as lost.
    pub timeout: Duration,
    /// Ping also while no call is in flight.
    pub while_idle: bool,
}
