//! What is asked of the network path alone.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::Endpoint;
use crate::error::Error;
use crate::tcp::settings_of_both_ends;

settings_of_both_ends!(Endpoint, "server");

/// What HTTP/2 and TCP are told. Local paths have neither: nothing of this concerns them.
impl Endpoint {
    /// What calls say before tonic's own name in `user-agent`; on local paths before Ringway's, at the price of
    /// metadata with each call.
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
