//! What is asked of a server's network path alone.

use std::time::Duration;

use super::Server;
use crate::tcp::settings_of_both_ends;

settings_of_both_ends!(Server, "client");

/// What HTTP/2 and TCP are told. Local paths have neither: nothing of this concerns them.
impl Server {
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

    /// The most that a request's head may hold, in bytes; `None` changes nothing. Default: 176 KiB, which
    /// holds as much metadata as the local paths take.
    #[must_use]
    pub fn http2_max_header_list_size(mut self, max: impl Into<Option<u32>>) -> Self {
        let max = max.into();
        self.net
            .ask(move |net| net.tuning.max_header_list_bytes = max);
        self
    }

    /// Whether HTTP/1.1 is spoken as well, as grpc-web needs it. Default: no.
    #[must_use]
    pub fn accept_http1(mut self, accept: bool) -> Self {
        self.net.ask(move |net| net.tuning.accept_http1 = accept);
        self
    }
}
