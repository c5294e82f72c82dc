//! Names of metadata that belong to the transport, and what a peer may say under them: the one place that
//! decides it, for every path and both directions.
//!
//! tonic trusts these names. It panics on a `grpc-status-details-bin` that is not base64, takes headers with
//! a `grpc-status` for an answer's end, and sends on what it was given in a status's metadata. Over HTTP/2
//! the names of a connection's own headers cannot arrive at all; a local path carries any name, so it leaves
//! them out itself.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderMap;

use crate::seldom::Seldom;

const STATUS_DETAILS: &str = "grpc-status-details-bin";
/// The status's own names among trailers.
pub(crate) const STATUS_NAMES: [&str; 3] = ["grpc-status", "grpc-message", STATUS_DETAILS];
/// What only an answer may say of itself, and no request.
const ANSWER_NAMES: [&str; 3] = ["grpc-status", "grpc-message", "grpc-message-type"];

/// The engine with which tonic itself reads the header: what passes here cannot panic there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a name of metadata means to the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing: it is the application's.
    Application,
    /// It is the transport's own, and never metadata of the application.
    Transport,
    /// Details of a status: metadata beside messages, as with tonic, but only in base64. A status tells
    /// its own.
    StatusDetails,
}

impl Meaning {
    /// Returns what `name`, in lower case, means: the names that tonic leaves out (its
    /// `GRPC_RESERVED_HEADERS`), the deadline, which has a place of its own, and the headers of a connection
    /// (RFC 9113, 8.2.2).
    pub fn of(name: &str) -> Self {
        match name {
            STATUS_DETAILS => Self::StatusDetails,
            "te" | "content-type" | "grpc-message" | "grpc-message-type" | "grpc-status"
            | "grpc-timeout" | "connection" | "keep-alive" | "proxy-connection"
            | "transfer-encoding" | "upgrade" => Self::Transport,
            _ => Self::Application,
        }
    }

    /// Returns true if `value` may travel beside messages under a name of this meaning.
    pub fn admits(self, value: &[u8]) -> bool {
        match self {
            Self::Application => true,
            Self::Transport => false,
            Self::StatusDetails => BASE64.decode(value).is_ok(),
        }
    }
}

/// Removes status details that tonic would panic on.
pub fn drop_bad_details(headers: &mut HeaderMap) {
    // Each of them: tonic reads the first, and whoever forwards the rest may make another one the first.
    let bad = |value: &http::HeaderValue| !Meaning::StatusDetails.admits(value.as_bytes());
    if headers.get_all(STATUS_DETAILS).iter().any(bad) {
        static TOLD: Seldom = Seldom::new();
        if TOLD.is_due() {
            tracing::warn!("dropped a grpc-status-details-bin that is not base64");
        }
        headers.remove(STATUS_DETAILS);
    }
}

/// Removes from a request what only an answer may say: a handler that passes its metadata on must not
/// pass on a status.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    drop_bad_details(headers);
    for name in ANSWER_NAMES {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonic::{Code, Status};

    use super::*;

    pub(crate) fn details(value: &'static str) -> HeaderMap {
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

    #[test]
    fn bad_details_behind_good_ones_go_as_well() {
        let mut headers = details("AAEC");
        headers.append(STATUS_DETAILS, HeaderValue::from_static("*"));
        drop_bad_details(&mut headers);
        assert!(!headers.contains_key(STATUS_DETAILS));
    }

    #[test]
    fn a_request_says_nothing_of_a_status() {
        let mut headers = details("*");
        headers.insert("x-plain", HeaderValue::from_static("kept"));
        clean_request(&mut headers);
        let names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["x-plain"]);
    }
}
