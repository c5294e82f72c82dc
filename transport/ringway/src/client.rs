//! The client's end of a typed call: which connection, and what comes back.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use ringway_local::{Call, Connection, Form, Inbound, MAX_WHOLE_BYTES, Opening, Out, SendError};
use ringway_net::{Outgoing, Trailers};
use ringway_wire::{MetadataBuf, ResponseHead};
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::compression::{self, Encoding};
use crate::context::Context;
use crate::metadata;
use crate::meter::Direction;
use crate::method::{CallOptions, MessageLimits, Method};
use crate::path::Path;
use crate::pump::{Pumped, pump};
use crate::status;
use crate::streaming::{self, decode_whole, encode_whole};
use crate::trace::{Span, Stamps, Step, Trace};

/// Makes calls for a generated client.
pub(crate) trait Caller: Clone + Send {
    /// One request, one response.
    fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static;

    /// One request, a stream of responses.
    fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> impl Future<Output = Result<Response<Streaming<R>>, Status>> + Send
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static;

    /// A stream of requests, one response.
    fn client_streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static;

    /// A stream of requests, a stream of responses.
    fn streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> impl Future<Output = Result<Response<Streaming<R>>, Status>> + Send
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static;
}

/// How a local attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The call has its status.
    Status(Status),
    /// The server never saw the call: it may be sent again.
    Unsent(Status),
    /// The server drains, and the call came too late: it may be sent again, to another instance.
    LeftOut(Status),
    /// The server's library saw the call, and no handler did: it may be sent again, once.
    Unprocessed(Status),
}

impl Failure {
    pub(crate) fn into_status(self) -> Status {
        match self {
            Self::Status(status)
            | Self::Unsent(status)
            | Self::LeftOut(status)
            | Self::Unprocessed(status) => status,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a call's request says beside its message, ready for the wire.
pub(crate) struct Head<'a> {
    block: MetadataBuf,
    deadline: Option<Instant>,
    trace: &'a Trace,
}

impl<'a> Head<'a> {
    /// Of a call that has to be over at `deadline`.
    pub(crate) fn new(
        metadata: &MetadataMap,
        deadline: Option<Instant>,
        trace: &'a Trace,
    ) -> Result<Self, Status> {
        Ok(Self {
            block: metadata::encode(metadata)?,
            deadline,
            trace,
        })
    }

    fn request(
        &self,
        method: &'static Method,
        limits: &MessageLimits,
        end: bool,
    ) -> ringway_local::Request<'_> {
        ringway_local::Request {
            method_number: method.number(),
            path: method.path(),
            metadata: self.block.as_metadata(),
            deadline: self.deadline,
            trace: self.trace.context(),
            published: None,
            end,
            compressed: false,
            max_answer_bytes: limits.max_decoding_on_wire(),
        }
    }
}

/// One request, one response, over `connection`.
pub(crate) async fn unary<M, R>(
    connection: &Arc<Connection>,
    path: Path,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    message: &M,
) -> Result<Response<R>, Failure>
where
    M: Message,
    R: Message + Default,
{
    let mut call = open(connection, method, options, head, message).await?;
    // Made while the peer works.
    let extensions = path.mark();
    match poll_fn(|context| call.poll_inbound(context)).await {
        Some(Inbound::Response {
            head: answer,
            message,
        }) if answer.is_empty() && head.trace.with_steps().is_none() => {
            let len = message.bytes.len();
            head.trace.carried(Direction::Received, 1, len);
            let message = decode_whole(&options.limits, message.bytes)?;
            let mut response = Response::new(message);
            *response.extensions_mut() = extensions;
            Ok(response)
        }
        // Boxed, because what is kept across this would be moved with every call.
        inbound => Box::pin(answer(inbound, &mut call, path, options, head.trace)).await,
    }
}

async fn open<M: Message>(
    connection: &Arc<Connection>,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    message: &M,
) -> Result<Call, Failure> {
    let len = message.encoded_len();
    options.limits.check_encoding(len)?;
    if len > MAX_WHOLE_BYTES {
        return Box::pin(open_large(connection, method, options, head, message)).await;
    }
    if let Some(span) = head.trace.span() {
        goes_over(connection, &**span);
        if span.has_steps() {
            let limits = &options.limits;
            return Box::pin(open_recorded(
                connection, method, limits, head, message, &**span,
            ))
            .await;
        }
    }
    let request = head.request(method, &options.limits, true);
    let mut opening = Opening::new(connection, head.deadline);
    let opened = poll_fn(|context| {
        let encode = &mut |out: Out<'_>| encode_whole(message, out);
        opening.poll(context, &request, Some((len, encode)))
    });
    let opened = opened.await.map_err(unsent)?;
    if let Some(span) = head.trace.span() {
        span.carried(Direction::Sent, 1, message.encoded_len());
    }
    Ok(opened)
}

/// Opens a call whose message goes behind its head, in pieces: beside the caller, which waits for the answer.
async fn open_large<M: Message>(
    connection: &Arc<Connection>,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    message: &M,
) -> Result<Call, Failure> {
    let call = open_head(connection, method, options, head).await?;
    let (sender, trace) = (call.sender().clone(), head.trace.clone());
    let len = message.encoded_len();
    let encode = &mut |out: Out<'_>| encode_whole(message, out);
    let sending = sender.begin_large(Form::Plain, true, encode);
    call.attach(
        Box::pin(async move {
            match sending.await {
                Ok(()) => trace.carried(Direction::Sent, 1, len),
                Err(error) => sender.give_up_unsent(error),
            }
        }),
        method.pace(),
    );
    Ok(call)
}

/// Opens a call whose messages follow.
async fn open_head(
    connection: &Arc<Connection>,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
) -> Result<Call, Failure> {
    let stamps = head.trace.with_steps().map(|_| Stamps::default());
    let request = ringway_local::Request {
        published: stamps.as_ref().map(|stamps| &stamps.published),
        ..head.request(method, &options.limits, false)
    };
    let mut opening = Opening::new(connection, head.deadline);
    let opened = poll_fn(|context| opening.poll(context, &request, None)).await;
    let call = opened.map_err(unsent)?;
    if let Some(span) = head.trace.span() {
        goes_over(connection, &**span);
        stamps.iter().for_each(|stamps| stamps.note(&**span));
    }
    Ok(call)
}

/// The same, noting the time of each step.
async fn open_recorded<M: Message>(
    connection: &Arc<Connection>,
    method: &'static Method,
    limits: &MessageLimits,
    head: &Head<'_>,
    message: &M,
    span: &dyn Span,
) -> Result<Call, Failure> {
    let stamps = Stamps::default();
    let request = ringway_local::Request {
        published: Some(&stamps.published),
        ..head.request(method, limits, true)
    };
    let mut opening = Opening::new(connection, head.deadline);
    let opened = poll_fn(|context| {
        let encode = &mut |out: Out<'_>| {
            encode_whole(message, out);
            stamps.encoded.set();
        };
        opening.poll(context, &request, Some((message.encoded_len(), encode)))
    });
    let opened = opened.await.map_err(unsent)?;
    stamps.note(span);
    span.carried(Direction::Sent, 1, message.encoded_len());
    Ok(opened)
}

/// Says by which path a call goes.
pub(crate) fn goes_over(connection: &Connection, span: &dyn Span) {
    let path = Path::over(connection);
    span.goes_by(path, path.transport().unwrap_or_default());
}

fn unsent(error: SendError) -> Failure {
    let status = status::unsent(&error);
    match error {
        SendError::Closed(_) | SendError::GoingAway => Failure::Unsent(status),
        _ => Failure::Status(status),
    }
}

/// Makes a unary response of what arrives first.
async fn answer<R: Message + Default>(
    inbound: Option<Inbound>,
    call: &mut Call,
    path: Path,
    options: &CallOptions,
    trace: &Trace,
) -> Result<Response<R>, Failure> {
    trace.step(Step::AnswerSeen);
    match inbound {
        Some(Inbound::Response { head, message }) => {
            trace.carried(Direction::Received, 1, message.bytes.len());
            let message = plain(message, &options.limits, || {
                let head = ResponseHead::decode(&head);
                let head = head.map_err(|error| Status::internal(error.to_string()))?;
                metadata::decode(head.initial)
            })?;
            let message = decode_whole(&options.limits, message)?;
            trace.step(Step::Decoded);
            Ok(response(&head, message, path)?)
        }
        Some(Inbound::Headers(block)) => {
            let answered = in_pieces(call, &block, path, options, trace).await;
            trace.step(Step::Decoded);
            answered
        }
        other => Err(failure(other)),
    }
}

/// A message's own bytes; `metadata` says how it was compressed.
pub(crate) fn plain(
    message: ringway_local::Message,
    limits: &MessageLimits,
    metadata: impl FnOnce() -> Result<MetadataMap, Status>,
) -> Result<Bytes, Status> {
    if !message.compressed {
        return Ok(message.bytes);
    }
    let encoding = Encoding::named(&metadata()?)?;
    compression::decompress(encoding, &message.bytes, limits)
}

/// A unary answer that came as headers, message and trailers: a service of another make.
async fn in_pieces<R: Message + Default>(
    call: &mut Call,
    block: &Bytes,
    path: Path,
    options: &CallOptions,
    trace: &Trace,
) -> Result<Response<R>, Failure> {
    let metadata = metadata::decode_bytes(block)?;
    let mut message = None;
    loop {
        match poll_fn(|context| call.poll_inbound(context)).await {
            Some(Inbound::Message(found)) if message.is_none() => {
                trace.carried(Direction::Received, 1, found.bytes.len());
                let found = plain(found, &options.limits, || Ok(metadata.clone()))?;
                message = Some(decode_whole(&options.limits, found)?);
            }
            Some(Inbound::Message(_)) => {
                return Err(Status::internal("more than one message in a unary response").into());
            }
            Some(Inbound::Trailers { code: 0, head }) => {
                let trailing = status::decode(0, &head).metadata().clone();
                let message =
                    message.ok_or_else(|| Status::internal("Missing response message."))?;
                return Ok(with_path(metadata, message, trailing, path));
            }
            other => return Err(failure(other)),
        }
    }
}

fn response<R>(head: &[u8], message: R, path: Path) -> Result<Response<R>, Status> {
    let (initial, trailing) = metadata_around(head)?;
    Ok(with_path(initial, message, trailing, path))
}

/// The metadata before and after the message of a whole answer.
pub(crate) fn metadata_around(head: &[u8]) -> Result<(MetadataMap, MetadataMap), Status> {
    if head.is_empty() {
        return Ok((MetadataMap::new(), MetadataMap::new()));
    }
    let head = ResponseHead::decode(head).map_err(|error| Status::internal(error.to_string()))?;
    Ok((
        metadata::decode(head.initial)?,
        metadata::decode_trailing(head.trailing)?,
    ))
}

fn with_path<R>(
    metadata: MetadataMap,
    message: R,
    trailing: MetadataMap,
    path: Path,
) -> Response<R> {
    let mut extensions = path.mark();
    if !trailing.is_empty() {
        extensions.insert(Trailers(trailing));
    }
    Response::from_parts(metadata, message, extensions)
}

/// The failure in what arrived instead of an answer.
fn failure(inbound: Option<Inbound>) -> Failure {
    match inbound {
        Some(Inbound::Trailers { code: 0, .. }) => {
            Status::internal("Missing response message.").into()
        }
        Some(Inbound::Trailers { code, head }) => status::decode(code, &head).into(),
        Some(Inbound::Reset {
            code,
            refused: true,
        }) => Failure::LeftOut(status::reset(code)),
        Some(Inbound::Reset { code, .. }) => status::reset(code).into(),
        Some(Inbound::Expired) => status::expired().into(),
        Some(Inbound::Failed(error)) => status::unsent(&error).into(),
        Some(Inbound::TooLong { len, limit }) => {
            status::too_long(len as usize, limit as usize).into()
        }
        Some(Inbound::Lost { why, unseen: true }) => Failure::Unsent(status::lost(&why)),
        Some(Inbound::Lost { why, .. }) => status::lost(&why).into(),
        _ => Status::internal("the server answered out of order").into(),
    }
}

/// One request, a stream of responses, over `connection`.
pub(crate) async fn server_streaming<M, R>(
    connection: &Arc<Connection>,
    path: Path,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    message: &M,
) -> Result<Response<Streaming<R>>, Failure>
where
    M: Message,
    R: Message + Default + Unpin + 'static,
{
    let call = open(connection, method, options, head, message).await?;
    response_stream(call, path, options, head.trace).await
}

async fn response_stream<R: Message + Default + Unpin + 'static>(
    mut call: Call,
    path: Path,
    options: &CallOptions,
    trace: &Trace,
) -> Result<Response<Streaming<R>>, Failure> {
    let (metadata, whole) = match poll_fn(|context| call.poll_inbound(context)).await {
        Some(Inbound::Headers(block)) => (metadata::decode_bytes(&block)?, None),
        Some(Inbound::Response { head, message }) => {
            let (initial, trailing) = metadata_around(&head)?;
            (initial, Some((message, trailing)))
        }
        other => return Err(failure(other)),
    };
    trace.step(Step::AnswerSeen);
    let encoding = Encoding::named(&metadata)?;
    let stream = streaming::responses(call, options.limits, encoding, trace, whole);
    Ok(with_path(metadata, stream, MetadataMap::new(), path))
}

/// A stream of requests, one response, over `connection`.
pub(crate) async fn client_streaming<S, R>(
    connection: &Arc<Connection>,
    path: Path,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    requests: S,
) -> Result<Response<R>, Failure>
where
    S: Stream<Item: Outgoing> + Send + 'static,
    R: Message + Default,
{
    let mut call = open_stream(connection, method, options, head, requests).await?;
    let inbound = poll_fn(|context| call.poll_inbound(context)).await;
    answer(inbound, &mut call, path, options, head.trace).await
}

/// A stream of requests, a stream of responses, over `connection`.
pub(crate) async fn streaming<S, R>(
    connection: &Arc<Connection>,
    path: Path,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    requests: S,
) -> Result<Response<Streaming<R>>, Failure>
where
    S: Stream<Item: Outgoing> + Send + 'static,
    R: Message + Default + Unpin + 'static,
{
    let call = open_stream(connection, method, options, head, requests).await?;
    response_stream(call, path, options, head.trace).await
}

async fn open_stream<S>(
    connection: &Arc<Connection>,
    method: &'static Method,
    options: &CallOptions,
    head: &Head<'_>,
    requests: S,
) -> Result<Call, Failure>
where
    S: Stream<Item: Outgoing> + Send + 'static,
{
    let call = open_head(connection, method, options, head).await?;
    let (sender, limits, trace) = (call.sender().clone(), options.limits, head.trace.clone());
    // It may be polled in the pass of another task: perhaps the handler of another call.
    let context = Context::inherited();
    let sending = Box::pin(context.scope(async move {
        let pumped = pump(&sender, requests.map(Ok), limits, &trace).await;
        match pumped {
            // The call may have ended meanwhile: then there is nothing to close.
            Pumped::All => drop(poll_fn(|context| sender.poll_half_close(context)).await),
            Pumped::Failed(status) => {
                let (code, head) = status::encode(&status);
                sender.give_up(code, head);
            }
            Pumped::Unsent(error) => sender.give_up_unsent(error),
        }
    }));
    call.attach(sending, method.pace());
    Ok(call)
}
