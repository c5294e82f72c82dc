//! The server's end: tonic services behind a local path.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use ringway_local::{Call, HandlerFuture, Out, Started};
use ringway_net::reserved::drop_bad_details;
use ringway_net::{Trailers, status_of_http, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::messages::Messages;
use super::{Inbox, Whole, send_all, taken, with_content_type};
use crate::answer::{Refused, finish, response_head, send_trailers};
use crate::context::{Context as CallContext, Handled};
use crate::dispatch::{ServerCall, add_connect_info, context_of, nothing};
use crate::limit::response_begins;
use crate::metadata::{self, add_traceparent, add_user_agent};
use crate::meter::Direction;
use crate::status;
use crate::streaming;
use crate::trace::{self, Step, Trace};

/// A tonic service that answers local calls.
pub(crate) struct HttpService {
    /// Makes what will handle a call.
    handler: Arc<dyn Fn(CallContext) -> Pin<Box<dyn Begin>> + Send + Sync>,
    /// Where the last call went: most calls of a service go to few of its methods.
    last: Mutex<Uri>,
}

/// What handles a call once it is given it. Given late, and where that stays: a request is large to move.
trait Begin: Future<Output = ()> + Send {
    fn begin(self: Pin<&mut Self>, call: Call, request: Request<Body>);
}

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
        Self {
            handler: Arc::new(move |context| {
                let serving = Serving {
                    response: None,
                    service: service.clone(),
                    request: None,
                    rest: None,
                    call: None,
                };
                Box::pin(Handled::new(context, serving))
            }),
            last: Mutex::default(),
        }
    }

    /// Answers one call.
    pub(crate) fn answer(&self, mut call: ServerCall<'_>) -> HandlerFuture {
        let Some(started) = call.started() else {
            return nothing();
        };
        let context = context_of(started);
        let request = self.to_http(started, context.recorded());
        let Some(Started { call, .. }) = call.take() else {
            return nothing();
        };
        match request {
            Ok(request) => {
                context.recorded().step(Step::HandlerStarted);
                let mut handler = (self.handler)(context);
                handler.as_mut().begin(call, request);
                handler
            }
            Err(status) => Box::pin(Handled::new(context, Refused { call, status }.answer())),
        }
    }

    fn to_http(&self, started: &mut Started, trace: &Trace) -> Result<Request<Body>, Status> {
        let Started {
            call,
            method,
            metadata,
            timeout,
            trace: trace_of,
            message,
            end,
            ..
        } = started;
        let mut headers = request_headers(metadata::decode_bytes(metadata)?);
        if let Some(trace) = trace_of {
            add_traceparent(&mut headers, trace);
        }
        if let Some(timeout) = timeout {
            headers.insert(timeout::TIMEOUT_HEADER, timeout::encode(*timeout));
        }
        let ready = message.take().map(|message| taken(trace, &message));
        let body = match (ready, *end) {
            (Some(message), true) => Body::new(Whole::new(message, None)),
            (ready, over) => Body::new(Inbox {
                call: call.reader(),
                ready,
                request: true,
                over,
                trace: trace.clone(),
            }),
        };
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.uri(&method.path, call.connection().name())?;
        *request.headers_mut() = headers;
        add_connect_info(request.extensions_mut(), call.connection());
        Ok(request)
    }

    /// The URI of a call that a client made of the server called `name`, as over HTTP.
    fn uri(&self, path: &str, name: &str) -> Result<Uri, Status> {
        let mut last = self.last.lock();
        let authority = last.authority().map_or("", |authority| authority.as_str());
        if last.path() != path || authority != name {
            *last = uri_of(path, name).ok_or_else(|| Status::unimplemented("no such method"))?;
        }
        Ok(last.clone())
    }
}

/// Of the path alone where the name is none that a URI can have.
fn uri_of(path: &str, name: &str) -> Option<Uri> {
    let whole = Uri::builder().scheme("http").authority(name);
    let whole = whole.path_and_query(path).build();
    whole.ok().or_else(|| path.parse().ok())
}

/// With those of gRPC's own that a service expects. To copy ready ones costs less than to make them.
fn request_headers(metadata: MetadataMap) -> HeaderMap {
    static BARE: LazyLock<HeaderMap> = LazyLock::new(|| with_te(HeaderMap::new()));
    match metadata.is_empty() {
        true => BARE.clone(),
        false => with_te(metadata.into_headers()),
    }
}

fn with_te(headers: HeaderMap) -> HeaderMap {
    let mut headers = with_content_type(headers);
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    add_user_agent(&mut headers);
    headers
}

pin_project_lite::pin_project! {
    /// A service's work on a call, and its answer once that is there. Written out, because what an `async`
    /// block is given and then passes on lies in it twice.
    struct Serving<S, F> {
        // Given up, the handler is dropped before its call.
        #[pin]
        response: Option<F>,
        service: S,
        request: Option<Request<Body>>,
        // What could not be written at once.
        rest: Option<HandlerFuture>,
        call: Option<Call>,
    }
}

impl<S, F> Begin for Handled<Serving<S, F>>
where
    Self: Future<Output = ()> + Send,
{
    fn begin(self: Pin<&mut Self>, call: Call, request: Request<Body>) {
        let serving = self.inner().project();
        *serving.call = Some(call);
        *serving.request = Some(request);
    }
}

impl<S, F, B> Future for Serving<S, F>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.request.is_some() {
            let Ok(()) = ready!(this.service.poll_ready(context));
            let response = this
                .request
                .take()
                .map(|request| this.service.call(request));
            this.response.set(response);
        }
        if let Some(response) = this.response.as_mut().as_pin_mut() {
            let Ok(response) = ready!(response.poll(context));
            this.response.set(None);
            if let Some(call) = this.call.take() {
                *this.rest = answer_with(call, response.map(Body::new), context);
            }
        }
        match this.rest {
            Some(rest) => rest.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

/// Answers a call with a tonic response; gives back what is left to do.
fn answer_with(
    mut call: Call,
    response: Response<Body>,
    context: &mut Context<'_>,
) -> Option<HandlerFuture> {
    response_begins();
    let (mut parts, body) = response.into_parts();
    let trailing = parts.extensions.remove::<Trailers>();
    drop_bad_details(&mut parts.headers);
    // A response of trailers alone carries its status in the headers.
    let status = Status::from_header_map(&parts.headers);
    if let Some(status) = status.or_else(|| status_of_http(parts.status, &parts.headers)) {
        trace::step_here(Step::HandlerEnded);
        return Some(Box::pin(Refused { call, status }.answer()));
    }
    let initial = MetadataMap::from_headers(parts.headers);
    let mut messages = Messages::new(body);
    let only = match call.connection().takes_whole_streams() {
        true => messages.take_only(context),
        false => None,
    };
    if let Some(message) = &only
        && trailing.is_none()
        && messages.ends_barely()
        && metadata::is_bare(&initial)
    {
        trace::step_here(Step::HandlerEnded);
        let encode = &mut |out: Out<'_>| {
            out.copy_from_slice(message);
            trace::step_here(Step::Published);
        };
        if call.respond(&[], message.len(), encode).is_ok() {
            trace::carried_here(Direction::Sent, message.len());
            trace::end_here(Code::Ok, "");
            return None;
        }
    }
    Some(Box::pin(async move {
        if let Err(status) = relay(&mut call, initial, (only, messages), trailing).await {
            finish(&mut call, &status).await;
        }
    }))
}

/// Sends a tonic response on a local call.
async fn relay(
    call: &mut Call,
    initial: MetadataMap,
    (only, mut messages): (Option<Bytes>, Messages<Body>),
    trailing: Option<Trailers>,
) -> Result<(), Status> {
    if only.is_none() {
        let block = metadata::encode(&initial)?;
        let sender = call.sender().clone();
        poll_fn(|context| sender.poll_send_headers(context, block.as_metadata().as_bytes()))
            .await
            .map_err(|error| status::unsent(&error))?;
        send_all(&sender, &mut messages, &trace::counted_here()).await?;
    }
    trace::step_here(Step::HandlerEnded);
    let mut trailers = messages.trailers.unwrap_or_default();
    drop_bad_details(&mut trailers);
    let status = Status::from_header_map(&trailers)
        .unwrap_or_else(|| Status::new(Code::Unknown, "the service sent no status"));
    if status.code() != Code::Ok || (only.is_none() && trailing.is_none()) {
        finish(call, &status).await;
        return Ok(());
    }
    let mut all = status.metadata().clone();
    if let Some(Trailers(trailing)) = trailing {
        let mut headers = all.into_headers();
        headers.extend(trailing.into_headers());
        all = MetadataMap::from_headers(headers);
    }
    match only {
        Some(message) => respond_whole(call, &response_head(&initial, &all)?, &message).await?,
        None => send_trailers(call, streaming::ok_trailers(all)).await,
    }
    trace::end_here(Code::Ok, "");
    Ok(())
}

async fn respond_whole(call: &mut Call, head: &[u8], message: &[u8]) -> Result<(), Status> {
    poll_fn(|context| {
        call.poll_respond(context, head, message.len(), &mut |out| {
            out.copy_from_slice(message);
            trace::step_here(Step::Published);
        })
    })
    .await
    .map_err(|error| status::unsent(&error))?;
    trace::carried_here(Direction::Sent, message.len());
    Ok(())
}
