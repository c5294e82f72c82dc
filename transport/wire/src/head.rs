//! What stands between a frame's header and its payload. Each head knows its exact length, so that
//! a caller reserves first and encodes straight into the reservation; decoding borrows.
//!
//! ```text
//! REQUEST   flags u8 | [number varint] | [timeout u64 ns] | [trace 25 bytes] | [path_len varint | path]
//!           | metadata
//! RESPONSE  nothing, or: initial_len u32 | initial metadata | trailing metadata
//! TRAILERS  nothing, or: text_len u32 | text | details_len u32 | details | metadata
//! HEADERS   metadata
//! ```

use std::time::Duration;

use crate::HeadError;
use crate::cursor::{Reader, Writer, utf8, varint_len};
use crate::limits::{MAX_PATH_BYTES, MAX_STATUS_DETAILS_BYTES, MAX_STATUS_TEXT_BYTES};
use crate::metadata::Metadata;
use crate::trace::TraceContext;

/// How a request names its method. [`crate::Connection::method`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// By a number that was defined before on this connection.
    Known(u32),
    /// Defines the number, and calls it.
    Define(u32, &'a str),
    /// By path alone; nothing is remembered.
    Inline(&'a str),
}

/// The head of a REQUEST.
///
/// ```
/// use ringway_wire::{Method, RequestHead};
///
/// let hot = RequestHead::new(Method::Known(3));
/// let mut bytes = [0; 2];
/// assert_eq!(hot.encoded_len()?, bytes.len());
/// hot.encode(&mut bytes);
/// assert_eq!(RequestHead::decode(&bytes)?, hot);
/// # Ok::<(), ringway_wire::HeadError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// What is called.
    pub method: Method<'a>,
    /// Time left for the call, from the moment it was sent.
    pub timeout: Option<Duration>,
    /// The trace that the call belongs to. Only for peers that know of it:
    /// [`crate::Connection::carries_traces`].
    pub trace: Option<TraceContext>,
    /// The caller's metadata.
    pub metadata: Metadata<'a>,
}

impl<'a> RequestHead<'a> {
    const NUMBER: u8 = 1;
    const PATH: u8 = 2;
    const TIMEOUT: u8 = 4;
    const TRACE: u8 = 8;

    /// A head with nothing but a method.
    #[inline]
    pub const fn new(method: Method<'a>) -> RequestHead<'a> {
        RequestHead {
            method,
            timeout: None,
            trace: None,
            metadata: Metadata::EMPTY,
        }
    }

    /// Whether an encoded head tells a timeout, without decoding the rest.
    #[inline]
    pub(crate) fn has_timeout(head: &[u8]) -> bool {
        head.first().is_some_and(|flags| flags & Self::TIMEOUT != 0)
    }

    /// Exact length of the encoding.
    ///
    /// # Errors
    /// [`HeadError::PathTooLong`].
    #[inline]
    pub fn encoded_len(&self) -> Result<usize, HeadError> {
        let method = match self.method {
            Method::Known(number) => varint_len(number),
            Method::Define(number, path) => varint_len(number) + path_len(path)?,
            Method::Inline(path) => path_len(path)?,
        };
        let timeout = if self.timeout.is_some() { 8 } else { 0 };
        let trace = match self.trace {
            Some(_) => TraceContext::LEN,
            None => 0,
        };
        Ok(1 + method + timeout + trace + self.metadata.as_bytes().len())
    }

    /// The length of a head with this metadata, however it names the method: at most.
    #[inline]
    pub fn max_encoded_len(path: &str, metadata: Metadata<'_>) -> usize {
        const VARINT: usize = 5;
        1 + VARINT + 8 + TraceContext::LEN + VARINT + path.len() + metadata.as_bytes().len()
    }

    /// Writes the head.
    ///
    /// # Panics
    /// If `out` is not exactly [`RequestHead::encoded_len`] long.
    #[inline]
    pub fn encode(&self, out: &mut [u8]) {
        let (flags, number, path) = match self.method {
            Method::Known(number) => (Self::NUMBER, Some(number), None),
            Method::Define(number, path) => (Self::NUMBER | Self::PATH, Some(number), Some(path)),
            Method::Inline(path) => (Self::PATH, None, Some(path)),
        };
        let when = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        let timeout = when(self.timeout.is_some(), Self::TIMEOUT);
        let trace = when(self.trace.is_some(), Self::TRACE);
        let mut writer = Writer::new(out);
        writer.put(&[flags | timeout | trace]);
        if let Some(number) = number {
            writer.varint(number);
        }
        if let Some(timeout) = self.timeout {
            // 584 years and more mean the same as no end.
            let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            writer.put(&nanos.to_le_bytes());
        }
        if let Some(trace) = self.trace {
            writer.put(&trace.to_bytes());
        }
        if let Some(path) = path {
            writer.varint(u32::try_from(path.len()).unwrap_or(u32::MAX));
            writer.put(path.as_bytes());
        }
        writer.put(self.metadata.as_bytes());
        writer.finish();
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is malformed or passes a limit.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<RequestHead<'a>, HeadError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let number = match flags & Self::NUMBER {
            0 => None,
            _ => Some(reader.varint()?),
        };
        let timeout = match flags & Self::TIMEOUT {
            0 => None,
            _ => Some(Duration::from_nanos(reader.u64()?)),
        };
        let trace = match flags & Self::TRACE {
            0 => None,
            // One without ids begins anew.
            _ => TraceContext::from_bytes(reader.array()?),
        };
        let method = match (number, flags & Self::PATH != 0) {
            (Some(number), false) => Method::Known(number),
            (Some(number), true) => Method::Define(number, read_path(&mut reader)?),
            (None, true) => Method::Inline(read_path(&mut reader)?),
            (None, false) => return Err(HeadError::BadFlags(flags)),
        };
        if flags & !(Self::NUMBER | Self::PATH | Self::TIMEOUT | Self::TRACE) != 0 {
            return Err(HeadError::BadFlags(flags));
        }
        Ok(RequestHead {
            method,
            timeout,
            trace,
            metadata: Metadata::decode(reader.rest())?,
        })
    }
}

#[inline(never)]
fn path_len(path: &str) -> Result<usize, HeadError> {
    let len = path.len();
    match u32::try_from(len) {
        Ok(short) if len <= MAX_PATH_BYTES => Ok(varint_len(short) + len),
        _ => Err(HeadError::PathTooLong(len)),
    }
}

#[inline(never)]
fn read_path<'a>(reader: &mut Reader<'a>) -> Result<&'a str, HeadError> {
    let len = usize::try_from(reader.varint()?).map_err(|_| HeadError::BadNumber)?;
    if len > MAX_PATH_BYTES {
        return Err(HeadError::PathTooLong(len));
    }
    utf8(reader.take(len)?)
}

/// The head of a RESPONSE: usually empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHead<'a> {
    /// Initial metadata.
    pub initial: Metadata<'a>,
    /// Trailing metadata.
    pub trailing: Metadata<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Exact length of the encoding; both blocks are bounded by their type.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        4 + self.initial.as_bytes().len() + self.trailing.as_bytes().len()
    }

    /// Writes the head.
    ///
    /// # Panics
    /// If `out` is not exactly [`ResponseHead::encoded_len`] long.
    #[inline]
    pub fn encode(&self, out: &mut [u8]) {
        let mut writer = Writer::new(out);
        if !self.is_empty() {
            writer.len32(self.initial.as_bytes().len());
            writer.put(self.initial.as_bytes());
            writer.put(self.trailing.as_bytes());
        }
        writer.finish();
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is malformed or passes a limit.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<ResponseHead<'a>, HeadError> {
        if bytes.is_empty() {
            return Ok(ResponseHead::default());
        }
        let mut reader = Reader::new(bytes);
        let initial_len = reader.len32()?;
        let initial = Metadata::decode(reader.take(initial_len)?)?;
        Ok(ResponseHead {
            initial,
            trailing: Metadata::decode(reader.rest())?,
        })
    }

    fn is_empty(&self) -> bool {
        self.initial.is_empty() && self.trailing.is_empty()
    }
}

/// The head of TRAILERS: what belongs to a status beside its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusHead<'a> {
    /// The status's text.
    pub message: &'a str,
    /// The status's details, decoded (`google.rpc.Status` as bytes, as a rule).
    pub details: &'a [u8],
    /// Trailing metadata.
    pub metadata: Metadata<'a>,
}

impl<'a> StatusHead<'a> {
    /// The longest beginning of a text that fits, cut between characters.
    pub fn fit_message(message: &str) -> &str {
        &message[..message.floor_char_boundary(MAX_STATUS_TEXT_BYTES)]
    }

    /// Exact length of the encoding.
    ///
    /// # Errors
    /// [`HeadError::StatusTooLarge`]: text or details pass their limit.
    pub fn encoded_len(&self) -> Result<usize, HeadError> {
        check_status(self.message.len(), self.details.len())?;
        if self.is_empty() {
            return Ok(0);
        }
        Ok(8 + self.message.len() + self.details.len() + self.metadata.as_bytes().len())
    }

    /// Writes the head.
    ///
    /// # Panics
    /// If `out` is not exactly [`StatusHead::encoded_len`] long.
    pub fn encode(&self, out: &mut [u8]) {
        let mut writer = Writer::new(out);
        if !self.is_empty() {
            writer.len32(self.message.len());
            writer.put(self.message.as_bytes());
            writer.len32(self.details.len());
            writer.put(self.details);
            writer.put(self.metadata.as_bytes());
        }
        writer.finish();
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is malformed or passes a limit.
    pub fn decode(bytes: &'a [u8]) -> Result<StatusHead<'a>, HeadError> {
        if bytes.is_empty() {
            return Ok(StatusHead::default());
        }
        let mut reader = Reader::new(bytes);
        let message_len = reader.len32()?;
        let message = reader.take(message_len)?;
        let details_len = reader.len32()?;
        let details = reader.take(details_len)?;
        check_status(message_len, details_len)?;
        let metadata = Metadata::decode(reader.rest())?;
        Ok(StatusHead {
            message: utf8(message)?,
            details,
            metadata,
        })
    }

    fn is_empty(&self) -> bool {
        self.message.is_empty() && self.details.is_empty() && self.metadata.is_empty()
    }
}

fn check_status(message_len: usize, details_len: usize) -> Result<(), HeadError> {
    if message_len > MAX_STATUS_TEXT_BYTES {
        return Err(HeadError::StatusTooLarge(message_len));
    }
    if details_len > MAX_STATUS_DETAILS_BYTES {
        return Err(HeadError::StatusTooLarge(details_len));
    }
    Ok(())
}
