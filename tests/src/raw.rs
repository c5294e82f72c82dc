//! A client that says what no stub would: any path, any header, any bytes.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, StreamBody};
use ringway::Channel;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    /// The messages, as they stood in the body.
    pub messages: Vec<Bytes>,
    /// How the call ended.
    pub status: Status,
}

impl RawAnswer {
    /// How it ended.
    pub fn code(&self) -> Code {
        self.status.code()
    }
}

/// A message in gRPC's framing.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}

/// A request for `path`, but for its body.
pub fn to(path: &str) -> http::request::Builder {
    http::Request::post(path)
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Sends `body` as it is.
pub async fn send(
    channel: &Channel,
    request: http::request::Builder,
    body: impl Into<Bytes>,
) -> RawAnswer {
    let body = Full::new(body.into());
    call(channel, request, Body::new(body)).await
}

/// Sends `parts` one after the other, each in a frame of its own.
pub async fn send_in_parts(
    channel: &Channel,
    request: http::request::Builder,
    parts: Vec<Bytes>,
) -> RawAnswer {
    let frames = parts
        .into_iter()
        .map(|part| Ok::<_, Status>(http_body::Frame::data(part)));
    let body = StreamBody::new(tokio_stream::iter(frames));
    call(channel, request, Body::new(body)).await
}

async fn call(channel: &Channel, request: http::request::Builder, body: Body) -> RawAnswer {
    let request = request.body(body).unwrap();
    let response = match channel.clone().oneshot(request).await {
        Ok(response) => response,
        Err(status) => return ended(status),
    };
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return ended(status);
    }
    let collected = match body.collect().await {
        Ok(collected) => collected,
        Err(status) => return ended(status),
    };
    let status = collected.trailers().and_then(Status::from_header_map);
    RawAnswer {
        status: status.unwrap_or_else(|| Status::unknown("it ended without a status")),
        messages: messages(collected.to_bytes()),
    }
}

fn ended(status: Status) -> RawAnswer {
    RawAnswer {
        messages: Vec::new(),
        status,
    }
}

fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let message = body.split_to(5 + len);
        messages.push(message.slice(5..));
    }
    messages
}
