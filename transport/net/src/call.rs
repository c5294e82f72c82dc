//! One call of each kind, over anything that carries HTTP: what the generated stubs come down to on
//! this path.
//!
//! The request's extensions travel with it, so whoever wants layers to see a `tonic::GrpcMethod`
//! inserts it beforehand.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, future};
use http::Uri;
use http::uri::PathAndQuery;
use http_body::Body as HttpBody;
use prost::Message;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codec::CompressionEncoding,
    metadata::MetadataMap,
};

use crate::fate::Fate;
use crate::guard::{Guarded, Trailers, TrailersAside};
use crate::outgoing::{Outgoing, OutgoingCodec};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a stub was told about the messages of its calls; tonic's defaults otherwise.
#[derive(Clone, Debug, Default)]
pub struct CallSettings {
    /// Compress requests with this encoding.
    pub send_compression: Option<CompressionEncoding>,
    /// Encodings that responses may use.
    pub accept_compression: Vec<CompressionEncoding>,
    /// The largest message to accept; 4 MiB if unset.
    pub max_decoding_bytes: Option<usize>,
    /// The largest message to send; unlimited if unset.
    pub max_encoding_bytes: Option<usize>,
    /// Scheme and authority that requests name.
    pub origin: Option<Uri>,
}

impl CallSettings {
    fn grpc<T>(&self, channel: T) -> Grpc<T> {
        self.apply(match self.origin.clone() {
            Some(origin) => Grpc::with_origin(channel, origin),
            None => Grpc::new(channel),
        })
    }

    fn apply<T>(&self, mut grpc: Grpc<T>) -> Grpc<T> {
        if let Some(encoding) = self.send_compression {
            grpc = grpc.send_compressed(encoding);
        }
        for encoding in &self.accept_compression {
            grpc = grpc.accept_compressed(*encoding);
        }
        if let Some(limit) = self.max_decoding_bytes {
            grpc = grpc.max_decoding_message_size(limit);
        }
        if let Some(limit) = self.max_encoding_bytes {
            grpc = grpc.max_encoding_message_size(limit);
        }
        grpc
    }
}

/// One request, one response.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::uri::PathAndQuery;
/// use ringway_net::{CallSettings, NetOptions, connect_lazy, unary};
///
/// let channel = connect_lazy(&"catalog:50051".parse()?, &NetOptions::default())?;
/// let path = PathAndQuery::from_static("/shop.v1.Catalog/Describe");
/// let name = tonic::Request::new("teapot".to_owned());
/// let answer: tonic::Response<String> = unary(channel, path, &CallSettings::default(), name).await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The status that the server, the network or the codec ended the call with.
pub async fn unary<T, M, R>(
    channel: T,
    path: PathAndQuery,
    settings: &CallSettings,
    request: Request<M>,
) -> Result<Response<R>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    M: Outgoing,
    R: Message + Default + 'static,
{
    let (mut grpc, aside) = ready(channel, settings).await?;
    let answer = grpc.unary(request, path, OutgoingCodec::<M, R>::default());
    answer.await.map(|response| with_trailers(response, &aside))
}

/// A stream of requests, one response.
///
/// # Errors
/// As [`unary`].
pub async fn client_streaming<T, S, M, R>(
    channel: T,
    path: PathAndQuery,
    settings: &CallSettings,
    request: Request<S>,
) -> Result<Response<R>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    S: Stream<Item = M> + Send + 'static,
    M: Outgoing,
    R: Message + Default + 'static,
{
    let (mut grpc, aside) = ready(channel, settings).await?;
    let answer = grpc.client_streaming(request, path, OutgoingCodec::<M, R>::default());
    answer.await.map(|response| with_trailers(response, &aside))
}

/// One request, a stream of responses.
///
/// # Errors
/// As [`unary`]; later errors come out of the stream.
pub async fn server_streaming<T, M, R>(
    channel: T,
    path: PathAndQuery,
    settings: &CallSettings,
    request: Request<M>,
) -> Result<Response<Streaming<R>>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    M: Outgoing,
    R: Message + Default + 'static,
{
    let mut grpc = ready_to_stream(channel, settings).await?;
    grpc.server_streaming(request, path, OutgoingCodec::<M, R>::default())
        .await
}

/// A stream of requests, a stream of responses.
///
/// # Errors
/// As [`server_streaming`].
pub async fn streaming<T, S, M, R>(
    channel: T,
    path: PathAndQuery,
    settings: &CallSettings,
    request: Request<S>,
) -> Result<Response<Streaming<R>>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    S: Stream<Item = M> + Send + 'static,
    M: Outgoing,
    R: Message + Default + 'static,
{
    let mut grpc = ready_to_stream(channel, settings).await?;
    grpc.streaming(request, path, OutgoingCodec::<M, R>::default())
        .await
}

/// For an answer of one message: its trailers are put aside, since tonic would mix them with its
/// initial metadata.
async fn ready<T>(
    channel: T,
    settings: &CallSettings,
) -> Result<(Grpc<Guarded<T>>, TrailersAside), Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes>,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    let aside = TrailersAside::default();
    let channel = wait_for(channel).await?.trailers_aside(Arc::clone(&aside));
    Ok((settings.grpc(channel), aside))
}

async fn ready_to_stream<T>(channel: T, settings: &CallSettings) -> Result<Grpc<Guarded<T>>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody<Data = Bytes>,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    Ok(settings.grpc(wait_for(channel).await?))
}

/// Waits as tonic's own stubs do, with the same words when the channel is beyond use.
async fn wait_for<T: GrpcService<Body>>(mut channel: T) -> Result<Guarded<T>, Status> {
    future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .map_err(|error| not_ready(error.into()))?;
    Ok(Guarded::new(channel))
}

/// A connection that would not take the call says so itself: nothing was sent.
fn not_ready(error: BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) if Fate::of(&status) == Fate::Unsent => *status,
        Ok(status) => Status::unknown(format!("Service was not ready: {status}")),
        Err(error) => Status::unknown(format!("Service was not ready: {error}")),
    }
}

fn with_trailers<R>(mut response: Response<R>, aside: &TrailersAside) -> Response<R> {
    // The status has come to its own.
    response.metadata_mut().remove(Status::GRPC_STATUS.as_str());
    response
        .metadata_mut()
        .remove(Status::GRPC_MESSAGE.as_str());
    if let Some(trailers) = aside.lock().take()
        && !trailers.is_empty()
    {
        let trailers = Trailers(MetadataMap::from_headers(trailers));
        response.extensions_mut().insert(trailers);
    }
    response
}
