//! What tonic's HTTP types do otherwise than gRPC asks, put right on either side of it.
//!
//! - **A bad `grpc-status-details-bin` panics** in `Status::from_header_map` of whoever receives it.
//!   [`drop_bad_details`](crate::reserved::drop_bad_details) drops such a header: code and message stay.
//! - **A deadline** stops at the response's head, and says `CANCELLED`. [`Guarded`] and [`Served`]
//!   hold it until the last message, and say `DEADLINE_EXCEEDED`.
//! - **A call that was dropped** may go on: hyper reads the end of its requests as a clean one, or
//!   never resets a stream whose source is endless. `upload` resets it at once.
//! - **A cancelled upload reads as a complete one**: a request body that ends in `CANCELLED` is
//!   `None` to the handler, which may then commit half an upload. [`Served`] makes an error of it.
//! - **A panic** of a handler resets its stream without a status. [`Served`] answers `INTERNAL`.
//! - **A handler that blocks its thread** may leave the runtime without a worker that hears of anything.
//!   [`Served`] has one woken (`stall`).
//! - **An answer of HTTP alone** to a call, such as a layer's `401`, means what its client makes of it, and its
//!   body nothing. [`Served`] says what gRPC makes of it.
//! - **Trailers** beside an answer that succeeded have no place in tonic's types: [`Trailers`].

mod client;
mod server;
mod stall;
mod upload;

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status, metadata::MetadataMap};

pub(crate) use self::client::TrailersAside;
pub use self::client::{CallBody, CallFuture, Guarded};
pub use self::server::{AnswerFuture, CallDeadline, Served};
pub(crate) use self::upload::CallExecutor;

/// With this text tonic's ends say that the time was over.
const TIMEOUT_TEXT: &str = "Timeout expired";

/// Trailing metadata of a successful response, as an extension of it.
///
/// A handler inserts it into its response, and the caller finds it in the one that it gets. Of a
/// stream the caller reads it by `Streaming::trailers`, as with tonic.
///
/// ```
/// use ringway_net::Trailers;
/// use tonic::metadata::MetadataMap;
///
/// let mut trailing = MetadataMap::new();
/// trailing.insert("x-cost", "3".parse().unwrap());
/// let mut response = tonic::Response::new(());
/// response.extensions_mut().insert(Trailers(trailing));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Trailers(pub MetadataMap);

/// The trailers that say `status`. tonic yields the error of a body twice, trailers once.
fn trailers<D>(status: &Status) -> Frame<D> {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    Frame::trailers(headers)
}

/// Whether `status` is how tonic or HTTP/2 say that the call's time was over.
fn means_too_late(status: &Status, deadline: Instant) -> bool {
    status.code() == Code::Cancelled
        && (status.message() == TIMEOUT_TEXT || Instant::now() >= deadline)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::StreamBody;
    use tokio_stream::StreamExt;
    use tonic::{Streaming, body::Body};
    use tonic_prost::ProstDecoder;
    use tower::Service;

    use super::*;

    fn details(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no teapot".parse().unwrap());
        headers.insert("grpc-status-details-bin", value.parse().unwrap());
        headers
    }

    async fn status_over(response: Response<Body>) -> Status {
        let response = std::sync::Mutex::new(Some(response));
        let channel = tower::service_fn(move |_request: Request<Body>| {
            let response = response.lock().unwrap().take();
            async move { response.ok_or_else(|| Status::internal("asked twice")) }
        });
        let path = http::uri::PathAndQuery::from_static("/a/b");
        let settings = crate::CallSettings::default();
        crate::unary::<_, String, String>(channel, path, &settings, tonic::Request::new("".into()))
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn bad_details_are_a_status_and_no_panic() {
        let mut head = Response::new(Body::default());
        *head.headers_mut() = details("*");
        let frames = tokio_stream::once(Ok::<_, Status>(Frame::<Bytes>::trailers(details("*"))));
        let trailers = Response::new(Body::new(StreamBody::new(frames)));
        for response in [head, trailers] {
            let status = status_over(response).await;
            assert_eq!(
                (status.code(), status.message()),
                (Code::NotFound, "no teapot")
            );
        }
    }

    /// A service that reads its requests as tonic does, and says how they ended.
    async fn end_of_requests(
        request: Request<Body>,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        let decoder = ProstDecoder::<String>::default();
        let mut requests = Streaming::new_request(decoder, request.into_body(), None, None);
        let ended = match requests.next().await {
            None => Status::ok("all came"),
            Some(Ok(_)) => Status::internal("there was none"),
            Some(Err(status)) => status,
        };
        Ok(ended.into_http())
    }

    #[tokio::test]
    async fn a_cancelled_upload_does_not_end_as_a_complete_one() {
        let request = || {
            let frames = tokio_stream::once(Err::<Frame<Bytes>, _>(Status::cancelled("gone")));
            Request::new(Body::new(StreamBody::new(frames)))
        };
        let bare = end_of_requests(request()).await.unwrap();
        assert_eq!(
            bare.headers()["grpc-status"],
            "0",
            "tonic changed: the guard can go"
        );
        let mut served = Served::new(tower::service_fn(end_of_requests), None);
        let answer = served.call(request()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "10");
    }
}
