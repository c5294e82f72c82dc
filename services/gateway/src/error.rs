//! What a request is answered that can't be served: JSON that says what to do.

use std::borrow::Cow;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::{Code, Status};

use crate::json::Json;

/// An answer that is not the one hoped for.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The name of the gRPC code, as in its documentation.
    code: &'static str,
    message: Cow<'static, str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    code: &'a str,
    message: &'a str,
    /// The same request may well succeed later.
    retry: bool,
}

impl Problem {
    /// The request itself is wrong.
    pub(crate) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "INVALID_ARGUMENT",
            message: message.into(),
        }
    }

    pub(crate) fn missing(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "NOT_FOUND",
            message: message.into(),
        }
    }

    pub(crate) fn internal(message: &'static str) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self {
            status,
            code: "INTERNAL",
            message: message.into(),
        }
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The text that clients are told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn retry(&self) -> bool {
        matches!(
            self.code,
            "UNAVAILABLE" | "ABORTED" | "DEADLINE_EXCEEDED" | "CANCELLED"
        )
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let (http, code, otherwise) = describe(status.code());
        let message = match status.message() {
            "" => Cow::Borrowed(otherwise),
            text if is_for_customers(status.code()) => Cow::Owned(text.to_owned()),
            text => {
                tracing::warn!(code, text, "a request failed");
                Cow::Borrowed(otherwise)
            }
        };
        Self {
            status: http,
            code,
            message,
        }
    }
}

/// Returns true if a status of this code speaks to the shop's customers. The words of all others are the
/// transport's or a fault's: they tell of hosts, paths and limits, and belong into the log.
fn is_for_customers(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
    )
}

/// HTTP's status, the code's name, and what to say when the service said nothing.
fn describe(code: Code) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as Http;
    match code {
        Code::InvalidArgument => (
            Http::BAD_REQUEST,
            "INVALID_ARGUMENT",
            "correct the request and send it again",
        ),
        Code::OutOfRange => (Http::BAD_REQUEST, "OUT_OF_RANGE", "ask for less"),
        Code::NotFound => (Http::NOT_FOUND, "NOT_FOUND", "there is no such thing"),
        Code::AlreadyExists => (Http::CONFLICT, "ALREADY_EXISTS", "use another id"),
        Code::Aborted => (Http::CONFLICT, "ABORTED", "try again"),
        Code::FailedPrecondition => (
            Http::CONFLICT,
            "FAILED_PRECONDITION",
            "this can't be done now",
        ),
        Code::PermissionDenied => (Http::FORBIDDEN, "PERMISSION_DENIED", "not for you"),
        Code::Unauthenticated => (Http::UNAUTHORIZED, "UNAUTHENTICATED", "say who you are"),
        Code::ResourceExhausted => (
            Http::TOO_MANY_REQUESTS,
            "RESOURCE_EXHAUSTED",
            "ask for less, or later",
        ),
        Code::DeadlineExceeded => (
            Http::GATEWAY_TIMEOUT,
            "DEADLINE_EXCEEDED",
            "it took too long: try again",
        ),
        Code::Unavailable => (
            Http::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "a service can't be reached: try again",
        ),
        Code::Cancelled => (
            Http::SERVICE_UNAVAILABLE,
            "CANCELLED",
            "it was cancelled: try again",
        ),
        Code::Unimplemented => (
            Http::NOT_IMPLEMENTED,
            "UNIMPLEMENTED",
            "a service is too old for this: update it",
        ),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (
            Http::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "a service failed: see its log",
        ),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry = self.retry();
        let error = Content {
            code: self.code,
            message: &self.message,
            retry,
        };
        let mut response = Json(&Body { error }).into_response();
        *response.status_mut() = self.status;
        if retry {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_problem_says_what_to_do() {
        let response = Problem::from(Status::unavailable("")).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let body = response
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes());
        assert_eq!(
            body.unwrap_or_default(),
            r#"{"error":{"code":"UNAVAILABLE","message":"a service can't be reached: try again","retry":true}}"#
        );
    }

    #[test]
    fn what_happened_inside_stays_inside() {
        let inside = "nobody listens at /run/ringway/orders:50054/17.sock";
        for code in [
            Code::Unavailable,
            Code::Internal,
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::OutOfRange,
            Code::PermissionDenied,
            Code::Unimplemented,
        ] {
            let problem = Problem::from(Status::new(code, inside));
            assert!(
                !problem.message.contains("ringway"),
                "{code:?}: {problem:?}"
            );
            assert!(!problem.message.is_empty(), "{code:?}");
        }
    }

    #[test]
    fn the_services_own_words_come_first() {
        let problem = Problem::from(Status::failed_precondition("only 2 are left: order fewer"));
        assert_eq!(problem.message, "only 2 are left: order fewer");
        assert_eq!(
            (problem.status, problem.retry()),
            (StatusCode::CONFLICT, false)
        );
    }
}
