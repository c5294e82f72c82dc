//! The cases that compress one message and not the next.
//!
//! Who speaks of compression is heard on every path, so that they assert the same on each.

use ringway::{CameCompressed, Compress};
use ringway_proto::grpc_testing::{
    BoolValue, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest,
};
use tonic::{Code, Extensions, Request};

use super::streams::{expect_end, expect_part};
use super::{LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES, expect_zeros, payload, simple};
use crate::client::Client;
use crate::failure::{Failure, expect_code, expect_eq};

const REQUESTS: [(usize, bool); 2] = [(27_182, true), (45_904, false)];
const SUM_BYTES: i32 = 73_086;
const RESPONSES: [(i32, bool); 2] = [(31_415, true), (92_653, false)];

pub(crate) async fn client_compressed_unary(client: &Client) -> Result<(), Failure> {
    // A server that does not look would take what did not come as it was said.
    let probe = client.compressing().unary_call(unary(true)).await;
    expect_code("the probing UnaryCall", probe, Code::InvalidArgument)?;
    for compressed in [true, false] {
        let mut request = Request::new(unary(compressed));
        choose(&mut request, [compressed]);
        let answered = client.compressing().unary_call(request).await;
        let response = client.take(answered.map_err(Failure::of("UnaryCall"))?)?;
        expect_zeros(response.payload.as_ref(), LARGE_RESPONSE_BYTES)?;
    }
    Ok(())
}

fn unary(expect_compressed: bool) -> SimpleRequest {
    SimpleRequest {
        expect_compressed: wish(expect_compressed),
        ..simple(LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES)
    }
}

pub(crate) async fn server_compressed_unary(client: &Client) -> Result<(), Failure> {
    for compressed in [true, false] {
        let request = SimpleRequest {
            response_compressed: wish(compressed),
            ..simple(LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES)
        };
        let answered = client.compressing().unary_call(request).await;
        let response = answered.map_err(Failure::of("UnaryCall"))?;
        expect_came(response.extensions(), compressed)?;
        let response = client.take(response)?;
        expect_zeros(response.payload.as_ref(), LARGE_RESPONSE_BYTES)?;
    }
    Ok(())
}

pub(crate) async fn client_compressed_streaming(client: &Client) -> Result<(), Failure> {
    let mut service = client.compressing();
    let probe = tokio_stream::once(part(REQUESTS[0]));
    let probe = service.streaming_input_call(probe).await;
    expect_code(
        "the probing StreamingInputCall",
        probe,
        Code::InvalidArgument,
    )?;
    let mut request = Request::new(tokio_stream::iter(REQUESTS.map(part)));
    choose(&mut request, REQUESTS.map(|(_, compressed)| compressed));
    let answered = service.streaming_input_call(request).await;
    let response = client.take(answered.map_err(Failure::of("StreamingInputCall"))?)?;
    expect_eq("the sum", response.aggregated_payload_size, SUM_BYTES)
}

fn part((len_bytes, expect_compressed): (usize, bool)) -> StreamingInputCallRequest {
    StreamingInputCallRequest {
        payload: Some(payload(len_bytes)),
        expect_compressed: wish(expect_compressed),
    }
}

pub(crate) async fn server_compressed_streaming(client: &Client) -> Result<(), Failure> {
    let asked = RESPONSES.map(|(size, compressed)| ResponseParameters {
        size,
        compressed: wish(compressed),
        ..ResponseParameters::default()
    });
    let request = StreamingOutputCallRequest {
        response_parameters: asked.to_vec(),
        ..StreamingOutputCallRequest::default()
    };
    let answered = client.compressing().streaming_output_call(request).await;
    let response = answered.map_err(Failure::of("StreamingOutputCall"))?;
    let extensions = response.extensions().clone();
    let mut responses = client.take(response)?;
    for (size, compressed) in RESPONSES {
        expect_part(&mut responses, size).await?;
        expect_came(&extensions, compressed)?;
    }
    expect_end(&mut responses).await
}

fn wish(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// Has the messages of a request compressed, or not, one by one.
fn choose<T, const N: usize>(request: &mut Request<T>, compressed: [bool; N]) {
    let chosen = Compress::from_iter(compressed);
    request.extensions_mut().insert(chosen);
}

/// Fails unless the message that was read last came so.
fn expect_came(extensions: &Extensions, compressed: bool) -> Result<(), Failure> {
    let came = extensions.get().and_then(CameCompressed::next);
    expect_eq("whether it came compressed", came, Some(compressed))
}
