//! Calls that their client gives up, and one whose time runs out.

use std::pin::pin;
use std::time::Duration;

use ringway_proto::grpc_testing::{Empty, StreamingInputCallRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use super::streams::expect_part;
use super::{REQUEST_SIZES, RESPONSE_SIZES, output};
use crate::client::Client;
use crate::failure::{Failure, expect_code};

const TIMEOUT: Duration = Duration::from_millis(1);

/// tonic's handle cancels a call whose outcome somebody still waits for.
pub(crate) async fn cancel_after_begin(client: &Client) -> Result<(), Failure> {
    let mut service = client.service();
    // The connection stands, so that the call's first poll sends its head.
    let ready = service.empty_call(Empty {}).await;
    client.take(ready.map_err(Failure::of("EmptyCall"))?)?;
    let mut request = Request::new(tokio_stream::pending::<StreamingInputCallRequest>());
    let handle = request.cancellation_handle();
    let mut call = pin!(service.streaming_input_call(request));
    if let std::task::Poll::Ready(ended) = futures_util::poll!(call.as_mut()) {
        return Err(Failure::Unexpected(format!(
            "the call ended before it was cancelled: {ended:?}"
        )));
    }
    handle.cancel();
    expect_code("StreamingInputCall", call.await, Code::Cancelled)?;
    Ok(())
}

pub(crate) async fn cancel_after_first_response(client: &Client) -> Result<(), Failure> {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let handle = request.cancellation_handle();
    let first = output(REQUEST_SIZES[0], &RESPONSE_SIZES[..1]);
    let sent = requests.send(first).await;
    sent.map_err(|_| Failure::Unexpected("nobody reads the requests".into()))?;
    let answered = client.service().full_duplex_call(request).await;
    let mut responses = client.take(answered.map_err(Failure::of("FullDuplexCall"))?)?;
    expect_part(&mut responses, RESPONSE_SIZES[0]).await?;
    handle.cancel();
    expect_code("FullDuplexCall", responses.message().await, Code::Cancelled)?;
    Ok(())
}

/// The server waits for more requests, so that nothing but the deadline ends the call.
pub(crate) async fn timeout_on_sleeping_server(client: &Client) -> Result<(), Failure> {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.set_timeout(TIMEOUT);
    let sent = requests.send(output(REQUEST_SIZES[0], &[])).await;
    sent.map_err(|_| Failure::Unexpected("nobody reads the requests".into()))?;
    let ended = match client.service().full_duplex_call(request).await {
        Ok(response) => client.take(response)?.message().await,
        Err(status) => Err(status),
    };
    expect_code("FullDuplexCall", ended, Code::DeadlineExceeded)?;
    Ok(())
}
