//! The cases, by what they are about, and the messages that they share.

pub(crate) mod calls;
pub(crate) mod cancelled;
pub(crate) mod compressed;
pub(crate) mod metadata;
pub(crate) mod statuses;
pub(crate) mod streams;

use bytes::Bytes;
use ringway_proto::grpc_testing::{
    Payload, PayloadType, ResponseParameters, SimpleRequest, StreamingOutputCallRequest,
};

use crate::failure::{Failure, expect_eq};

/// Sizes of a stream's requests, in bytes.
const REQUEST_SIZES: [usize; 4] = [27_182, 8, 1_828, 45_904];
/// Sizes of a stream's responses, in bytes.
const RESPONSE_SIZES: [i32; 4] = [31_415, 9, 2_653, 58_979];
/// Size of a large request, in bytes.
pub(crate) const LARGE_REQUEST_BYTES: usize = 271_828;
/// Size of a large response, in bytes.
pub(crate) const LARGE_RESPONSE_BYTES: i32 = 314_159;

/// What payloads are compared with, piece by piece.
static ZEROS: [u8; 4096] = [0; 4096];

/// Zeros.
fn payload(len_bytes: usize) -> Payload {
    Payload {
        r#type: PayloadType::Compressable.into(),
        body: Bytes::from(vec![0; len_bytes]),
    }
}

pub(crate) fn simple(request_bytes: usize, response_bytes: i32) -> SimpleRequest {
    SimpleRequest {
        response_size: response_bytes,
        payload: Some(payload(request_bytes)),
        ..SimpleRequest::default()
    }
}

/// Asks for one response a size.
fn output(request_bytes: usize, response_sizes: &[i32]) -> StreamingOutputCallRequest {
    let asked = response_sizes.iter().map(|size| ResponseParameters {
        size: *size,
        ..ResponseParameters::default()
    });
    StreamingOutputCallRequest {
        response_parameters: asked.collect(),
        payload: Some(payload(request_bytes)),
        ..StreamingOutputCallRequest::default()
    }
}

/// Fails unless `found` is so many zeros.
pub(crate) fn expect_zeros(found: Option<&Payload>, len_bytes: i32) -> Result<(), Failure> {
    let Some(found) = found else {
        return Err(Failure::Unexpected("the response has no payload".into()));
    };
    expect_eq(
        "the payload's type",
        found.r#type,
        PayloadType::Compressable.into(),
    )?;
    expect_eq(
        "the payload's length",
        i32::try_from(found.body.len()).unwrap_or(i32::MAX),
        len_bytes,
    )?;
    let zeros = found.body.chunks(ZEROS.len());
    let zeros = zeros.into_iter().all(|part| *part == ZEROS[..part.len()]);
    expect_eq("whether the payload is all zeros", zeros, true)
}
