//! Two faults of tonic, held off at the HTTP types on either side of it.
//!
//! - **A bad `grpc-status-details-bin` panics** in `Status::from_header_map` of whoever receives it.
//!   [`CheckedStatus`] drops such a header, from heads and trailers alike: code and message stay.
//! - **A cancelled upload reads as a complete one**: a request body that ends in `CANCELLED` is
//!   `None` to the handler, which may then commit half an upload before it is dropped.
//!   [`refuse_cancelled_end`] turns that end into an error.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body, client::GrpcService};

use crate::fate::mapped;

const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// The engine with which tonic itself reads the header: what passes here cannot panic there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Removes status details that tonic would panic on.
pub fn drop_bad_details(headers: &mut HeaderMap) {
    let bad = headers
        .get(STATUS_DETAILS)
        .is_some_and(|value| BASE64.decode(value.as_bytes()).is_err());
    if bad {
        tracing::warn!("dropped a grpc-status-details-bin that is not base64");
        headers.remove(STATUS_DETAILS);
    }
}

/// A channel whose answers can't panic tonic: its heads and trailers went through
/// [`drop_bad_details`].
#[derive(Clone, Debug)]
pub struct CheckedStatus<T> {
    inner: T,
}

impl<T> CheckedStatus<T> {
    /// Wraps a channel.
    pub fn new(inner: T) -> Self {
        Self { inner }
    }
}

impl<T: GrpcService<Body>> tower::Service<Request<Body>> for CheckedStatus<T> {
    type Response = Response<CheckedBody<T::ResponseBody>>;
    type Error = T::Error;
    type Future = CheckedFuture<T::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        CheckedFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a [`CheckedStatus`].
    #[derive(Debug)]
    pub struct CheckedFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, B, E> Future for CheckedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CheckedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        drop_bad_details(response.headers_mut());
        Poll::Ready(Ok(response.map(|inner| CheckedBody { inner })))
    }
}

pin_project_lite::pin_project! {
    /// A response body whose trailers went through [`drop_bad_details`].
    #[derive(Debug)]
    pub struct CheckedBody<B> {
        #[pin]
        inner: B,
    }
}

impl<B> HttpBody for CheckedBody<B>
where
    B: HttpBody,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let mut frame = ready!(self.project().inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            drop_bad_details(trailers);
        }
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| mapped(Status::from_error(error.into())))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Makes a request whose body ends in `CANCELLED` fail with `ABORTED` instead, so that no handler
/// takes half an upload for a whole one. Nobody receives the code: the caller has gone.
#[must_use]
pub fn refuse_cancelled_end(request: Request<Body>) -> Request<Body> {
    request.map(|inner| Body::new(UncancelledBody { inner }))
}

struct UncancelledBody {
    inner: Body,
}

impl HttpBody for UncancelledBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|status| match status.code() {
                Code::Cancelled => {
                    Status::aborted("the call was cancelled before its stream ended")
                }
                _ => status,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio_stream::StreamExt;
    use tonic::Streaming;
    use tonic_prost::ProstDecoder;

    use super::*;

    fn details(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no teapot".parse().unwrap());
        headers.insert(STATUS_DETAILS, value.parse().unwrap());
        headers
    }

    #[test]
    fn good_details_stay_and_bad_ones_go() {
        for good in ["AAEC", "AAE", "AAE=", ""] {
            let mut headers = details(good);
            drop_bad_details(&mut headers);
            assert!(headers.contains_key(STATUS_DETAILS), "{good}");
            Status::from_header_map(&headers).unwrap();
        }
        for bad in ["?", "AAE*", "A", "====", "A=AA"] {
            let mut headers = details(bad);
            drop_bad_details(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(
                (status.code(), status.message()),
                (Code::NotFound, "no teapot"),
                "{bad}"
            );
        }
    }

    async fn status_over(response: Response<Body>) -> Status {
        let channel = tower::service_fn(move |_request: Request<Body>| {
            let (head, body) = (response.headers().clone(), Body::default());
            let mut trailers_only = Response::new(body);
            *trailers_only.headers_mut() = head;
            async move { Ok::<_, Status>(trailers_only) }
        });
        let path = http::uri::PathAndQuery::from_static("/a/b");
        let settings = crate::CallSettings::default();
        crate::unary::<_, String, String>(channel, path, &settings, tonic::Request::new("".into()))
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn a_head_with_bad_details_is_a_status_and_no_panic() {
        let mut response = Response::new(Body::default());
        *response.headers_mut() = details("*");
        let status = status_over(response).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "no teapot")
        );
    }

    #[tokio::test]
    async fn trailers_with_bad_details_are_a_status_and_no_panic() {
        let frames = tokio_stream::once(Ok::<_, Status>(Frame::<Bytes>::trailers(details("*"))));
        let mut body = CheckedBody {
            inner: StreamBody::new(frames),
        };
        let trailers = body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap();
        assert!(!trailers.contains_key(STATUS_DETAILS));
        assert!(trailers.contains_key("grpc-message"));
    }

    #[tokio::test]
    async fn a_cancelled_upload_does_not_end_as_a_complete_one() {
        let frames = || tokio_stream::once(Err::<Frame<Bytes>, _>(Status::cancelled("gone")));
        let as_tonic_reads = |body: Body| {
            Streaming::<String>::new_request(ProstDecoder::default(), body, None, None)
        };

        let bare = Body::new(StreamBody::new(frames()));
        assert!(
            as_tonic_reads(bare).next().await.is_none(),
            "tonic changed: the guard can go"
        );

        let request = refuse_cancelled_end(Request::new(Body::new(StreamBody::new(frames()))));
        let status = as_tonic_reads(request.into_body())
            .next()
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
    }
}
