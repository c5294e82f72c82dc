//! The client's end: plain tonic stubs over a [`Channel`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BufMut;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::Body as HttpBody;
use ringway_local::{
    Call, Inbound, MAX_WHOLE_BYTES, Opening, Out, Pace, SendError, clock, runtime,
};
use ringway_net::guard::Guarded;
use ringway_net::{Picked, timeout};
use ringway_wire::MetadataBuf;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;

use super::intercepted::put_head_aside;
use super::messages::{Framed, Messages, Step};
use super::{Inbox, Whole, ending_status, send_all, taken, with_content_type};
use crate::admission::Admitted;
use crate::channel::{Channel, Route, Routed, Shared};
use crate::client::{goes_over, metadata_around};
use crate::instances::Instance;
use crate::metadata;
use crate::meter::Direction;
use crate::method;
use crate::path::Path;
use crate::status;
use crate::trace::{self, Calling, Stamps, Trace};
use crate::traced::{Ending, Traced};

/// Connections that a call may find closed before it is sent.
const MAX_CLOSED: usize = 4;

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if put_head_aside(&mut request) {
            return Box::pin(std::future::ready(Ok(Response::default())));
        }
        let calling = Calling::begin(request.uri().path());
        let wait_for_ready = self.waits_for_ready(request.extensions());
        let (mut parts, body) = request.into_parts();
        let mut metadata = MetadataMap::from_headers(std::mem::take(&mut parts.headers));
        let mut outgoing = Outgoing {
            deadline: self.complete(&mut metadata),
            metadata,
            parts,
            body,
            wait_for_ready,
        };
        let limited = self.shared.admission.is_some();
        let at_hand = self.at_hand().map(|(instance, _)| Arc::clone(instance));
        let at_hand = at_hand.filter(|_| !limited);
        let Some(instance) = at_hand else {
            let mut channel = self.clone();
            let call = Box::pin(async move {
                let _admitted = channel
                    .admit(outgoing.deadline)
                    .await
                    .inspect_err(|status| calling.failed(status))?;
                let answered = channel.carry(outgoing, calling.trace()).await;
                calling.end_unless_ok(&answered);
                answered
            });
            return Box::pin(runtime::anywhere(call));
        };
        let block = match metadata::encode(&outgoing.metadata) {
            Ok(block) => block,
            Err(status) => {
                calling.failed(&status);
                return Box::pin(std::future::ready(Err(status)));
            }
        };
        // Made out here, because what a future passes on lies in it twice; it is boxed, and moved into the box.
        let mut call = outgoing.over(Arc::clone(&self.shared), instance, block);
        Box::pin(async move {
            let answered = call.make(calling.trace()).await;
            calling.end_unless_ok(&answered);
            answered
        })
    }
}

/// An HTTP request on its way out, of a call that has to be over at `deadline`.
struct Outgoing {
    /// Without its headers.
    parts: http::request::Parts,
    metadata: MetadataMap,
    deadline: Option<Instant>,
    body: Body,
    wait_for_ready: bool,
}

impl Outgoing {
    /// Has a local instance take the call, its metadata as a `block`; nothing large is moved but once.
    fn over(
        &mut self,
        shared: Arc<Shared>,
        instance: Arc<Instance>,
        block: MetadataBuf,
    ) -> LocalCall {
        LocalCall {
            shared,
            instance,
            method_number: method::number_of(self.parts.uri.path()),
            uri: std::mem::take(&mut self.parts.uri),
            block,
            deadline: self.deadline,
            messages: Messages::new(std::mem::take(&mut self.body)),
            wait_for_ready: self.wait_for_ready,
            admitted: None,
        }
    }
}

impl Channel {
    /// Makes a call for which no local instance was at hand.
    async fn carry(
        &mut self,
        mut outgoing: Outgoing,
        trace: &Trace,
    ) -> Result<Response<Body>, Status> {
        let route = self.route(outgoing.wait_for_ready);
        let Routed {
            to,
            admitted,
            member,
        } = within(outgoing.deadline, route).await??;
        match to {
            Route::Local(instance) => {
                if let Some(member) = &member {
                    member.add_user_agent(&mut outgoing.metadata);
                }
                let block = metadata::encode(&outgoing.metadata)?;
                let mut call = outgoing.over(Arc::clone(&self.shared), instance, block);
                call.admitted = admitted;
                call.make(trace).await
            }
            Route::Net(net) => {
                let Outgoing {
                    mut parts,
                    metadata,
                    deadline,
                    body,
                    ..
                } = outgoing;
                parts.headers = metadata.into_headers();
                self.shared.leave_user_agent_to_tonic(&mut parts.headers);
                if let Some(deadline) = deadline {
                    let time_left = deadline.saturating_duration_since(clock::now());
                    let value = timeout::encode(time_left);
                    parts.headers.insert(timeout::TIMEOUT_HEADER, value);
                }
                let request = Request::from_parts(parts, body);
                let response = over_the_network(net, trace, request).await?;
                // Held until here: the response begins.
                drop(admitted);
                Ok(ending(response, trace, deadline))
            }
        }
    }
}

/// The response, whose body ends the call's span.
fn ending(response: Response<Body>, trace: &Trace, deadline: Option<Instant>) -> Response<Body> {
    match trace.span() {
        Some(_) => Ending::at(trace, deadline).with(response),
        None => response,
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

/// A call of HTTP types over a local connection.
struct LocalCall {
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    method_number: u32,
    uri: Uri,
    block: MetadataBuf,
    deadline: Option<Instant>,
    messages: Messages<Body>,
    wait_for_ready: bool,
    /// The permission of one of several endpoints, until the response begins.
    admitted: Option<Admitted>,
}

impl LocalCall {
    async fn make(&mut self, trace: &Trace) -> Result<Response<Body>, Status> {
        let mut first = FirstMessage::of(&mut self.messages).await?;
        if let Some(large) = first.take_large() {
            self.messages.put_back(large);
        }
        trace.step(trace::Step::Encoded);
        let stamps = trace.with_steps().map(|_| Stamps::default());
        let mut call = self.open(&first, trace, stamps.as_ref()).await?;
        if let Some(span) = trace.span() {
            goes_over(&self.instance.connection, &**span);
            stamps.iter().for_each(|stamps| stamps.note(&**span));
            if let Some(message) = &first.message {
                span.carried(Direction::Sent, 1, message.bytes.len());
            }
        }
        // What can be done before the answer comes is done while the peer works.
        match first.end {
            true => self.messages.body = Body::empty(),
            false => {
                let rest = std::mem::replace(&mut self.messages, Messages::new(Body::empty()));
                let pace = method::pace_of(self.uri.path());
                send_rest(&mut call, rest, trace, pace);
            }
        }
        drop(first);
        let bare = Bare::over(Path::over(&self.instance.connection));
        let inbound = poll_fn(|context| call.poll_inbound(context)).await;
        trace.step(trace::Step::AnswerSeen);
        let response = answer(call, inbound, bare, trace)?;
        Ok(ending(response, trace, self.deadline))
    }

    async fn open(
        &mut self,
        first: &FirstMessage,
        trace: &Trace,
        stamps: Option<&Stamps>,
    ) -> Result<Call, Status> {
        let mut closed = 0;
        loop {
            let opened = self.open_once(first, trace, stamps).await;
            match opened {
                // Nothing but the first message has been read, and that one is still here.
                Err(SendError::Closed(_) | SendError::GoingAway) if closed < MAX_CLOSED => {
                    closed += 1;
                    let deadline = self.deadline;
                    let turning = Box::pin(within(deadline, self.turn_to_another()));
                    runtime::anywhere(turning).await??;
                }
                opened => return opened.map_err(|error| status::unsent(&error)),
            }
        }
    }

    async fn open_once(
        &mut self,
        first: &FirstMessage,
        trace: &Trace,
        stamps: Option<&Stamps>,
    ) -> Result<Call, SendError> {
        // One by one: a body can't be shared between threads.
        let Self {
            instance,
            method_number,
            uri,
            block,
            deadline,
            ..
        } = self;
        let compressed = |message: &Framed| message.compressed;
        let request = ringway_local::Request {
            method_number: *method_number,
            path: uri.path(),
            metadata: block.as_metadata(),
            deadline: *deadline,
            trace: trace.context(),
            published: stamps.map(|stamps| &stamps.published),
            // What the stub takes is known to it alone.
            max_answer_bytes: u32::MAX,
            end: first.end,
            compressed: first.message.as_ref().is_some_and(compressed),
        };
        let mut opening = Opening::new(&instance.connection, *deadline);
        poll_fn(|context| {
            let encode = &mut |out: Out<'_>| {
                if let Some(message) = &first.message {
                    out.copy_from_slice(&message.bytes);
                }
            };
            let message = first.message.as_ref();
            let message = message.map(|message| (message.bytes.len(), encode as _));
            opening.poll(context, &request, message)
        })
        .await
    }

    /// Has another local instance take the call.
    async fn turn_to_another(&mut self) -> Result<(), Status> {
        let mut channel = Channel::over(Arc::clone(&self.shared));
        channel.forget(&self.instance.connection);
        // The next way asks for a permission of its own.
        self.admitted = None;
        let routed = channel.route(self.wait_for_ready).await?;
        match routed.to {
            Route::Local(other) => {
                self.instance = other;
                self.admitted = routed.admitted;
                Ok(())
            }
            Route::Net(_) => Err(Status::unavailable("the local server went away")),
        }
    }
}

/// Waits for `future`, but not beyond the deadline.
async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Result<T, Status> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future)
            .await
            .map_err(|_| status::expired()),
    }
}

/// Has the rest of a request's body sent beside whoever reads the call.
fn send_rest(call: &mut Call, mut messages: Messages<Body>, trace: &Trace, pace: Arc<Pace>) {
    let sender = call.sender().clone();
    // It may be polled in the pass of another task: perhaps the handler of another call.
    let (context, trace) = (crate::Context::inherited(), trace.clone());
    let sending = Box::pin(context.scope(async move {
        match send_all(&sender, &mut messages, &trace).await {
            // The call may have ended meanwhile: then there is nothing to close.
            Ok(()) => drop(poll_fn(|context| sender.poll_half_close(context)).await),
            Err(status) => {
                let (code, head) = status::encode(&status);
                sender.give_up(code, head);
            }
        }
    }));
    call.attach(sending, pace);
}

/// What a request's body holds at once: tells a unary call from a stream.
struct FirstMessage {
    message: Option<Framed>,
    end: bool,
}

impl FirstMessage {
    /// A message that goes behind the call's head, in pieces.
    fn take_large(&mut self) -> Option<Framed> {
        let large = self
            .message
            .take_if(|message| message.bytes.len() > MAX_WHOLE_BYTES)?;
        self.end = false;
        Some(large)
    }

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

/// What a response has that says nothing but its message. To copy ready headers costs less than to make them.
struct Bare {
    headers: HeaderMap,
    trailers: Box<HeaderMap>,
    extensions: Extensions,
}

impl Bare {
    /// Of a response that comes by this path.
    fn over(path: Path) -> Self {
        static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| with_content_type(HeaderMap::new()));
        static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| with_success(HeaderMap::new()));
        Self {
            headers: HEADERS.clone(),
            trailers: Box::new(TRAILERS.clone()),
            extensions: path.mark(),
        }
    }
}

fn with_success(mut trailers: HeaderMap) -> HeaderMap {
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn answer(
    call: Call,
    inbound: Option<Inbound>,
    bare: Bare,
    trace: &Trace,
) -> Result<Response<Body>, Status> {
    let (headers, body) = match inbound {
        Some(Inbound::Response { head, message }) => {
            let data = taken(trace, &message);
            let (headers, trailers) = match head.is_empty() {
                true => (bare.headers, bare.trailers),
                false => {
                    let (initial, trailing) = metadata_around(&head)?;
                    let trailers = with_success(trailing.into_headers());
                    let headers = with_content_type(initial.into_headers());
                    (headers, Box::new(trailers))
                }
            };
            (headers, Body::new(Whole::new(data, Some(trailers))))
        }
        Some(Inbound::Headers(block)) => {
            let inbox = Inbox {
                call,
                ready: None,
                request: false,
                over: false,
                trace: trace.clone(),
            };
            let initial = metadata::decode_bytes(&block)?;
            let headers = with_content_type(initial.into_headers());
            (headers, Body::new(inbox))
        }
        Some(Inbound::Lost { why, .. }) => return Err(status::lost(&why)),
        Some(ending) => {
            let mut response = ending_status(&ending).into_http::<Body>();
            *response.extensions_mut() = bare.extensions;
            return Ok(response);
        }
        None => return Err(Status::internal("the call ended without an answer")),
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    *response.extensions_mut() = bare.extensions;
    Ok(response)
}
