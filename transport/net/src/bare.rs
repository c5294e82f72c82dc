//! Answers that speak HTTP alone: a layer's `401`, a proxy's `503`. What they mean to gRPC is decided here, for
//! every path.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

const GRPC: &[u8] = b"application/grpc";

/// Returns true if `headers` are those of gRPC's own requests and answers, and not of grpc-web's, whose clients
/// understand HTTP.
pub(crate) fn are_of_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(GRPC));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

/// Returns what an answer with this status and these headers means, if nothing in it speaks gRPC: as gRPC maps
/// it (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>), in tonic's words.
pub fn status_of_http(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    if status == StatusCode::OK || headers.contains_key(Status::GRPC_STATUS) || are_of_grpc(headers)
    {
        return None;
    }
    let code = match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let number = status.as_u16();
    let said = format!("grpc-status header missing, mapped from HTTP status code {number}");
    Some(Status::new(code, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_type(kind: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        headers
    }

    #[test]
    fn grpc_is_told_from_grpc_web_and_all_else() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;a=b",
        ] {
            assert!(are_of_grpc(&of_type(kind)), "{kind}");
        }
        for kind in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "text/html",
        ] {
            assert!(!are_of_grpc(&of_type(kind)), "{kind}");
        }
        assert!(!are_of_grpc(&HeaderMap::new()));
    }

    #[test]
    fn what_speaks_grpc_is_left_to_speak_for_itself() {
        let plain = of_type("text/plain");
        let mapped = |status| status_of_http(status, &plain).map(|status| status.code());
        assert_eq!(mapped(StatusCode::OK), None);
        assert_eq!(mapped(StatusCode::FORBIDDEN), Some(Code::PermissionDenied));
        assert_eq!(mapped(StatusCode::IM_A_TEAPOT), Some(Code::Unknown));
        let grpc = of_type("application/grpc");
        assert!(status_of_http(StatusCode::FORBIDDEN, &grpc).is_none());
        let mut said = plain.clone();
        said.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("5"));
        assert!(status_of_http(StatusCode::NOT_FOUND, &said).is_none());
    }
}
