//! Streams, one way and both ways.

use ringway_proto::grpc_testing::{
    StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{REQUEST_SIZES, RESPONSE_SIZES, expect_zeros, output, payload};
use crate::client::Client;
use crate::failure::{Failure, expect_eq};

const SUM_BYTES: i32 = 74_922;

pub(crate) async fn client_streaming(client: &Client) -> Result<(), Failure> {
    let requests = REQUEST_SIZES.map(|size| StreamingInputCallRequest {
        payload: Some(payload(size)),
        ..StreamingInputCallRequest::default()
    });
    let answered = client
        .service()
        .streaming_input_call(tokio_stream::iter(requests))
        .await;
    let response = client.take(answered.map_err(Failure::of("StreamingInputCall"))?)?;
    expect_eq("the sum", response.aggregated_payload_size, SUM_BYTES)
}

pub(crate) async fn server_streaming(client: &Client) -> Result<(), Failure> {
    let request = output(0, &RESPONSE_SIZES);
    let answered = client.service().streaming_output_call(request).await;
    let mut responses = client.take(answered.map_err(Failure::of("StreamingOutputCall"))?)?;
    for size in RESPONSE_SIZES {
        expect_part(&mut responses, size).await?;
    }
    expect_end(&mut responses).await
}

pub(crate) async fn ping_pong(client: &Client) -> Result<(), Failure> {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut parts = REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES);
    // The first request goes ahead: servers may wait for it before they send their headers.
    let mut asked = parts.next();
    send(&requests, asked).await?;
    let answered = client
        .service()
        .full_duplex_call(ReceiverStream::new(receiver))
        .await;
    let mut responses = client.take(answered.map_err(Failure::of("FullDuplexCall"))?)?;
    while let Some((_, size)) = asked {
        expect_part(&mut responses, size).await?;
        asked = parts.next();
        send(&requests, asked).await?;
    }
    drop(requests);
    expect_end(&mut responses).await
}

async fn send(
    requests: &Sender<StreamingOutputCallRequest>,
    part: Option<(usize, i32)>,
) -> Result<(), Failure> {
    let Some((request_bytes, size)) = part else {
        return Ok(());
    };
    let sent = requests.send(output(request_bytes, &[size])).await;
    sent.map_err(|_| Failure::Unexpected("the call reads no more requests".into()))
}

pub(crate) async fn empty_stream(client: &Client) -> Result<(), Failure> {
    let answered = client
        .service()
        .full_duplex_call(tokio_stream::empty())
        .await;
    let mut responses = client.take(answered.map_err(Failure::of("FullDuplexCall"))?)?;
    expect_end(&mut responses).await
}

/// Fails unless the next response has this size.
pub(super) async fn expect_part(
    responses: &mut Streaming<StreamingOutputCallResponse>,
    len_bytes: i32,
) -> Result<(), Failure> {
    let part = responses.message().await;
    let part = part.map_err(Failure::of("a response of the stream"))?;
    let part = part.ok_or_else(|| {
        Failure::Unexpected(format!("the stream ended before {len_bytes} bytes came"))
    })?;
    expect_zeros(part.payload.as_ref(), len_bytes)
}

/// Fails unless the stream ends here, with OK.
pub(super) async fn expect_end(
    responses: &mut Streaming<StreamingOutputCallResponse>,
) -> Result<(), Failure> {
    match responses.message().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Failure::Unexpected("the stream goes on".into())),
        Err(status) => Err(Failure::of("the end of the stream")(status)),
    }
}
