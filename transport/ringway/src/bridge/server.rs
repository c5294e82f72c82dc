//! The server's end: tonic services behind a local path.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as HttpBody;
use ringway_local::{Call, HandlerFuture, Started};
use ringway_net::guard::drop_bad_details;
use ringway_net::{Trailers, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::messages::Messages;
use super::{Inbox, send_all};
use crate::answer::{finish, response_head, send_trailers};
use crate::context::Handled;
use crate::dispatch::{ServerCall, add_connect_info, context_of, nothing};
use crate::metadata;
use crate::meter::Direction;
use crate::status;
use crate::streaming;
use crate::trace::{self, Step, Trace};

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
    pub(crate) fn answer(&self, call: ServerCall<'_>) -> HandlerFuture {
        let Some(started) = call.take() else {
            return nothing();
        };
        let context = context_of(&started);
        let (mut call, request) = match to_http(started, context.recorded()) {
            Ok(parts) => parts,
            Err((mut call, refusal)) => {
                let refused = async move { finish(&mut call, &refusal).await };
                return Box::pin(Handled::new(context, refused));
            }
        };
        let response = (self.0)(request);
        context.recorded().step(Step::HandlerStarted);
        Box::pin(Handled::new(context, async move {
            let (mut parts, body) = response.await.into_parts();
            let trailing = parts.extensions.remove::<Trailers>();
            if let Err(status) = relay(&mut call, parts.headers, body, trailing).await {
                finish(&mut call, &status).await;
            }
        }))
    }
}

fn to_http(started: Started, trace: &Trace) -> Result<(Call, Request<Body>), (Call, Status)> {
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
        ready: message.map(|message| Inbox::take(trace, &message)),
        trailers: None,
        request: true,
        over: end,
        trace: trace.clone(),
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
        trace::step_here(Step::HandlerEnded);
        finish(call, &status).await;
        return Ok(());
    }
    let initial = MetadataMap::from_headers(headers);
    let mut messages = Messages::new(body);
    let only = match call.connection().takes_whole_streams() {
        true => poll_fn(|context| Poll::Ready(messages.take_only(context))).await,
        false => None,
    };
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
