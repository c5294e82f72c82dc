//! The cases that compress one message and not the next.

use crate::case::Case;
use crate::failure::Failure;

/// tonic's types know compression of a call, not of a message: a handler can't choose it for one
/// response of a stream, and nobody is told whether a message came compressed, which is what these
/// cases are about. On the local paths messages are never compressed.
const REASON: &str = "neither a handler nor a caller is told whether a message came compressed";

pub(crate) fn not_offered(case: Case) -> Result<(), Failure> {
    Err(Failure::NotOffered {
        case,
        reason: REASON,
    })
}
