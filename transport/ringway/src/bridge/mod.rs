//! HTTP types over a local call, both ends: plain tonic stubs over a [`Channel`](crate::Channel), and
//! tonic services behind a local path. It costs what the HTTP types cost, some 1.2 µs a call at each end.
//!
//! gRPC's framing (a flag, a length, a message: <https://grpc.io/docs/> "gRPC over HTTP2") exists
//! only inside the bodies here; on the wire a message is a frame's payload.

mod client;
mod intercepted;
mod messages;
mod server;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use ringway_local::{Call, CallSender, Inbound, MAX_WHOLE_BYTES, Out};
use tonic::Status;

pub(crate) use intercepted::{take_head, to_intercept};
pub(crate) use messages::{Messages, PREFIX_BYTES, Step, framed};
pub(crate) use server::HttpService;

use crate::meter::Direction;
use crate::pump::Turn;
use crate::status;
use crate::streaming::count_of;
use crate::trace::Trace;
use messages::framed_all;

/// Sends the rest of a body on a call, which `trace` is of.
async fn send_all<B>(
    sender: &CallSender,
    messages: &mut Messages<B>,
    trace: &Trace,
) -> Result<(), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut turn = Turn::default();
    loop {
        let message = match poll_fn(|context| messages.poll_next(context)).await? {
            Step::Message(message) => message,
            Step::End => return Ok(()),
        };
        let (form, bytes) = (message.form(), message.bytes);
        let len = bytes.len();
        let sent = if len > MAX_WHOLE_BYTES {
            let encode = move |out: Out<'_>| out.share(&bytes);
            Box::pin(sender.send_large(form, false, encode)).await
        } else {
            let encode = &mut |out: Out<'_>| out.copy_from_slice(&bytes);
            poll_fn(|context| sender.poll_send(context, form, len, &mut *encode)).await
        };
        sent.map_err(|error| status::unsent(&error))?;
        trace.carried(Direction::Sent, 1, len);
        turn.sent(len).await;
    }
}

/// The messages of a frame as they stand in a body, counted.
fn taken(trace: &Trace, message: &ringway_local::Message) -> Bytes {
    if let Some(span) = trace.span() {
        let (messages, bytes) = count_of(message);
        span.carried(Direction::Received, messages, bytes);
    }
    framed_all(message)
}

/// A body that is all there. Small, since whoever takes it as any body boxes it.
struct Whole {
    data: Option<Bytes>,
    /// A request has none.
    trailers: Option<Box<HeaderMap>>,
}

impl Whole {
    fn new(data: Bytes, trailers: Option<Box<HeaderMap>>) -> Self {
        Self {
            data: Some(data),
            trailers,
        }
    }
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(|these| Frame::trailers(*these)));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

/// Headers that say what gRPC's bodies are.
fn with_content_type(mut headers: HeaderMap) -> HeaderMap {
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, grpc);
    headers
}

/// What arrives for a call, as a body.
struct Inbox {
    call: Call,
    ready: Option<Bytes>,
    /// A server's request, which has no trailers and must not seem complete when it is not.
    request: bool,
    over: bool,
    trace: Trace,
}

impl HttpBody for Inbox {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.ready.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.call.poll_inbound(context)) {
                Some(Inbound::Headers(_)) => {}
                Some(Inbound::Message(message)) => {
                    let data = taken(&self.trace, &message);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None | Some(Inbound::HalfClosed) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                Some(ending) => {
                    self.over = true;
                    let status = ending_status(&ending);
                    let broke_off = !matches!(ending, Inbound::TooLong { .. });
                    let is_lost = matches!(ending, Inbound::Lost { .. });
                    return Poll::Ready(Some(match self.request {
                        true if broke_off => Err(status::broken_off(&status)),
                        false if !is_lost => Ok(Frame::trailers(status_headers(&status))),
                        _ => Err(status),
                    }));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.ready.is_none()
    }
}

fn ending_status(inbound: &Inbound) -> Status {
    match inbound {
        Inbound::Trailers { code, head } => status::decode(*code, head),
        Inbound::Reset { code, .. } => status::reset(*code),
        Inbound::Expired => status::expired(),
        Inbound::Failed(error) => status::unsent(error),
        Inbound::TooLong { len, limit } => status::too_long(*len as usize, *limit as usize),
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
