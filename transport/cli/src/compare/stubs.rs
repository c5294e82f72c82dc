//! The stubs that the comparison calls, named in this one place, and what the load needs of them.
//!
//! Two sets are generated from one contract: Ringway's, and tonic's own. Even their messages are
//! different types, so the load is generic over both.

use std::future::Future;

use bytes::Bytes;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// What ringway-build generates: the rows of Ringway's own paths.
pub(crate) mod ours {
    pub(crate) use ringway_proto::bench::bench_blocking_client::BenchBlockingClient;
    pub(crate) use ringway_proto::bench::bench_client::BenchClient;
    pub(crate) use ringway_proto::bench::bench_server::{Bench, BenchServer};
    pub(crate) use ringway_proto::bench::{Payload, StreamRequest, Summary};
}

/// What tonic generates: the rows `grpc-unix`, `grpc-tcp` and `shm-tonic`.
pub(crate) mod plain {
    pub(crate) use ringway_proto::bench_tonic::bench_client::BenchClient;
    pub(crate) use ringway_proto::bench_tonic::bench_server::{Bench, BenchServer};
    pub(crate) use ringway_proto::bench_tonic::{Payload, StreamRequest, Summary};
}

/// A numbered payload, whichever stubs it belongs to.
pub(crate) trait Payload: Send + 'static {
    fn new(sequence: u64, data: Bytes) -> Self;

    fn sequence(&self) -> u64;

    fn data(&self) -> &Bytes;
}

/// What a server counted in a client's stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// A client of the bench service, whatever stubs and path it stands on.
///
/// The load is generic over it, so that each path's calls are compiled as a user's would be.
pub(crate) trait Caller: Clone + Send + 'static {
    type Payload: Payload;

    fn unary(&mut self, request: Request<Self::Payload>) -> impl Answer<Self::Payload>;

    fn server_stream(
        &mut self,
        count: u64,
        size_bytes: u32,
    ) -> impl Answer<Streaming<Self::Payload>>;

    fn client_stream<S>(&mut self, payloads: S) -> impl Answer<Count>
    where
        S: Stream<Item = Self::Payload> + Send + 'static;

    fn bidi<S>(&mut self, payloads: S) -> impl Answer<Streaming<Self::Payload>>
    where
        S: Stream<Item = Self::Payload> + Send + 'static;
}

/// What a call gives back.
pub(crate) trait Answer<T>: Future<Output = Result<Response<T>, Status>> + Send {}

impl<T, F: Future<Output = Result<Response<T>, Status>> + Send> Answer<T> for F {}

/// Generated messages share their fields' names, not a trait.
macro_rules! messages {
    ($stubs:ident) => {
        impl Payload for $stubs::Payload {
            fn new(sequence: u64, data: Bytes) -> Self {
                $stubs::Payload { sequence, data }
            }

            fn sequence(&self) -> u64 {
                self.sequence
            }

            fn data(&self) -> &Bytes {
                &self.data
            }
        }

        impl From<$stubs::Summary> for Count {
            fn from(summary: $stubs::Summary) -> Self {
                Count {
                    messages: summary.messages,
                    bytes: summary.bytes,
                }
            }
        }

        impl From<Count> for $stubs::Summary {
            fn from(count: Count) -> Self {
                $stubs::Summary {
                    messages: count.messages,
                    bytes: count.bytes,
                }
            }
        }
    };
}
messages!(ours);
messages!(plain);

/// Nor do generated clients.
macro_rules! caller {
    ($stubs:ident over $channel:ty) => {
        impl Caller for $stubs::BenchClient<$channel> {
            type Payload = $stubs::Payload;

            fn unary(&mut self, request: Request<$stubs::Payload>) -> impl Answer<$stubs::Payload> {
                $stubs::BenchClient::unary(self, request)
            }

            fn server_stream(
                &mut self,
                count: u64,
                size_bytes: u32,
            ) -> impl Answer<Streaming<$stubs::Payload>> {
                let request = $stubs::StreamRequest { count, size_bytes };
                $stubs::BenchClient::server_stream(self, request)
            }

            async fn client_stream<S>(&mut self, payloads: S) -> Result<Response<Count>, Status>
            where
                S: Stream<Item = $stubs::Payload> + Send + 'static,
            {
                let summary = $stubs::BenchClient::client_stream(self, payloads).await?;
                Ok(summary.map(Count::from))
            }

            fn bidi<S>(&mut self, payloads: S) -> impl Answer<Streaming<$stubs::Payload>>
            where
                S: Stream<Item = $stubs::Payload> + Send + 'static,
            {
                $stubs::BenchClient::bidi(self, payloads)
            }
        }
    };
}
caller!(ours over ringway::Channel);
caller!(plain over ringway::Channel);
caller!(plain over tonic::transport::Channel);
