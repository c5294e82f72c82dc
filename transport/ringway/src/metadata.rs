//! tonic's metadata as a metadata block of the wire, and back.
//!
//! Values travel as HTTP would carry them, so `-bin` values stay in base64: what a handler sees is
//! the same on every path.

mod names;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderValue, InvalidHeaderValue};
use ringway_wire::{Metadata, MetadataBuf, TraceContext};
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::trace::{TRACEPARENT, TRACESTATE};

/// Names that belong to the transport: those that tonic leaves out (its `GRPC_RESERVED_HEADERS`), and
/// the deadline, which travels in a call's head.
const RESERVED: [&str; 6] = [
    "te",
    "content-type",
    "grpc-message",
    "grpc-message-type",
    "grpc-status",
    "grpc-timeout",
];
/// Details of a status: where a status is told, only its own count.
const DETAILS: &str = "grpc-status-details-bin";

// What goes on one path goes on each.
const _: () = assert!(ringway_net::MAX_METADATA_BYTES == ringway_wire::limits::MAX_METADATA_BYTES);
const _: () = assert!(
    ringway_net::MAX_METADATA_ENTRIES == ringway_wire::limits::MAX_METADATA_ENTRIES as usize
);

/// Values of a longer block are copied: one that a handler keeps must not keep all the others.
const MAX_SHARED_BYTES: usize = 1024;

/// Writes `map` as a block, but for reserved names.
pub(crate) fn encode(map: &MetadataMap) -> Result<MetadataBuf, Status> {
    encode_but(map, |name| RESERVED.contains(&name))
}

/// The same for what comes with a status.
pub(crate) fn encode_trailing(map: &MetadataMap) -> Result<MetadataBuf, Status> {
    encode_but(map, |name| name == DETAILS || RESERVED.contains(&name))
}

/// Whether [`encode`] would write nothing of `map`.
pub(crate) fn is_bare(map: &MetadataMap) -> bool {
    let mut names = map.as_ref().keys();
    names.all(|name| RESERVED.contains(&name.as_str()))
}

fn encode_but(
    map: &MetadataMap,
    is_left_out: impl Fn(&str) -> bool,
) -> Result<MetadataBuf, Status> {
    if map.is_empty() {
        return Ok(MetadataBuf::new());
    }
    let entries = || {
        let all = map.as_ref().iter();
        all.filter(|(name, _)| !is_left_out(name.as_str()))
    };
    let count = entries().count();
    if count == 0 {
        return Ok(MetadataBuf::new());
    }
    let lens = entries().map(|(name, value)| name.as_str().len() + value.len());
    let mut block = MetadataBuf::with_capacity(count, lens.sum());
    for (name, value) in entries() {
        block
            .push(name.as_str().as_bytes(), value.as_bytes())
            .map_err(|error| Status::resource_exhausted(format!("metadata: {error}")))?;
    }
    Ok(block)
}

/// What a block says of the trace that its call belongs to.
#[derive(Debug, Default)]
pub(crate) struct TraceHeaders {
    /// A malformed one is none.
    pub(crate) parent: Option<TraceContext>,
    /// What systems of several makes say of the trace to each other, unread.
    pub(crate) state: Option<AsciiMetadataValue>,
}

impl TraceHeaders {
    /// Of a block that a peer sent.
    pub(crate) fn of(block: &[u8]) -> Self {
        let mut found = Self::default();
        for (name, value) in Metadata::decode(block).into_iter().flatten() {
            match name {
                b"traceparent" => {
                    let text = std::str::from_utf8(value).ok();
                    found.parent = text.and_then(TraceContext::from_traceparent);
                }
                b"tracestate" => found.state = AsciiMetadataValue::try_from(value).ok(),
                _ => {}
            }
        }
        found
    }

    /// The same of an HTTP request.
    pub(crate) fn of_http(headers: &HeaderMap) -> Self {
        let parent = headers
            .get(TRACEPARENT)
            .and_then(|value| value.to_str().ok());
        let state = headers.get(TRACESTATE);
        Self {
            parent: parent.and_then(TraceContext::from_traceparent),
            state: state.and_then(|value| AsciiMetadataValue::try_from(value.as_bytes()).ok()),
        }
    }
}

/// Reads a block that a peer sent.
pub(crate) fn decode(block: Metadata<'_>) -> Result<MetadataMap, Status> {
    if block.is_empty() {
        return Ok(MetadataMap::new());
    }
    decode_with(block, HeaderValue::from_bytes)
}

fn decode_with(
    block: Metadata<'_>,
    value_of: impl Fn(&[u8]) -> Result<HeaderValue, InvalidHeaderValue>,
) -> Result<MetadataMap, Status> {
    let mut headers = http::HeaderMap::with_capacity(block.len());
    for (name, value) in block.iter() {
        let name = names::parse(name).map_err(|_| malformed("name"))?;
        let value = value_of(value).map_err(|_| malformed("value"))?;
        headers.append(name, value);
    }
    Ok(MetadataMap::from_headers(headers))
}

/// Reads the bytes of a block that the core has already checked. Values of a short block share its
/// memory, which each of them keeps.
pub(crate) fn decode_bytes(bytes: &Bytes) -> Result<MetadataMap, Status> {
    if bytes.is_empty() {
        return Ok(MetadataMap::new());
    }
    let block = Metadata::decode(bytes).map_err(|_| malformed("block"))?;
    if bytes.len() > MAX_SHARED_BYTES {
        return decode(block);
    }
    decode_with(block, |value| {
        HeaderValue::from_maybe_shared(bytes.slice_ref(value))
    })
}

fn malformed(what: &str) -> Status {
    Status::internal(format!("protocol error: malformed metadata {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataValue;

    #[test]
    fn metadata_comes_back_as_it_was_but_for_reserved_names() {
        let mut map = MetadataMap::new();
        map.insert("x-user", "ada".parse().unwrap());
        map.append("x-user", "grace".parse().unwrap());
        map.insert_bin("x-key-bin", MetadataValue::from_bytes(&[0, 255]));
        map.insert("grpc-timeout", "1S".parse().unwrap());
        let block = encode(&map).unwrap();
        let back = decode(block.as_metadata()).unwrap();
        let users: Vec<_> = back.get_all("x-user").iter().collect();
        assert_eq!(users, ["ada", "grace"]);
        let key = back.get_bin("x-key-bin").unwrap().to_bytes().unwrap();
        assert_eq!(key.as_ref(), [0, 255]);
        assert!(back.get("grpc-timeout").is_none());
    }
}
