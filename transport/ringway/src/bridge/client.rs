//! The client's end: plain tonic stubs over a [`Channel`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use http::{HeaderValue, Request, Response};
use http_body::Body as HttpBody;
use ringway_local::{Call, Connection, Inbound, Out, SendError};
use ringway_net::guard::Guarded;
use ringway_net::{Picked, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;

use super::messages::{Framed, Messages, Step};
use super::{Inbox, ending_status, send_all};
use crate::channel::{Channel, Route};
use crate::client::{Head, goes_over, metadata_around};
use crate::metadata;
use crate::meter::Direction;
use crate::path::Path;
use crate::status;
use crate::trace::{self, Calling, Stamps, Trace};
use crate::traced::{Ending, Traced};

/// The number that stands for no method: the path travels with each call.
const NO_NUMBER: u32 = u32::MAX;
/// Connections that a call may find closed before it is sent.
const MAX_OPENINGS: usize = 4;

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channel = self.clone();
        let calling = Calling::begin(request.uri().path());
        Box::pin(async move {
            let answered = channel.carry(request, calling.trace()).await;
            calling.end_unless_ok(&answered);
            answered
        })
    }
}

impl Channel {
    /// Makes the call of an HTTP request.
    async fn carry(
        &mut self,
        request: Request<Body>,
        trace: &Trace,
    ) -> Result<Response<Body>, Status> {
        let wait_for_ready = self.waits_for_ready(request.extensions());
        let (mut parts, body) = request.into_parts();
        let mut metadata = MetadataMap::from_headers(std::mem::take(&mut parts.headers));
        let timeout = self.complete(&mut metadata);
        let response = match self.route(wait_for_ready).await? {
            Route::Local(instance) => {
                let head = Head::new(&metadata, timeout, trace)?;
                let connection = Arc::clone(&instance.connection);
                let request = (head, parts.uri.path(), body);
                call(self, connection, wait_for_ready, request).await?
            }
            Route::Net(net) => {
                parts.headers = metadata.into_headers();
                if let Some(timeout) = timeout {
                    let value = timeout::encode(timeout);
                    parts.headers.insert(timeout::TIMEOUT_HEADER, value);
                }
                over_the_network(net, trace, Request::from_parts(parts, body)).await?
            }
        };
        Ok(match trace.span() {
            Some(_) => Ending::within(trace, timeout).with(response),
            None => response,
        })
    }
}

async fn over_the_network(
    net: Picked,
    trace: &Trace,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let mut guarded = Guarded::new(Traced::new(net.clone(), trace));
    poll_fn(|context| guarded.poll_ready(context)).await?;
    let answered = guarded.call(request).await;
    net.note(&answered);
    let mut response = answered?;
    response.extensions_mut().insert(Path::Grpc);
    Ok(response.map(Body::new))
}

async fn call(
    channel: &mut Channel,
    connection: Arc<Connection>,
    wait_for_ready: bool,
    (head, method, body): (Head<'_>, &str, Body),
) -> Result<Response<Body>, Status> {
    let mut messages = Messages::new(body);
    let first = FirstMessage::of(&mut messages).await?;
    head.trace().step(trace::Step::Encoded);
    let stamps = head.trace().with_steps().map(|_| Stamps::default());
    let (mut connection, mut calls) = (connection, 0);
    let mut call = loop {
        let request = ringway_local::Request {
            compressed: first
                .message
                .as_ref()
                .is_some_and(|message| message.compressed),
            published: stamps.as_ref().map(|stamps| &stamps.published),
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
    if let Some(span) = head.trace().span() {
        goes_over(&connection, &**span);
        stamps.iter().for_each(|stamps| stamps.note(&**span));
        if let Some(message) = &first.message {
            span.carried(Direction::Sent, 1, message.bytes.len());
        }
    }
    if !first.end {
        let sender = call.sender().clone();
        // Whoever runs a pass polls it: perhaps the handler of another call.
        let (context, trace) = (crate::Context::inherited(), head.trace().clone());
        call.attach(Box::pin(context.scope(async move {
            match send_all(&sender, &mut messages, &trace).await {
                // The call may have ended meanwhile: then there is nothing to close.
                Ok(()) => drop(poll_fn(|context| sender.poll_half_close(context)).await),
                Err(status) => sender.give_up(status::wire_code(status.code())),
            }
        })));
    }
    let inbound = poll_fn(|context| call.poll_inbound(context)).await;
    head.trace().step(trace::Step::AnswerSeen);
    answer(call, inbound, Path::over(&connection), head.trace())
}

async fn open(
    connection: &Arc<Connection>,
    request: &ringway_local::Request<'_>,
    first: &FirstMessage,
) -> Result<Call, SendError> {
    poll_fn(|context| {
        let encode = &mut |out: Out<'_>| {
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

fn answer(
    call: Call,
    inbound: Option<Inbound>,
    path: Path,
    trace: &Trace,
) -> Result<Response<Body>, Status> {
    let mut inbox = Inbox {
        call,
        ready: None,
        trailers: None,
        request: false,
        over: false,
        trace: trace.clone(),
    };
    let metadata = match inbound {
        Some(Inbound::Headers(block)) => metadata::decode_bytes(&block)?,
        Some(Inbound::Response { head, message }) => {
            let (initial, trailing) = metadata_around(&head)?;
            let mut trailers = trailing.into_headers();
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
            inbox.ready = Some(Inbox::take(trace, &message));
            inbox.trailers = Some(trailers);
            initial
        }
        Some(ending) => {
            let mut response = ending_status(&ending).into_http::<Body>();
            response.extensions_mut().insert(path);
            return Ok(response);
        }
        None => return Err(Status::internal("the call ended without an answer")),
    };
    let mut response = Response::new(Body::new(inbox));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response.extensions_mut().insert(path);
    Ok(response)
}
