//! The client's side: one channel, and the cases over it.

use ringway::{Channel, Endpoint, MessageCompression, Path};
use ringway_proto::grpc_testing::test_service_client::TestServiceClient;
use tonic::Response;
use tonic::codec::CompressionEncoding::Gzip;

use crate::case::Case;
use crate::cases::{calls, cancelled, compressed, metadata, statuses, streams};
use crate::failure::Failure;
use crate::soak::{self, Soak};

/// Stubs that compress messages one by one, and tell which came so.
pub(crate) type Compressing = TestServiceClient<MessageCompression<Channel>>;

/// Runs cases against one server.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) channel: Channel,
    pub(crate) soak: Soak,
    pub(crate) path: Option<Path>,
}

impl Client {
    /// A client of the server at `endpoint`.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Failure> {
        let lazy = endpoint.connect_lazy();
        let channel = if lazy.path() == Path::Grpc {
            // Each case fails by itself, and in its own time, where nobody answers over the network.
            lazy
        } else {
            endpoint.connect().await?
        };
        Ok(Self {
            channel,
            endpoint,
            soak: Soak::default(),
            path: None,
        })
    }

    /// Fails each case whose calls don't take `path`.
    #[must_use]
    pub fn expect_path(mut self, path: Path) -> Self {
        self.path = Some(path);
        self
    }

    /// How the two soak cases are run.
    #[must_use]
    pub fn soak(mut self, soak: Soak) -> Self {
        self.soak = soak;
        self
    }

    /// Runs one case.
    ///
    /// # Errors
    /// What did not hold.
    pub async fn run(&self, case: Case) -> Result<(), Failure> {
        match case {
            Case::EmptyUnary => calls::empty_unary(self).await,
            Case::LargeUnary => calls::large_unary(self).await,
            Case::ConcurrentLargeUnary => calls::concurrent_large_unary(self).await,
            Case::ClientCompressedUnary => compressed::client_compressed_unary(self).await,
            Case::ServerCompressedUnary => compressed::server_compressed_unary(self).await,
            Case::ClientCompressedStreaming => compressed::client_compressed_streaming(self).await,
            Case::ServerCompressedStreaming => compressed::server_compressed_streaming(self).await,
            Case::ClientStreaming => streams::client_streaming(self).await,
            Case::ServerStreaming => streams::server_streaming(self).await,
            Case::PingPong => streams::ping_pong(self).await,
            Case::EmptyStream => streams::empty_stream(self).await,
            Case::CustomMetadata => metadata::custom_metadata(self).await,
            Case::StatusCodeAndMessage => statuses::status_code_and_message(self).await,
            Case::SpecialStatusMessage => statuses::special_status_message(self).await,
            Case::UnimplementedMethod => statuses::unimplemented_method(self).await,
            Case::UnimplementedService => statuses::unimplemented_service(self).await,
            Case::CancelAfterBegin => cancelled::cancel_after_begin(self).await,
            Case::CancelAfterFirstResponse => cancelled::cancel_after_first_response(self).await,
            Case::TimeoutOnSleepingServer => cancelled::timeout_on_sleeping_server(self).await,
            Case::RpcSoak => soak::rpc_soak(self).await,
            Case::ChannelSoak => soak::channel_soak(self).await,
        }
    }

    pub(crate) fn service(&self) -> TestServiceClient<Channel> {
        TestServiceClient::new(self.channel.clone())
    }

    /// The same, with messages compressed one by one.
    pub(crate) fn compressing(&self) -> Compressing {
        let caller = MessageCompression::new(self.channel.clone(), Gzip);
        TestServiceClient::new(caller).accept_compressed(Gzip)
    }

    /// The message of `response`, if it took the path that is to be tested.
    pub(crate) fn take<T>(&self, response: Response<T>) -> Result<T, Failure> {
        self.came_by(&response)?;
        Ok(response.into_inner())
    }

    pub(crate) fn came_by<T>(&self, response: &Response<T>) -> Result<(), Failure> {
        let found = Path::of(response);
        match self.path {
            Some(expected) if found != Some(expected) => {
                Err(Failure::OtherPath { expected, found })
            }
            _ => Ok(()),
        }
    }
}
