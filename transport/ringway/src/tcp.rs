//! What both ends ask of HTTP/2 and TCP alike. Local paths have neither: nothing of this concerns them.

/// The setters that an endpoint and a server have in common.
macro_rules! settings_of_both_ends {
    ($builder:ty, $peer:literal) => {
        impl $builder {
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

            #[doc = concat!("The largest HTTP/2 frame that the ", $peer, " may send, in bytes; `None` leaves it")]
            /// to h2 (16 KiB).
            #[must_use]
            pub fn max_frame_size(mut self, size: impl Into<Option<u32>>) -> Self {
                let size = size.into();
                self.net.ask(move |net| net.max_frame_bytes = size);
                self
            }

            #[doc = concat!("Silence before TCP asks if the ", $peer, " is still there; `None` never asks.")]
            /// Default: `None`.
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

            #[doc = concat!("TCP's questions before a silent ", $peer, " is given up; `None` leaves it to the system.")]
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
        }
    };
}

pub(crate) use settings_of_both_ends;
