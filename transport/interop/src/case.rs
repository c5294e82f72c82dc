//! The cases, by the names that the descriptions give them.

use std::fmt;
use std::str::FromStr;

/// Makes [`Case`] of a table: variant, name, and what must hold.
macro_rules! cases {
    ($($(#[$about:meta])* $case:ident = $name:literal,)*) => {
        /// One case of gRPC's interoperability tests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Case {
            $($(#[$about])* $case,)*
        }

        impl Case {
            /// All cases, in the order of the descriptions.
            pub const ALL: &'static [Self] = &[$(Self::$case,)*];

            /// The name that the descriptions give it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$case => $name,)*
                }
            }
        }
    };
}

cases! {
    /// Messages of zero bytes.
    EmptyUnary = "empty_unary",
    /// 271,828 bytes out, 314,159 back.
    LargeUnary = "large_unary",
    /// The client compresses one request and not the other.
    ClientCompressedUnary = "client_compressed_unary",
    /// The server compresses the response exactly when it is asked to.
    ServerCompressedUnary = "server_compressed_unary",
    /// Four messages out, one back.
    ClientStreaming = "client_streaming",
    /// The client compresses one message of a stream and not the other.
    ClientCompressedStreaming = "client_compressed_streaming",
    /// One message out, four back.
    ServerStreaming = "server_streaming",
    /// The server compresses one message of a stream and not the other.
    ServerCompressedStreaming = "server_compressed_streaming",
    /// Both ways, in lockstep.
    PingPong = "ping_pong",
    /// Nothing, both ways.
    EmptyStream = "empty_stream",
    /// Metadata comes back, initial and trailing, with an answer and with a stream.
    CustomMetadata = "custom_metadata",
    /// A status comes back, from a unary call and from a stream.
    StatusCodeAndMessage = "status_code_and_message",
    /// Whitespace and Unicode in a status message.
    SpecialStatusMessage = "special_status_message",
    /// A method that the service lacks.
    UnimplementedMethod = "unimplemented_method",
    /// A service that the server lacks.
    UnimplementedService = "unimplemented_service",
    /// Cancelled before the first message.
    CancelAfterBegin = "cancel_after_begin",
    /// Cancelled after a message has come back.
    CancelAfterFirstResponse = "cancel_after_first_response",
    /// A deadline of 1 ms passes.
    TimeoutOnSleepingServer = "timeout_on_sleeping_server",
    /// Large calls, one after another, over one channel.
    RpcSoak = "rpc_soak",
    /// Large calls, one after another, each over a channel of its own.
    ChannelSoak = "channel_soak",
    /// A thousand large calls at once.
    ConcurrentLargeUnary = "concurrent_large_unary",
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no case `{0}`: see `ringway interop-client --help` for their names")]
pub struct UnknownCase(pub String);

impl FromStr for Case {
    type Err = UnknownCase;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter().copied();
        all.find(|case| case.name() == name)
            .ok_or_else(|| UnknownCase(name.to_owned()))
    }
}
