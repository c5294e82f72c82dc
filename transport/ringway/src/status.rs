//! tonic's status on the wire, and the statuses of what can go wrong on a local path.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ringway_local::{Closed, SendError};
use ringway_wire::StatusHead;
use tonic::{Code, Status};

use crate::metadata;

/// The code and the head of the TRAILERS frame that carries `status`.
pub(crate) fn encode(status: &Status) -> (u16, Vec<u8>) {
    let block = metadata::encode_trailing(status.metadata()).unwrap_or_default();
    let mut head = StatusHead {
        message: StatusHead::fit_message(status.message()),
        details: status.details(),
        metadata: block.as_metadata(),
    };
    let len = head.encoded_len().unwrap_or_else(|_| {
        // Details beyond the limit are left out rather than the status itself.
        head.details = &[];
        head.encoded_len().unwrap_or(0)
    });
    let mut bytes = vec![0; len];
    if len > 0 {
        head.encode(&mut bytes);
    }
    (wire_code(status.code()), bytes)
}

/// The status in a TRAILERS frame.
pub(crate) fn decode(code: u16, head: &[u8]) -> Status {
    let code = Code::from_i32(i32::from(code));
    match StatusHead::decode(head) {
        Ok(head) => Status::with_details_and_metadata(
            code,
            head.message,
            Bytes::copy_from_slice(head.details),
            metadata::decode_trailing(head.metadata).unwrap_or_default(),
        ),
        Err(_) => Status::new(code, ""),
    }
}

/// The code on the wire.
pub(crate) fn wire_code(code: Code) -> u16 {
    u16::try_from(code as i32).unwrap_or(ringway_wire::code::UNKNOWN)
}

/// The status of a call that the peer gave up.
pub(crate) fn reset(code: u16) -> Status {
    Status::new(Code::from_i32(i32::from(code)), "the peer gave the call up")
}

/// The status of a call whose deadline passed.
pub(crate) fn expired() -> Status {
    Status::deadline_exceeded("Timeout expired")
}

/// The status of a call whose deadline passed before any server took it, in so many attempts.
pub(crate) fn expired_untaken(attempts: u32, why: &str) -> Status {
    Status::deadline_exceeded(format!(
        "Timeout expired; no server took the call in {attempts} attempts: {why}"
    ))
}

/// The status of a call whose connection ended. Its source is an [`io::Error`], by which applications tell a
/// broken connection from what a peer says.
pub(crate) fn lost(why: &Closed) -> Status {
    let mut status = Status::unavailable(format!("the connection ended during the call: {why}"));
    status.set_source(Arc::new(io::Error::new(kind_of(why), why.clone())));
    status
}

/// The status of a stream of requests that a handler reads, and that ended with `status` before its time: tonic
/// takes `CANCELLED` for a clean end, and an upload that was killed would seem complete. A connection's end stays
/// its source.
pub(crate) fn broken_off(status: &Status) -> Status {
    let mut broken = Status::aborted(format!(
        "the stream of requests broke off: {}",
        status.message()
    ));
    let source = io_error_of(status).map(|error| io::Error::new(error.kind(), error.to_string()));
    if let Some(source) = source {
        broken.set_source(Arc::new(source));
    }
    broken
}

/// The end of a connection, if that is what ended a call: no peer has said the status then.
pub(crate) fn io_error_of(status: &Status) -> Option<&io::Error> {
    status.source()?.downcast_ref()
}

/// The kind that the same end of a TCP connection has.
fn kind_of(why: &Closed) -> io::ErrorKind {
    match why {
        Closed::PeerGone | Closed::ChildGone(_) => io::ErrorKind::BrokenPipe,
        Closed::PeerSilent => io::ErrorKind::TimedOut,
        Closed::PeerMisbehaved(_) => io::ErrorKind::InvalidData,
        Closed::ByUs | Closed::Inherited => io::ErrorKind::ConnectionAborted,
        Closed::Io(_) => io::ErrorKind::Other,
    }
}

/// The status of a call of which a message is longer than this end takes: as tonic says it.
pub(crate) fn too_long(len_bytes: usize, limit_bytes: usize) -> Status {
    Status::out_of_range(format!(
        "Error, decoded message length too large: found {len_bytes} bytes, the limit is: {limit_bytes} bytes"
    ))
}

/// The status of a call that could not be sent.
pub(crate) fn unsent(error: &SendError) -> Status {
    match error {
        SendError::Closed(why) => lost(why),
        SendError::GoingAway => Status::unavailable("the server is going away"),
        SendError::DeadlinePassed => expired(),
        SendError::CallEnded => Status::cancelled("the call has ended"),
        SendError::Blocked(_) | SendError::Limit(_) | SendError::Memory { .. } => {
            Status::resource_exhausted(error.to_string())
        }
    }
}

/// tonic's status for a message that is no valid protobuf.
#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(crate) fn undecodable(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_whole() {
        let mut status = Status::with_details(
            Code::NotFound,
            "no\tteapot\n☕",
            Bytes::from_static(&[1, 2]),
        );
        status
            .metadata_mut()
            .insert("x-shelf", "7".parse().unwrap());
        let (code, head) = encode(&status);
        let back = decode(code, &head);
        assert_eq!(back.code(), Code::NotFound);
        assert_eq!(back.message(), status.message());
        assert_eq!(back.details(), status.details());
        assert_eq!(back.metadata().get("x-shelf").unwrap(), "7");
    }

    #[test]
    fn a_code_nobody_knows_is_unknown() {
        assert_eq!(decode(99, &[]).code(), Code::Unknown);
    }
}
