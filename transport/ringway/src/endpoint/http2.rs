//! What is asked of the network path alone.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::Endpoint;
use crate::error::Error;

/// What HTTP/2 and TCP are told. Local paths have neither: nothing of this concerns them.
impl Endpoint {
    /// What is said before tonic's own name in `user-agent`.
    ///
    /// # Errors
    /// It is no header's value.
    pub fn user_agent<T>(mut self, user_agent: T) -> Result<Self, Error>
    where
        T: TryInto<HeaderValue>,
    {
        let user_agent = user_agent.try_into().map_err(|_| Error::UserAgent)?;
        self.net
            .ask(move |net| net.tuning.user_agent = Some(user_agent.clone()));
        Ok(self)
    }

    /// Scheme and authority that calls name, in place of where they go.
    #[must_use]
    pub fn origin(mut self, origin: Uri) -> Self {
        self.net
            .ask(move |net| net.tuning.origin = Some(origin.clone()));
        self
    }

    /// What an attempt to connect may take, at least. Default: 20 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.net.ask(move |net| net.connect_timeout = timeout);
        self
    }

    /// Silence before TCP asks whether the server is still there; `None` never asks. Default: `None`.
    #[must_use]
    pub fn tcp_keepalive(mut self, idle: Option<Duration>) -> Self {
        self.net
            .ask(move |net| net.tuning.tcp_keepalive.idle = idle);
        self
    }

    /// Time between TCP's questions; `None` leaves it to the system.
    #[must_use]
    pub fn tcp_keepalive_interval(mut self, interval: Option<Duration>) -> Self {
        self.net
            .ask(move |net| net.tuning.tcp_keepalive.interval = interval);
        self
    }

    /// TCP's questions before a silent server is given up; `None` leaves it to the system.
    #[must_use]
    pub fn tcp_keepalive_retries(mut self, retries: Option<u32>) -> Self {
        self.net
            .ask(move |net| net.tuning.tcp_keepalive.retries = retries);
        self
    }

    /// `TCP_NODELAY`. Default: on.
    #[must_use]
    pub fn tcp_nodelay(mut self, enabled: bool) -> Self {
        self.net.ask(move |net| net.tcp_nodelay = enabled);
        self
    }

    /// HTTP/2 window of each stream, in bytes; `None` changes nothing. Default: 4 MiB.
    #[must_use]
    pub fn initial_stream_window_size(mut self, size: impl Into<Option<u32>>) -> Self {
        if let Some(size) = size.into() {
            self.net.ask(move |net| net.stream_window_bytes = size);
        }
        self
    }

    /// HTTP/2 window of each connection, in bytes; `None` changes nothing. Default: 8 MiB.
    #[must_use]
    pub fn initial_connection_window_size(mut self, size: impl Into<Option<u32>>) -> Self {
        if let Some(size) = size.into() {
            self.net.ask(move |net| net.connection_window_bytes = size);
        }
        self
    }

    /// Calls that wait before a connection takes them; `None` is tonic's default, 1,024.
    #[must_use]
    pub fn buffer_size(mut self, size: impl Into<Option<usize>>) -> Self {
        let size = size.into();
        self.net.ask(move |net| net.tuning.buffer_size = size);
        self
    }

    /// Whether windows follow what the network does, in place of fixed ones. Default: no.
    #[must_use]
    pub fn http2_adaptive_window(mut self, enabled: bool) -> Self {
        self.net
            .ask(move |net| net.tuning.adaptive_window = Some(enabled));
        self
    }

    /// HPACK's table, in bytes. Default: 4,096.
    #[must_use]
    pub fn http2_header_table_size(mut self, size: u32) -> Self {
        self.net
            .ask(move |net| net.tuning.header_table_bytes = Some(size));
        self
    }

    /// The most that a response's head may hold, in bytes. Default: 176 KiB, which holds as much metadata
    /// as the local paths take.
    #[must_use]
    pub fn http2_max_header_list_size(mut self, size: u32) -> Self {
        self.net
            .ask(move |net| net.tuning.max_header_list_bytes = Some(size));
        self
    }

    /// Streams that were reset on this side and are remembered.
    #[must_use]
    pub fn http2_max_concurrent_reset_streams(mut self, max: usize) -> Self {
        self.net
            .ask(move |net| net.tuning.max_concurrent_reset_streams = Some(max));
        self
    }

    /// How long they are remembered.
    #[must_use]
    pub fn http2_reset_stream_duration(mut self, duration: Duration) -> Self {
        self.net
            .ask(move |net| net.tuning.reset_stream_duration = Some(duration));
        self
    }

    /// Resets for errors of the server before its connection is given up; `None` is without end.
    #[must_use]
    pub fn http2_max_local_error_reset_streams(mut self, max: impl Into<Option<usize>>) -> Self {
        let max = max.into();
        self.net
            .ask(move |net| net.tuning.max_local_error_reset_streams = Some(max));
        self
    }

    /// The largest HTTP/2 frame that the server may send, in bytes; `None` leaves it to h2 (16 KiB).
    #[must_use]
    pub fn max_frame_size(mut self, size: impl Into<Option<u32>>) -> Self {
        let size = size.into();
        self.net.ask(move |net| net.max_frame_bytes = size);
        self
    }

    /// The address of this host that connections come from; `None` leaves it to the system.
    #[must_use]
    pub fn local_address(mut self, address: Option<IpAddr>) -> Self {
        self.net.ask(move |net| net.tuning.local_address = address);
        self
    }

    /// What [`Self::tcp_nodelay`] says.
    pub fn get_tcp_nodelay(&self) -> bool {
        self.net.tcp_nodelay
    }

    /// What [`Self::connect_timeout`] says.
    pub fn get_connect_timeout(&self) -> Option<Duration> {
        Some(self.net.connect_timeout)
    }

    /// What [`Self::tcp_keepalive`] says.
    pub fn get_tcp_keepalive(&self) -> Option<Duration> {
        self.net.tuning.tcp_keepalive.idle
    }

    /// What [`Self::tcp_keepalive_interval`] says.
    pub fn get_tcp_keepalive_interval(&self) -> Option<Duration> {
        self.net.tuning.tcp_keepalive.interval
    }

    /// What [`Self::tcp_keepalive_retries`] says.
    pub fn get_tcp_keepalive_retries(&self) -> Option<u32> {
        self.net.tuning.tcp_keepalive.retries
    }
}
