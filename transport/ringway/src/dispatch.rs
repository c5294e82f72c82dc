//! The server's end of a typed call: from what arrived to the handler.

use std::fmt;
use std::future::{Future, poll_fn};
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use ringway_local::{Call, Connection, HandlerFuture, Inbound, PeerCredentials, Started, clock};
use tokio_stream::Stream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::answer::{Answering, Refused, failed, finish, respond, stream};
use crate::client::goes_over;
use crate::compression::{self, Encoding};
use crate::context::{Context, Handled, Peer};
use crate::metadata::{self, TraceHeaders};
use crate::meter::Direction;
use crate::method::{MessageLimits, Method};
use crate::streaming::{self, decode_whole};
use crate::trace::{self, Step, Trace, TraceContext};

/// A generated service that can answer calls which are no HTTP requests.
pub trait LocalService: Send + Sync + 'static {
    /// Its methods; a call names one by its place here.
    fn methods(&self) -> &'static [Method];

    /// The longest request that is decoded, in bytes; a longer one is refused when it begins.
    fn max_decoding_bytes(&self) -> usize {
        usize::MAX
    }

    /// The work of one call.
    fn dispatch(&self, index: usize, call: ServerCall<'_>) -> HandlerFuture;
}

/// A call that a handler is to answer, where it lies: it is large to move.
pub struct ServerCall<'a> {
    started: &'a mut Option<Started>,
    /// The handler's request says who calls, at the cost of two allocations.
    connect_info: bool,
}

impl fmt::Debug for ServerCall<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.started.fmt(formatter)
    }
}

impl<'a> ServerCall<'a> {
    pub(crate) fn new(started: &'a mut Option<Started>, connect_info: bool) -> Self {
        if connect_info && let Some(started) = started {
            let trace = started.trace.as_ref();
            started.metadata = metadata::with_headers_of_http(&started.metadata, trace);
        }
        Self {
            started,
            connect_info,
        }
    }

    /// One request, one response.
    pub fn unary<M, R, F, Fut>(self, limits: MessageLimits, handler: F) -> HandlerFuture
    where
        M: Message + Default + Unpin + 'static,
        R: Message + 'static,
        F: FnOnce(Request<M>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<R>, Status>> + Send + 'static,
    {
        let Some(started) = self.started.as_mut() else {
            return nothing();
        };
        let context = context_of(started);
        let extensions = extensions_of(started, self.connect_info);
        let request = match started.message.take() {
            Some(message) => {
                let recorded = context.recorded();
                recorded.carried(Direction::Received, 1, message.bytes.len());
                decoded((&started.metadata, extensions), message, limits)
            }
            None => return self.late_unary(context, extensions, limits, handler),
        };
        match self.started.take() {
            Some(Started { call, .. }) => answered(context, call, request, limits, handler),
            None => nothing(),
        }
    }

    /// The same where the request comes after its head.
    fn late_unary<M, R, F, Fut>(
        self,
        context: Context,
        extensions: Extensions,
        limits: MessageLimits,
        handler: F,
    ) -> HandlerFuture
    where
        M: Message + Default + Unpin + 'static,
        R: Message + 'static,
        F: FnOnce(Request<M>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<R>, Status>> + Send + 'static,
    {
        let Some(started) = self.started.take() else {
            return nothing();
        };
        let Started {
            mut call,
            metadata,
            end,
            ..
        } = started;
        Box::pin(Handled::new(context.clone(), async move {
            let request = only_message(&mut call, end).await.and_then(|message| {
                let recorded = context.recorded();
                recorded.carried(Direction::Received, 1, message.bytes.len());
                decoded((&metadata, extensions), message, limits)
            });
            answered(context, call, request, limits, handler).await;
        }))
    }

    /// One request, a stream of responses.
    pub fn server_streaming<M, R, S, F, Fut>(
        self,
        limits: MessageLimits,
        handler: F,
    ) -> HandlerFuture
    where
        M: Message + Default + Unpin + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        F: FnOnce(Request<M>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send,
    {
        let Some(started) = self.started.take() else {
            return nothing();
        };
        let extensions = extensions_of(&started, self.connect_info);
        Box::pin(Handled::new(context_of(&started), async move {
            let (mut call, request) = match into_unary(started, extensions, limits).await {
                Ok(parts) => parts,
                Err(refused) => return refused.answer().await,
            };
            trace::step_here(Step::HandlerStarted);
            match handler(request).await {
                Ok(response) => stream(call, response, limits).await,
                Err(status) => failed(&mut call, &status).await,
            }
        }))
    }

    /// A stream of requests, one response.
    pub fn client_streaming<M, R, F, Fut>(self, limits: MessageLimits, handler: F) -> HandlerFuture
    where
        M: Message + Default + Unpin + 'static,
        R: Message + 'static,
        F: FnOnce(Request<Streaming<M>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let Some(started) = self.started.take() else {
            return nothing();
        };
        let extensions = extensions_of(&started, self.connect_info);
        Box::pin(Handled::new(context_of(&started), async move {
            let (mut call, request) = match into_streaming(started, extensions, limits) {
                Ok(parts) => parts,
                Err(refused) => return refused.answer().await,
            };
            trace::step_here(Step::HandlerStarted);
            match handler(request).await {
                Ok(response) => {
                    trace::step_here(Step::HandlerEnded);
                    respond(call, response, limits).await;
                }
                Err(status) => failed(&mut call, &status).await,
            }
        }))
    }

    /// A stream of requests, a stream of responses.
    pub fn streaming<M, R, S, F, Fut>(self, limits: MessageLimits, handler: F) -> HandlerFuture
    where
        M: Message + Default + Unpin + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        F: FnOnce(Request<Streaming<M>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send,
    {
        let Some(started) = self.started.take() else {
            return nothing();
        };
        let extensions = extensions_of(&started, self.connect_info);
        Box::pin(Handled::new(context_of(&started), async move {
            let (mut call, request) = match into_streaming(started, extensions, limits) {
                Ok(parts) => parts,
                Err(refused) => return refused.answer().await,
            };
            trace::step_here(Step::HandlerStarted);
            match handler(request).await {
                Ok(response) => stream(call, response, limits).await,
                Err(status) => failed(&mut call, &status).await,
            }
        }))
    }

    /// Where it leads to; `None` if its method is unknown.
    pub(crate) fn route(&self) -> Option<u64> {
        self.started.as_ref()?.method.route
    }

    /// Whether its client says anything by one of these names.
    pub(crate) fn has_metadata(&self, names: &[&str]) -> bool {
        self.started.as_ref().is_some_and(|started| {
            let metadata = metadata::decode_bytes(&started.metadata);
            metadata.is_ok_and(|metadata| names.iter().any(|name| metadata.contains_key(*name)))
        })
    }

    /// The call where it lies.
    pub(crate) fn started(&mut self) -> Option<&mut Started> {
        self.started.as_mut()
    }

    /// The call as it came.
    pub(crate) fn take(self) -> Option<Started> {
        self.started.take()
    }

    /// The answer where there is no such method.
    pub fn unimplemented(self) -> HandlerFuture {
        let Some(started) = self.started.take() else {
            return nothing();
        };
        Box::pin(Handled::new(context_of(&started), async move {
            let mut call = started.call;
            finish(&mut call, &Status::unimplemented("")).await;
        }))
    }
}

/// The work of a call that somebody else has taken.
pub(crate) fn nothing() -> HandlerFuture {
    Box::pin(std::future::ready(()))
}

/// What a handler's request says beside message and metadata.
fn extensions_of(started: &Started, connect_info: bool) -> Extensions {
    let mut extensions = Extensions::default();
    if connect_info {
        add_connect_info(&mut extensions, started.call.connection());
    }
    extensions
}

async fn into_unary<M>(
    started: Started,
    extensions: Extensions,
    limits: MessageLimits,
) -> Result<(Call, Request<M>), Refused>
where
    M: Message + Default,
{
    let Started {
        mut call,
        metadata,
        message,
        end,
        ..
    } = started;
    let message = match message {
        Some(message) => Ok(message),
        None => only_message(&mut call, end).await,
    };
    if let Ok(message) = &message {
        trace::carried_here(Direction::Received, message.bytes.len());
    }
    let request = message.and_then(|message| decoded((&metadata, extensions), message, limits));
    match request {
        Ok(request) => Ok((call, request)),
        Err(status) => Err(Refused { call, status }),
    }
}

fn into_streaming<M>(
    started: Started,
    extensions: Extensions,
    limits: MessageLimits,
) -> Result<(Call, Request<Streaming<M>>), Refused>
where
    M: Message + Default + Unpin + 'static,
{
    let Started {
        call,
        metadata,
        message,
        end,
        ..
    } = started;
    let request = metadata::decode_bytes(&metadata).and_then(|metadata| {
        let encoding = Encoding::named(&metadata)?;
        let requests = streaming::requests(call.reader(), limits, (message, end), encoding);
        Ok(Request::from_parts(metadata, extensions, requests))
    });
    match request {
        Ok(request) => Ok((call, request)),
        Err(status) => Err(Refused { call, status }),
    }
}

/// The work of a unary call whose request is here, or is none. What is decoded by now need not be kept in
/// the future: it is boxed, and the smaller it is the less each call costs.
fn answered<M, R, F, Fut>(
    context: Context,
    call: Call,
    request: Result<Request<M>, Status>,
    limits: MessageLimits,
    handler: F,
) -> HandlerFuture
where
    M: Message + Default,
    R: Message + 'static,
    F: FnOnce(Request<M>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>> + Send + 'static,
{
    match request {
        Ok(request) => {
            context.recorded().step(Step::HandlerStarted);
            let mut handled = Box::pin(Handled::new(context, Answering::new(call, limits)));
            // Last, and where it stays: a request is large to move.
            handled.as_mut().inner().begin(handler(request));
            handled
        }
        Err(status) => Box::pin(Handled::new(context, Refused { call, status }.answer())),
    }
}

/// What the call means for those that its handler makes.
pub(crate) fn context_of(started: &Started) -> Context {
    let deadline = started
        .timeout
        .and_then(|timeout| clock::now().checked_add(timeout));
    let peer = started.call.connection().peer();
    let peer = peer.map(|PeerCredentials { pid, uid, gid }| Peer::Process { uid, gid, pid });
    match started.metadata.is_empty() {
        true => Context::of_call(deadline, peer, trace_of(started, started.trace.as_ref())),
        false => context_with_headers(started, deadline, peer),
    }
}

/// The same of whoever knows of traces only by name: their headers come as metadata.
#[inline(never)]
fn context_with_headers(
    started: &Started,
    deadline: Option<Instant>,
    peer: Option<Peer>,
) -> Context {
    let said = TraceHeaders::of(&started.metadata);
    let trace = trace_of(started, started.trace.or(said.parent).as_ref());
    Context::of_call(deadline, peer, trace).with_trace_state(said.state)
}

#[inline]
fn trace_of(started: &Started, parent: Option<&TraceContext>) -> Trace {
    if parent.is_none() && !trace::is_anybody_asked() {
        return Trace::None;
    }
    let trace = trace::of_server(&started.method.path, parent, started.seen);
    if let Some(span) = trace.span() {
        goes_over(started.call.connection(), &**span);
    }
    trace
}

/// Says who calls as tonic says it of a Unix socket, where a socket brought the caller here.
pub(crate) fn add_connect_info(extensions: &mut Extensions, connection: &Connection) {
    if let Some(peer) = connection.socket_peer() {
        extensions.insert(UdsConnectInfo {
            peer_addr: peer.address.clone(),
            peer_cred: peer.credentials,
        });
    }
}

fn decoded<M: Message + Default>(
    (metadata, extensions): (&Bytes, Extensions),
    message: ringway_local::Message,
    limits: MessageLimits,
) -> Result<Request<M>, Status> {
    if metadata.is_empty() && !message.compressed {
        let mut request = Request::new(decode_whole(&limits, message.bytes)?);
        *request.extensions_mut() = extensions;
        return Ok(request);
    }
    let metadata = metadata::decode_bytes(metadata)?;
    let encoding = Encoding::named(&metadata)?;
    let bytes = match message.compressed {
        true => compression::decompress(encoding, &message.bytes, &limits)?,
        false => message.bytes,
    };
    let message = decode_whole(&limits, bytes)?;
    Ok(Request::from_parts(metadata, extensions, message))
}

/// The one message of a unary request that came after its head.
async fn only_message(call: &mut Call, mut end: bool) -> Result<ringway_local::Message, Status> {
    while !end {
        match poll_fn(|context| call.poll_inbound(context)).await {
            Some(Inbound::Message(message)) => return Ok(message),
            Some(Inbound::Headers(_)) => {}
            Some(Inbound::TooLong { len, limit }) => {
                return Err(crate::status::too_long(len as usize, limit as usize));
            }
            _ => end = true,
        }
    }
    Err(Status::internal("Missing request message."))
}
