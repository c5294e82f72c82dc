//! Which trace a call belongs to: W3C Trace Context (<https://www.w3.org/TR/trace-context/>), as 25
//! bytes in a request's head, and as the text of a `traceparent` header.

use std::fmt;
use std::num::NonZeroU64;

/// A span of a trace, and whether the trace is recorded.
///
/// ```
/// use ringway_wire::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceContext::from_traceparent(text).unwrap();
/// assert!(trace.is_sampled());
/// assert_eq!(trace.to_string(), text);
/// assert_eq!(TraceContext::from_bytes(trace.to_bytes()), Some(trace));
/// ```
// Whole words: each call moves it some times, and a processor waits for bytes that were written in
// other pieces than they are read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The high half, then the low one.
    trace_id: [u64; 2],
    span_id: NonZeroU64,
    flags: u8,
}

impl TraceContext {
    /// Bytes on the wire.
    pub const LEN: usize = 25;
    /// The flag of a trace that is recorded.
    pub const SAMPLED: u8 = 1;

    /// Version, trace id, span id and flags, with a dash between each two.
    const TEXT_LEN: usize = 55;

    /// `None` if an id is all zeros, which means none.
    #[inline]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        let trace_id = u128::from_be_bytes(trace_id);
        Self::of_numbers(trace_id, u64::from_be_bytes(span_id), flags)
    }

    /// The same of ids as numbers, whose first byte is the highest.
    #[inline]
    pub fn of_numbers(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, reason = "each takes its half")]
        let halves = [(trace_id >> 64) as u64, trace_id as u64];
        let span_id = NonZeroU64::new(span_id).filter(|_| trace_id != 0)?;
        Some(Self {
            trace_id: halves,
            span_id,
            flags,
        })
    }

    /// The trace's id.
    #[inline]
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_number().to_be_bytes()
    }

    /// The trace's id as a number, whose first byte is the highest.
    #[inline]
    pub const fn trace_number(&self) -> u128 {
        let [high, low] = self.trace_id;
        (high as u128) << 64 | low as u128
    }

    /// The id of the span that the call is a child of.
    #[inline]
    pub const fn span_id(&self) -> [u8; 8] {
        self.span_id.get().to_be_bytes()
    }

    /// The flags as they came.
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the trace is recorded.
    #[inline]
    pub const fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// Trace id, span id, flags.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.trace_id());
        bytes[16..24].copy_from_slice(&self.span_id());
        bytes[24] = self.flags;
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) wrote; `None` if it is no trace.
    #[inline]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        Self::new(*trace_id, *span_id, *rest.first()?)
    }

    /// Reads a `traceparent`. A later version than 00 may have more behind its flags. `None` if it is
    /// malformed: then a new trace begins.
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let (fixed, rest) = text.split_at_checked(Self::TEXT_LEN)?;
        let dashes = [fixed[2], fixed[35], fixed[52]] == [b'-'; 3];
        let [version] = from_hex(&fixed[..2])?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        if !dashes || !fits {
            return None;
        }
        let [flags] = from_hex(&fixed[53..])?;
        Self::new(from_hex(&fixed[3..35])?, from_hex(&fixed[36..52])?, flags)
    }
}

/// A `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (self.trace_number(), self.span_id);
        write!(
            formatter,
            "00-{trace_id:032x}-{span_id:016x}-{:02x}",
            self.flags
        )
    }
}

/// Lowercase digits only, as the recommendation has it.
fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_malformed_traceparent_is_no_trace() {
        assert!(TraceContext::from_traceparent(GOOD).is_some());
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01é",
        ];
        for text in bad {
            assert_eq!(TraceContext::from_traceparent(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replacen("00", "cc", 1) + "-more";
        let trace = TraceContext::from_traceparent(&later).unwrap();
        assert_eq!(trace.to_string(), GOOD);
        let unsampled = GOOD.replace("-01", "-02");
        let trace = TraceContext::from_traceparent(&unsampled).unwrap();
        assert!(!trace.is_sampled());
        assert_eq!(trace.to_string(), unsampled);
    }
}
