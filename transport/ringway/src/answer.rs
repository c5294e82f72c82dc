//! The server's end of a typed call: from what a handler answers to the peer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{self, Poll};

use prost::Message;
use ringway_local::{Call, Form, HandlerFuture, MAX_WHOLE_BYTES, Out};
use ringway_net::Trailers;
use ringway_wire::ResponseHead;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::limit::response_begins;
use crate::metadata;
use crate::meter::Direction;
use crate::method::MessageLimits;
use crate::pump::{Pumped, pump};
use crate::status;
use crate::streaming::{self, encode_whole};
use crate::trace::{self, Step};

pin_project_lite::pin_project! {
    /// A handler, and its answer once that is there. Written out, because an `async fn` would hold its
    /// arguments twice, and move them when it is first polled.
    pub(crate) struct Answering<F> {
        // Given up, the handler is dropped before its call.
        #[pin]
        handling: Option<F>,
        // What could not be written at once.
        rest: Option<HandlerFuture>,
        call: Option<Call>,
        limits: MessageLimits,
    }
}

impl<F> Answering<F> {
    /// Of a call that no handler has yet.
    pub(crate) fn new(call: Call, limits: MessageLimits) -> Self {
        Self {
            handling: None,
            rest: None,
            call: Some(call),
            limits,
        }
    }

    /// Has `handling` answer.
    pub(crate) fn begin(self: Pin<&mut Self>, handling: F) {
        self.project().handling.set(Some(handling));
    }
}

impl<F, R> Future for Answering<F>
where
    F: Future<Output = Result<Response<R>, Status>>,
    R: Message + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.rest.is_none() {
            // Left where it lies: it is large to move.
            let handling = this.handling.as_pin_mut();
            let (Some(handling), Some(call)) = (handling, this.call.as_mut()) else {
                return Poll::Ready(());
            };
            let polled = handling.poll(context);
            let Poll::Ready(answered) = &polled else {
                return Poll::Pending;
            };
            let Err(why) = answer_at_once(call, answered, *this.limits) else {
                return Poll::Ready(());
            };
            if let (Poll::Ready(answered), Some(call)) = (polled, this.call.take()) {
                *this.rest = Some(answer_later(call, answered, why, *this.limits));
            }
        }
        match this.rest {
            Some(rest) => rest.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

/// Answers a unary call, if that can be done now.
fn answer_at_once<R: Message>(
    call: &mut Call,
    answered: &Result<Response<R>, Status>,
    limits: MessageLimits,
) -> Result<(), NotAtOnce> {
    let is_recorded = trace::is_recorded_here();
    if is_recorded {
        trace::step_here(Step::HandlerEnded);
    }
    match answered {
        Ok(response) if is_bare(response) => {
            respond_at_once(call, (response.get_ref(), is_recorded), limits)
        }
        _ => Err(NotAtOnce::More),
    }
}

/// Why an answer was not written at once.
enum NotAtOnce {
    /// There is more to say than a message.
    More,
    Refused(Status),
    Unsent(ringway_local::SendError),
}

fn answer_later<R: Message + 'static>(
    call: Call,
    answered: Result<Response<R>, Status>,
    why: NotAtOnce,
    limits: MessageLimits,
) -> HandlerFuture {
    let status = match (answered, why) {
        (Err(status), _) | (_, NotAtOnce::Refused(status)) => status,
        (Ok(response), NotAtOnce::More)
        | (Ok(response), NotAtOnce::Unsent(ringway_local::SendError::Blocked(_))) => {
            return Box::pin(respond(call, response, limits));
        }
        (_, NotAtOnce::Unsent(error)) => status::unsent(&error),
    };
    Box::pin(Refused { call, status }.answer())
}

/// Whether a response is nothing but its message.
fn is_bare<R>(response: &Response<R>) -> bool {
    response.metadata().is_empty() && response.extensions().is_empty()
}

/// Writes the answer where the message lies, as most answers can be.
fn respond_at_once<R: Message>(
    call: &mut Call,
    (message, is_recorded): (&R, bool),
    limits: MessageLimits,
) -> Result<(), NotAtOnce> {
    let len_bytes = message.encoded_len();
    limits
        .check_encoding(len_bytes)
        .map_err(NotAtOnce::Refused)?;
    if len_bytes > MAX_WHOLE_BYTES {
        return Err(NotAtOnce::More);
    }
    response_begins();
    let encode = &mut |out: Out<'_>| {
        encode_whole(message, out);
        if is_recorded {
            trace::step_here(Step::Published);
        }
    };
    call.respond(&[], len_bytes, encode)
        .map_err(NotAtOnce::Unsent)?;
    if is_recorded {
        trace::carried_here(Direction::Sent, len_bytes);
        trace::end_here(Code::Ok, "");
    }
    Ok(())
}

/// A call that no handler sees.
pub(crate) struct Refused {
    pub(crate) call: Call,
    pub(crate) status: Status,
}

impl Refused {
    pub(crate) async fn answer(mut self) {
        finish(&mut self.call, &self.status).await;
    }
}

pub(crate) async fn respond<R: Message>(
    mut call: Call,
    response: Response<R>,
    limits: MessageLimits,
) {
    if response.get_ref().encoded_len() > MAX_WHOLE_BYTES {
        return respond_in_pieces(call, response, limits).await;
    }
    let answer = match answer(response, limits) {
        Ok(answer) => answer,
        Err(status) => return finish(&mut call, &status).await,
    };
    response_begins();
    let sent = poll_fn(|context| answer.poll_send(context, &mut call)).await;
    match sent {
        Ok(()) => {
            trace::carried_here(Direction::Sent, answer.len_bytes);
            trace::end_here(Code::Ok, "");
        }
        Err(error) => finish(&mut call, &status::unsent(&error)).await,
    }
}

/// Answers a unary call with a message too long for one frame.
async fn respond_in_pieces<R: Message>(
    mut call: Call,
    response: Response<R>,
    limits: MessageLimits,
) {
    response_begins();
    let trailing = match send_in_pieces(&call, response, limits).await {
        Ok(trailing) => trailing,
        Err(status) => return finish(&mut call, &status).await,
    };
    send_trailers(&mut call, streaming::ok_trailers(trailing)).await;
    trace::end_here(Code::Ok, "");
}

/// Sends all of a unary answer but its end; returns the metadata for that.
async fn send_in_pieces<R: Message>(
    call: &Call,
    response: Response<R>,
    limits: MessageLimits,
) -> Result<MetadataMap, Status> {
    let (initial, message, mut extensions) = response.into_parts();
    let len_bytes = message.encoded_len();
    limits.check_encoding(len_bytes)?;
    let headers = metadata::encode(&initial)?;
    let block = headers.as_metadata();
    let sender = call.sender();
    let unsent = |error| status::unsent(&error);
    poll_fn(|context| sender.poll_send_headers(context, block.as_bytes()))
        .await
        .map_err(unsent)?;
    // Encoded, it is let go of.
    let encode = move |out: Out<'_>| encode_whole(&message, out);
    sender
        .send_large(Form::Plain, false, encode)
        .await
        .map_err(unsent)?;
    trace::carried_here(Direction::Sent, len_bytes);
    Ok(extensions.remove::<Trailers>().unwrap_or_default().0)
}

/// A unary answer, ready to be written.
struct Answer<R> {
    head: Vec<u8>,
    message: R,
    len_bytes: usize,
}

impl<R: Message> Answer<R> {
    fn poll_send(
        &self,
        context: &mut task::Context<'_>,
        call: &mut Call,
    ) -> Poll<Result<(), ringway_local::SendError>> {
        call.poll_respond(context, &self.head, self.len_bytes, &mut |out| {
            encode_whole(&self.message, out);
            trace::step_here(Step::Published);
        })
    }
}

fn answer<R: Message>(response: Response<R>, limits: MessageLimits) -> Result<Answer<R>, Status> {
    let (initial, message, mut extensions) = response.into_parts();
    let trailing = extensions.remove::<Trailers>().map(|trailers| trailers.0);
    let len_bytes = message.encoded_len();
    limits.check_encoding(len_bytes)?;
    Ok(Answer {
        head: response_head(&initial, &trailing.unwrap_or_default())?,
        message,
        len_bytes,
    })
}

/// What is said in front of a call's only message; nothing without metadata.
pub(crate) fn response_head(
    initial: &MetadataMap,
    trailing: &MetadataMap,
) -> Result<Vec<u8>, Status> {
    let (initial, trailing) = (
        metadata::encode(initial)?,
        metadata::encode_trailing(trailing)?,
    );
    let (initial, trailing) = (initial.as_metadata(), trailing.as_metadata());
    let mut head = Vec::new();
    if !(initial.is_empty() && trailing.is_empty()) {
        let encoded = ResponseHead { initial, trailing };
        head.resize(encoded.encoded_len(), 0);
        encoded.encode(&mut head);
    }
    Ok(head)
}

pub(crate) async fn stream<R, S>(mut call: Call, response: Response<S>, limits: MessageLimits)
where
    R: Message + 'static,
    S: Stream<Item = Result<R, Status>>,
{
    let (initial, stream, mut extensions) = response.into_parts();
    let headers = match metadata::encode(&initial) {
        Ok(headers) => headers,
        Err(status) => return finish(&mut call, &status).await,
    };
    response_begins();
    let block = headers.as_metadata();
    let sender = call.sender().clone();
    let sent = poll_fn(|context| sender.poll_send_headers(context, block.as_bytes()));
    if sent.await.is_err() {
        return;
    }
    match pump(&sender, stream, limits, &trace::counted_here()).await {
        Pumped::All => {
            trace::step_here(Step::HandlerEnded);
            let trailing = extensions.remove::<Trailers>().unwrap_or_default();
            send_trailers(&mut call, streaming::ok_trailers(trailing.0)).await;
            trace::end_here(Code::Ok, "");
        }
        Pumped::Failed(status) => failed(&mut call, &status).await,
        // Nobody is left to be told if the call is over.
        Pumped::Unsent(error) => finish(&mut call, &status::unsent(&error)).await,
    }
}

/// The handler has ended with a status.
pub(crate) async fn failed(call: &mut Call, status: &Status) {
    trace::step_here(Step::HandlerEnded);
    finish(call, status).await;
}

/// Ends the call that is being handled with a status.
pub(crate) async fn finish(call: &mut Call, status: &Status) {
    send_trailers(call, status::encode(status)).await;
    trace::end_here(status.code(), status.message());
}

pub(crate) async fn send_trailers(call: &mut Call, (code, head): (u16, Vec<u8>)) {
    response_begins();
    let sent = poll_fn(|context| {
        trace::step_here(Step::Published);
        call.poll_finish(context, code, &head)
    });
    // An error means that the call is over, and nobody is left to be told.
    let _ = sent.await;
}
