//! HTTP types over a local call, both ends: plain tonic stubs over a [`Channel`], and tonic
//! services behind a local path. It costs what the HTTP types cost, about 2 µs a call.
//!
//! gRPC's framing (a flag, a length, a message: <https://grpc.io/docs/> "gRPC over HTTP2") exists
//! only inside the bodies here; on the wire a message is a frame's payload.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use ringway_local::{
    Call, CallSender, Connection, Form, HandlerFuture, Inbound, SendError, Started,
};
use ringway_net::guard::{Guarded, drop_bad_details};
use ringway_net::{Picked, Trailers, timeout};
use ringway_wire::ResponseHead;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::channel::{Channel, Route};
use crate::client::Head;
use crate::context::Handled;
use crate::dispatch::{add_connect_info, context_of};
use crate::metadata;
use crate::path::Path;
use crate::status;
use crate::streaming;

/// Flag and length in front of each message in a body.
const PREFIX_BYTES: usize = 5;
/// The number that stands for no method: the path travels with each call.
const NO_NUMBER: u32 = u32::MAX;
/// Connections that a call may find closed before it is sent.
const MAX_OPENINGS: usize = 4;

// ---- a body's messages

/// Cuts a body into messages.
struct Messages<B> {
    body: B,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

enum Step {
    Message(Framed),
    End,
}

/// A message of a body, without its prefix.
struct Framed {
    compressed: bool,
    bytes: Bytes,
}

impl Framed {
    fn form(&self) -> Form {
        match self.compressed {
            true => Form::Compressed,
            false => Form::Plain,
        }
    }
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn new(body: B) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            trailers: None,
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Step::Message(message)));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if self.buffer.is_empty() => return Poll::Ready(Ok(Step::End)),
                None => {
                    return Poll::Ready(Err(Status::internal("Unexpected EOF decoding stream.")));
                }
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(error.into()))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => self.buffer.put(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Framed>, Status> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let compressed = match prefix[0] {
            0 => false,
            1 => true,
            flag => {
                return Err(Status::internal(format!(
                    "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and 1)"
                )));
            }
        };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if self.buffer.len() - PREFIX_BYTES < len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let bytes = self.buffer.split_to(len).freeze();
        Ok(Some(Framed { compressed, bytes }))
    }
}

/// A message as it stands in a body.
fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(compressed.into());
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The messages of a local frame, as they stand in a body.
fn framed_all(message: &ringway_local::Message) -> Bytes {
    if !message.packed {
        return framed(&message.bytes, message.compressed);
    }
    let mut out = BytesMut::with_capacity(message.bytes.len() + 64);
    let mut rest = message.bytes.clone();
    while let Ok(len) = rest.try_get_u32_le() {
        let one = rest.split_to((len as usize).min(rest.len()));
        out.put(framed(&one, false));
    }
    out.freeze()
}

/// Sends the rest of a body on a call.
async fn send_all<B>(sender: &CallSender, messages: &mut Messages<B>) -> Result<(), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let message = match poll_fn(|context| messages.poll_next(context)).await? {
            Step::Message(message) => message,
            Step::End => return Ok(()),
        };
        let (form, bytes) = (message.form(), message.bytes);
        let encode = &mut |out: &mut [u8]| out.copy_from_slice(&bytes);
        poll_fn(|context| sender.poll_send(context, form, bytes.len(), &mut *encode))
            .await
            .map_err(|error| status::unsent(&error))?;
    }
}

/// What arrives for a call, as a body.
struct Inbox {
    call: Call,
    ready: Option<Frame<Bytes>>,
    trailers: Option<HeaderMap>,
    /// A server's request, which has no trailers and must not seem complete when it is not.
    request: bool,
    over: bool,
}

impl HttpBody for Inbox {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.ready.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(trailers) = self.trailers.take() {
            self.over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.call.poll_inbound(context)) {
                Some(Inbound::Headers(_)) => {}
                Some(Inbound::Message(message)) => {
                    return Poll::Ready(Some(Ok(Frame::data(framed_all(&message)))));
                }
                None | Some(Inbound::HalfClosed) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                Some(ending) => {
                    self.over = true;
                    let status = ending_status(&ending);
                    return Poll::Ready(Some(match self.request {
                        true => Err(Status::aborted(status.message())),
                        false => Ok(Frame::trailers(status_headers(&status))),
                    }));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.ready.is_none() && self.trailers.is_none()
    }
}

fn ending_status(inbound: &Inbound) -> Status {
    match inbound {
        Inbound::Trailers { code, head } => status::decode(*code, head),
        Inbound::Reset { code, .. } => status::reset(*code),
        Inbound::Expired => status::expired(),
        Inbound::Lost { why, .. } => status::lost(why),
        _ => Status::internal("the peer answered out of order"),
    }
}

fn status_headers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    headers
}

// ---- the client's end

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channel = self.clone();
        Box::pin(async move {
            let wait_for_ready = channel.waits_for_ready(request.extensions());
            let (mut parts, body) = request.into_parts();
            let mut metadata = MetadataMap::from_headers(std::mem::take(&mut parts.headers));
            let timeout = channel.complete(&mut metadata);
            match channel.route(wait_for_ready).await? {
                Route::Local(instance) => {
                    let head = Head::new(&metadata, timeout)?;
                    let connection = Arc::clone(&instance.connection);
                    let request = (head, parts.uri.path(), body);
                    call(channel, connection, wait_for_ready, request).await
                }
                Route::Net(net) => {
                    parts.headers = metadata.into_headers();
                    if let Some(timeout) = timeout {
                        let value = timeout::encode(timeout);
                        parts.headers.insert(timeout::TIMEOUT_HEADER, value);
                    }
                    over_the_network(net, Request::from_parts(parts, body)).await
                }
            }
        })
    }
}

async fn over_the_network(net: Picked, request: Request<Body>) -> Result<Response<Body>, Status> {
    let mut guarded = Guarded::new(net.clone());
    poll_fn(|context| guarded.poll_ready(context)).await?;
    let answered = guarded.call(request).await;
    net.note(&answered);
    let mut response = answered?;
    response.extensions_mut().insert(Path::Grpc);
    Ok(response.map(Body::new))
}

async fn call(
    mut channel: Channel,
    connection: Arc<Connection>,
    wait_for_ready: bool,
    (head, method, body): (Head, &str, Body),
) -> Result<Response<Body>, Status> {
    let mut messages = Messages::new(body);
    let first = FirstMessage::of(&mut messages).await?;
    let (mut connection, mut calls) = (connection, 0);
    let mut call = loop {
        let request = ringway_local::Request {
            compressed: first
                .message
                .as_ref()
                .is_some_and(|message| message.compressed),
            ..head.named(NO_NUMBER, method, first.end)
        };
        match open(&connection, &request, &first).await {
            Ok(call) => break call,
            // Nothing but the first message has been read, and that one is still here.
            Err(SendError::Closed(_) | SendError::GoingAway) if calls < MAX_OPENINGS => {
                channel.forget(&connection);
                let Route::Local(other) = channel.route(wait_for_ready).await? else {
                    return Err(Status::unavailable("the local server went away"));
                };
                (connection, calls) = (Arc::clone(&other.connection), calls + 1);
            }
            Err(error) => return Err(status::unsent(&error)),
        }
    };
    if !first.end {
        let sender = call.sender().clone();
        // Whoever runs a pass polls it: perhaps the handler of another call.
        let context = crate::Context::inherited();
        call.attach(Box::pin(context.scope(async move {
            match send_all(&sender, &mut messages).await {
                // The call may have ended meanwhile: then there is nothing to close.
                Ok(()) => drop(poll_fn(|context| sender.poll_half_close(context)).await),
                Err(status) => sender.give_up(status::wire_code(status.code())),
            }
        })));
    }
    let inbound = poll_fn(|context| call.poll_inbound(context)).await;
    answer(call, inbound, Path::over(&connection))
}

async fn open(
    connection: &Arc<Connection>,
    request: &ringway_local::Request<'_>,
    first: &FirstMessage,
) -> Result<Call, SendError> {
    poll_fn(|context| {
        let encode = &mut |out: &mut [u8]| {
            if let Some(message) = &first.message {
                out.copy_from_slice(&message.bytes);
            }
        };
        let message = first
            .message
            .as_ref()
            .map(|message| (message.bytes.len(), encode as _));
        Call::poll_open(connection, context, request, message)
    })
    .await
}

/// What a request's body holds at once: tells a unary call from a stream.
struct FirstMessage {
    message: Option<Framed>,
    end: bool,
}

impl FirstMessage {
    async fn of(messages: &mut Messages<Body>) -> Result<Self, Status> {
        poll_fn(|context| {
            let message = match messages.poll_next(context)? {
                Poll::Ready(Step::Message(message)) => message,
                Poll::Ready(Step::End) => {
                    return Poll::Ready(Ok(Self {
                        message: None,
                        end: true,
                    }));
                }
                Poll::Pending => {
                    return Poll::Ready(Ok(Self {
                        message: None,
                        end: false,
                    }));
                }
            };
            // A second message that is ready already waits in the buffer.
            let end = messages.buffer.is_empty()
                && (messages.body.is_end_stream() || messages.ends_now(context)?);
            Poll::Ready(Ok(Self {
                message: Some(message),
                end,
            }))
        })
        .await
    }
}

impl Messages<Body> {
    /// Whether the body ends here; what it yields instead is kept.
    fn ends_now(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => Ok(false),
            Poll::Ready(None) => Ok(true),
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    self.buffer.put(data);
                    Ok(false)
                }
                Err(_) => Ok(true),
            },
        }
    }
}

fn answer(call: Call, inbound: Option<Inbound>, path: Path) -> Result<Response<Body>, Status> {
    let mut inbox = Inbox {
        call,
        ready: None,
        trailers: None,
        request: false,
        over: false,
    };
    let mut metadata = MetadataMap::new();
    match inbound {
        Some(Inbound::Headers(block)) => metadata = metadata::decode_bytes(&block)?,
        Some(Inbound::Response { head, message }) => {
            let mut trailers = HeaderMap::new();
            if !head.is_empty() {
                let head = ResponseHead::decode(&head)
                    .map_err(|error| Status::internal(error.to_string()))?;
                metadata = metadata::decode(head.initial)?;
                trailers = metadata::decode(head.trailing)?.into_headers();
            }
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
            inbox.ready = Some(Frame::data(framed_all(&message)));
            inbox.trailers = Some(trailers);
        }
        Some(ending) => {
            let mut response = ending_status(&ending).into_http::<Body>();
            response.extensions_mut().insert(path);
            return Ok(response);
        }
        None => return Err(Status::internal("the call ended without an answer")),
    }
    let mut response = Response::new(Body::new(inbox));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response.extensions_mut().insert(path);
    Ok(response)
}

// ---- the server's end

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A tonic service that answers local calls.
pub(crate) struct HttpService(Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>);

impl fmt::Debug for HttpService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpService")
    }
}

impl HttpService {
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        Self(Arc::new(move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let Ok(()) = poll_fn(|context| service.poll_ready(context)).await;
                let Ok(response) = service.call(request).await;
                response.map(Body::new)
            })
        }))
    }

    /// Answers one call.
    pub(crate) fn answer(&self, started: Started) -> HandlerFuture {
        let context = context_of(&started);
        let (mut call, request) = match to_http(started) {
            Ok(parts) => parts,
            Err((mut call, refusal)) => {
                return Box::pin(async move { finish(&mut call, &refusal).await });
            }
        };
        let response = (self.0)(request);
        Box::pin(Handled::new(context, async move {
            let (mut parts, body) = response.await.into_parts();
            let trailing = parts.extensions.remove::<Trailers>();
            if let Err(status) = relay(&mut call, parts.headers, body, trailing).await {
                finish(&mut call, &status).await;
            }
        }))
    }
}

fn to_http(started: Started) -> Result<(Call, Request<Body>), (Call, Status)> {
    let Started {
        call,
        path,
        metadata,
        timeout,
        message,
        end,
        ..
    } = started;
    let mut headers = match metadata::decode_bytes(&metadata) {
        Ok(metadata) => metadata.into_headers(),
        Err(status) => return Err((call, status)),
    };
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = timeout {
        headers.insert(timeout::TIMEOUT_HEADER, timeout::encode(timeout));
    }
    let body = Inbox {
        call: call.reader(),
        ready: message.map(|message| Frame::data(framed_all(&message))),
        trailers: None,
        request: true,
        over: end,
    };
    let mut request = Request::new(Body::new(body));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    match path.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return Err((call, Status::unimplemented("no such method"))),
    }
    *request.headers_mut() = headers;
    add_connect_info(request.extensions_mut(), call.connection());
    Ok((call, request))
}

/// Sends a tonic response on a local call.
async fn relay(
    call: &mut Call,
    mut headers: HeaderMap,
    body: Body,
    trailing: Option<Trailers>,
) -> Result<(), Status> {
    drop_bad_details(&mut headers);
    // A response of trailers alone carries its status in the headers.
    if let Some(status) = Status::from_header_map(&headers) {
        finish(call, &status).await;
        return Ok(());
    }
    let block = metadata::encode(&MetadataMap::from_headers(headers))?;
    let sender = call.sender().clone();
    poll_fn(|context| sender.poll_send_headers(context, block.as_metadata().as_bytes()))
        .await
        .map_err(|error| status::unsent(&error))?;
    let mut messages = Messages::new(body);
    send_all(&sender, &mut messages).await?;
    let mut trailers = messages.trailers.unwrap_or_default();
    drop_bad_details(&mut trailers);
    let status = Status::from_header_map(&trailers)
        .unwrap_or_else(|| Status::new(Code::Unknown, "the service sent no status"));
    if let Some(Trailers(trailing)) = trailing
        && status.code() == Code::Ok
    {
        let mut all = status.metadata().clone().into_headers();
        all.extend(trailing.into_headers());
        let (code, head) = streaming::ok_trailers(MetadataMap::from_headers(all));
        // An error means that the call is over, and nobody is left to be told.
        let _ = poll_fn(|context| call.poll_finish(context, code, &head)).await;
        return Ok(());
    }
    finish(call, &status).await;
    Ok(())
}

async fn finish(call: &mut Call, status: &Status) {
    let (code, head) = status::encode(status);
    let mut finishing = pin!(poll_fn(|context| call.poll_finish(context, code, &head)));
    // An error means that the call is over, and nobody is left to be told.
    let _ = finishing.as_mut().await;
}
