//! A request's head on its way through tonic's `InterceptedService` to a [`Channel`](crate::Channel)
//! and back.
//!
//! That service alone can call its interceptor, and it does so for HTTP requests. So a generated client
//! hands it a request that is nothing but a head; the channel behind it puts the head aside, as the
//! interceptor left it, and the call goes on without HTTP types.

use std::cell::Cell;

use http::{Extensions, HeaderMap, Request, Version};
use tonic::body::Body;
use tonic::metadata::MetadataMap;

/// No request has this version: an interceptor can't set it, and HTTP/2 does not carry it.
const HEAD_ALONE: Version = Version::HTTP_09;

thread_local! {
    /// The head that came through last, until it is taken: within one call of one service.
    static HEAD: Cell<Option<(HeaderMap, Extensions)>> = const { Cell::new(None) };
}

/// A request of nothing but a head.
pub(crate) fn to_intercept(metadata: MetadataMap, extensions: Extensions) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.version_mut() = HEAD_ALONE;
    *request.headers_mut() = metadata.into_headers();
    *request.extensions_mut() = extensions;
    request
}

/// The head that came through; `None` if an interceptor refused it.
pub(crate) fn take_head() -> Option<(MetadataMap, Extensions)> {
    let (headers, extensions) = HEAD.take()?;
    Some((MetadataMap::from_headers(headers), extensions))
}

/// Whether a request was nothing but a head; then it is put aside.
pub(super) fn put_head_aside(request: &mut Request<Body>) -> bool {
    let alone = request.version() == HEAD_ALONE;
    if alone {
        let headers = std::mem::take(request.headers_mut());
        let extensions = std::mem::take(request.extensions_mut());
        HEAD.set(Some((headers, extensions)));
    }
    alone
}
