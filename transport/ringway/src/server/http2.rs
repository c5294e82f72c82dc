//! What is asked of a server's network path alone.

use std::time::Duration;

use super::Server;

/// What HTTP/2 and TCP are told. Local paths have neither: nothing of this concerns them.
impl Server {
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

    /// Streams that a client may have open on a connection; beyond them it waits. Default: no limit.
    #[must_use]
    pub fn max_concurrent_streams(mut self, limit: impl Into<Option<u32>>) -> Self {
        let limit = limit.into();
        self.net.ask(move |net| net.max_concurrent_streams = limit);
        self
    }

    /// How long a connection lives before its client is told to make another. Default: no end.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.net
            .ask(move |net| net.tuning.max_connection_age = Some(age));
        self
    }

    /// How long calls in flight may go on then. Default: until they end.
    #[must_use]
    pub fn max_connection_age_grace(mut self, grace: Duration) -> Self {
        self.net
            .ask(move |net| net.tuning.max_connection_age_grace = Some(grace));
        self
    }

    /// Whether windows follow what the network does, in place of fixed ones. Default: no.
    #[must_use]
    pub fn http2_adaptive_window(mut self, enabled: Option<bool>) -> Self {
        self.net
            .ask(move |net| net.tuning.adaptive_window = enabled);
        self
    }

    /// Streams that a client may reset before they were accepted, before its connection is given up.
    #[must_use]
    pub fn http2_max_pending_accept_reset_streams(mut self, max: Option<usize>) -> Self {
        self.net
            .ask(move |net| net.tuning.max_pending_accept_reset_streams = max);
        self
    }

    /// Resets for errors of a client before its connection is given up.
    #[must_use]
    pub fn http2_max_local_error_reset_streams(mut self, max: Option<usize>) -> Self {
        self.net
            .ask(move |net| net.tuning.max_local_error_reset_streams = max);
        self
    }

    /// Silence before TCP asks whether the client is still there; `None` never asks. Default: `None`.
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

    /// TCP's questions before a silent client is given up; `None` leaves it to the system.
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

    /// The most that a request's head may hold, in bytes; `None` changes nothing. Default: 176 KiB, which
    /// holds as much metadata as the local paths take.
    #[must_use]
    pub fn http2_max_header_list_size(mut self, max: impl Into<Option<u32>>) -> Self {
        let max = max.into();
        self.net
            .ask(move |net| net.tuning.max_header_list_bytes = max);
        self
    }

    /// The largest HTTP/2 frame that a client may send, in bytes; `None` leaves it to h2 (16 KiB).
    #[must_use]
    pub fn max_frame_size(mut self, size: impl Into<Option<u32>>) -> Self {
        let size = size.into();
        self.net.ask(move |net| net.max_frame_bytes = size);
        self
    }

    /// Whether HTTP/1.1 is spoken as well, as grpc-web needs it. Default: no.
    #[must_use]
    pub fn accept_http1(mut self, accept: bool) -> Self {
        self.net.ask(move |net| net.tuning.accept_http1 = accept);
        self
    }
}
