//! Counts the messages of calls that travel as HTTP, where calls are measured.

use tonic::body::Body;

use crate::framing::{Part, followed};
use crate::meter::Direction;
use crate::trace::{self, Trace};

/// `body`, whose messages are counted if its call is measured.
pub(crate) fn counted(body: Body, trace: &Trace, direction: Direction) -> Body {
    if !trace::is_measured() || trace.span().is_none() {
        return body;
    }
    let (trace, mut len) = (trace.clone(), 0);
    followed(body, move |part| match part {
        Part::Begin { .. } => len = 0,
        Part::Bytes(bytes) => len += bytes,
        Part::End => trace.carried(direction, 1, len),
    })
}
