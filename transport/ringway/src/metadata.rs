//! tonic's metadata as a metadata block of the wire, and back.
//!
//! Values travel as HTTP would carry them, so `-bin` values stay in base64: what a handler sees is
//! the same on every path.

mod names;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderValue, InvalidHeaderValue};
use ringway_net::reserved::Meaning;
use ringway_wire::{Metadata, MetadataBuf, TraceContext};
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::trace::{TRACEPARENT, TRACESTATE};

// What goes on one path goes on each.
const _: () = assert!(ringway_net::MAX_METADATA_BYTES == ringway_wire::limits::MAX_METADATA_BYTES);
const _: () = assert!(
    ringway_net::MAX_METADATA_ENTRIES == ringway_wire::limits::MAX_METADATA_ENTRIES as usize
);

/// Values of a longer block are copied: one that a handler keeps must not keep all the others.
const MAX_SHARED_BYTES: usize = 1024;

/// Where metadata travels, which decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// In front of messages.
    Messages,
    /// With a status, which tells its details itself.
    Status,
}

impl Beside {
    /// Returns true if an entry may be here.
    fn admits(self, meaning: Meaning, value: &[u8]) -> bool {
        match (self, meaning) {
            (_, Meaning::Application) => true,
            (Self::Status, Meaning::StatusDetails) => false,
            _ => meaning.admits(value),
        }
    }
}

/// Writes `map` as a block, but for what may not travel beside messages.
pub(crate) fn encode(map: &MetadataMap) -> Result<MetadataBuf, Status> {
    encode_beside(map, Beside::Messages)
}

/// Writes metadata that comes with a status, or after an answer, as a block.
pub(crate) fn encode_trailing(map: &MetadataMap) -> Result<MetadataBuf, Status> {
    encode_beside(map, Beside::Status)
}

/// Returns true if [`encode`] would write nothing of `map`.
pub(crate) fn is_bare(map: &MetadataMap) -> bool {
    let mut names = map.as_ref().keys();
    names.all(|name| Meaning::of(name.as_str()) == Meaning::Transport)
}

fn encode_beside(map: &MetadataMap, beside: Beside) -> Result<MetadataBuf, Status> {
    if map.is_empty() {
        return Ok(MetadataBuf::new());
    }
    let entries = || {
        let all = map.as_ref().iter();
        all.filter(|(name, value)| beside.admits(Meaning::of(name.as_str()), value.as_bytes()))
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

/// The name and version by which a client of local paths goes, as tonic's goes by its own over HTTP/2.
pub(crate) const USER_AGENT: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));

/// Adds what a client is called, unless it has said so.
pub(crate) fn add_user_agent(headers: &mut HeaderMap) {
    let own = || HeaderValue::from_static(USER_AGENT);
    headers.entry(http::header::USER_AGENT).or_insert_with(own);
}

/// Adds the trace that a call belongs to: on local paths it does not travel among the metadata.
pub(crate) fn add_traceparent(headers: &mut HeaderMap, trace: &TraceContext) {
    // Digits and dashes always are a value.
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        headers.entry(TRACEPARENT).or_insert(value);
    }
}

/// Adds both to a block; it stays as it is if there is no room.
pub(crate) fn with_headers_of_http(block: &Bytes, trace: Option<&TraceContext>) -> Bytes {
    let Ok(metadata) = decode_bytes(block) else {
        return block.clone();
    };
    let mut headers = metadata.into_headers();
    add_user_agent(&mut headers);
    if let Some(trace) = trace {
        add_traceparent(&mut headers, trace);
    }
    match encode(&MetadataMap::from_headers(headers)) {
        Ok(all) => Bytes::copy_from_slice(all.as_metadata().as_bytes()),
        Err(_) => block.clone(),
    }
}

/// Reads a block that a peer sent beside messages.
pub(crate) fn decode(block: Metadata<'_>) -> Result<MetadataMap, Status> {
    decode_with(block, Beside::Messages, HeaderValue::from_bytes)
}

/// Reads a block that a peer sent with a status, or after an answer.
pub(crate) fn decode_trailing(block: Metadata<'_>) -> Result<MetadataMap, Status> {
    decode_with(block, Beside::Status, HeaderValue::from_bytes)
}

fn decode_with(
    block: Metadata<'_>,
    beside: Beside,
    value_of: impl Fn(&[u8]) -> Result<HeaderValue, InvalidHeaderValue>,
) -> Result<MetadataMap, Status> {
    if block.is_empty() {
        return Ok(MetadataMap::new());
    }
    let mut headers = http::HeaderMap::with_capacity(block.len());
    for (name, value) in block.iter() {
        let name = names::parse(name).map_err(|_| malformed("name"))?;
        if beside.admits(name.meaning, value) {
            let value = value_of(value).map_err(|_| malformed("value"))?;
            headers.append(name.header, value);
        }
    }
    Ok(MetadataMap::from_headers(headers))
}

/// Reads the bytes of a block beside messages that the core has already checked. Values of a short block
/// share its memory, which each of them keeps.
pub(crate) fn decode_bytes(bytes: &Bytes) -> Result<MetadataMap, Status> {
    if bytes.is_empty() {
        return Ok(MetadataMap::new());
    }
    let block = Metadata::decode(bytes).map_err(|_| malformed("block"))?;
    if bytes.len() > MAX_SHARED_BYTES {
        return decode(block);
    }
    decode_with(block, Beside::Messages, |value| {
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

    fn block(entries: &[(&str, &[u8])]) -> MetadataBuf {
        let mut block = MetadataBuf::new();
        for (name, value) in entries {
            block.push(name.as_bytes(), value).unwrap();
        }
        block
    }

    /// The names that are left of what a peer said.
    fn left(map: &MetadataMap) -> Vec<&str> {
        map.as_ref().keys().map(http::HeaderName::as_str).collect()
    }

    #[test]
    fn what_a_peer_says_under_reserved_names_is_left_out() {
        let bad = block(&[
            ("grpc-status-details-bin", b"*"),
            ("grpc-status", b"7"),
            ("te", b"gzip"),
            ("connection", b"close"),
            ("x-kept", b"1"),
        ]);
        assert_eq!(left(&decode(bad.as_metadata()).unwrap()), ["x-kept"]);
        assert_eq!(
            left(&decode_trailing(bad.as_metadata()).unwrap()),
            ["x-kept"]
        );
        let bytes = Bytes::copy_from_slice(bad.as_metadata().as_bytes());
        assert_eq!(left(&decode_bytes(&bytes).unwrap()), ["x-kept"]);
        // As tonic does: details in base64 are metadata of no meaning beside messages.
        let good = block(&[("grpc-status-details-bin", b"AAEC")]);
        let names = ["grpc-status-details-bin"];
        assert_eq!(left(&decode(good.as_metadata()).unwrap()), names);
        assert!(left(&decode_trailing(good.as_metadata()).unwrap()).is_empty());
    }

    #[test]
    fn bad_details_are_not_sent_either() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status-details-bin", HeaderValue::from_static("*"));
        let map = MetadataMap::from_headers(headers);
        assert!(encode(&map).unwrap().as_metadata().is_empty());
    }
}
