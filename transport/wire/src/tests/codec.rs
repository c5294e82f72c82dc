//! Properties of the codecs: what goes in comes out, and no bytes make them panic.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_STATUS_TEXT_BYTES};
use crate::*;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn entries() -> impl Strategy<Value = Entries> {
    vec((vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..200)), 0..20)
}

fn block(entries: &Entries) -> MetadataBuf {
    let mut block = MetadataBuf::new();
    for (name, value) in entries {
        block.push(name, value).unwrap();
    }
    block
}

fn listed(metadata: Metadata<'_>) -> Entries {
    metadata
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fn headers() -> impl Strategy<Value = FrameHeader> {
    let kind = prop_oneof![1..=10_u8, 0x80..=0xff_u8].prop_map(|kind| Kind::from_u8(kind).unwrap());
    let numbers = (
        any::<u8>(),
        any::<u16>(),
        any::<u32>(),
        any::<u64>(),
        any::<[u32; 2]>(),
    );
    (kind, numbers).prop_map(
        |(kind, (flags, code, head_len, call, [payload_len, message_len]))| {
            let flags = Flags(flags);
            FrameHeader {
                kind,
                flags,
                code,
                head_len,
                call,
                payload_len,
                message_len,
            }
        },
    )
}

proptest! {
    #[test]
    fn headers_come_back_or_are_refused(header in headers()) {
        if let Ok(decoded) = FrameHeader::decode(&header.encode()) {
            prop_assert_eq!(decoded, header);
        }
    }

    #[test]
    fn any_bytes_for_a_header(bytes in any::<[u8; 24]>()) {
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_for_a_head(bytes in vec(any::<u8>(), 0..300)) {
        let _ = RequestHead::decode(&bytes);
        let _ = ResponseHead::decode(&bytes);
        let _ = StatusHead::decode(&bytes);
        let _ = Hello::decode(&bytes);
        if let Ok(metadata) = Metadata::decode(&bytes) {
            prop_assert_eq!(metadata.iter().count(), metadata.len());
        }
    }

    #[test]
    fn a_hello_with_any_rest(rest in vec(any::<u8>(), 0..300)) {
        let mut bytes = b"RINGWAY\n\x01\0\x01\0".to_vec();
        bytes.extend_from_slice(&((rest.len() + 14) as u16).to_le_bytes());
        bytes.extend_from_slice(&rest);
        let _ = Hello::decode(&bytes);
    }

    #[test]
    fn request_heads(
        number in option::of(any::<u32>()),
        path in option::of("[a-zA-Z./ä]{0,100}"),
        nanos in option::of(any::<u64>()),
        trace in option::of(any::<([u8; 16], [u8; 8], u8)>()),
        entries in entries(),
    ) {
        let method = match (number, path.as_deref()) {
            (Some(number), Some(path)) => Method::Define(number, path),
            (Some(number), None) => Method::Known(number),
            (None, path) => Method::Inline(path.unwrap_or("")),
        };
        let block = block(&entries);
        let timeout = nanos.map(Duration::from_nanos);
        let trace = trace.and_then(|(trace_id, span_id, flags)| TraceContext::new(trace_id, span_id, flags));
        let head = RequestHead { method, timeout, trace, metadata: block.as_metadata() };
        let mut bytes = vec![0xaa; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let decoded = RequestHead::decode(&bytes).unwrap();
        prop_assert_eq!(decoded, head);
        prop_assert_eq!(listed(decoded.metadata), entries);
        // Cut anywhere, it is an error or a shorter list of metadata, never a panic.
        for len in 0..bytes.len() {
            let _ = RequestHead::decode(&bytes[..len]);
        }
    }

    #[test]
    fn response_heads(initial in entries(), trailing in entries()) {
        let (initial, trailing) = (block(&initial), block(&trailing));
        let head = ResponseHead {
            initial: initial.as_metadata(),
            trailing: trailing.as_metadata(),
        };
        let mut bytes = vec![0; head.encoded_len()];
        head.encode(&mut bytes);
        prop_assert_eq!(ResponseHead::decode(&bytes).unwrap(), head);
    }

    #[test]
    fn status_heads(
        message in "(?s).{0,50}",
        details in vec(any::<u8>(), 0..50),
        entries in entries(),
    ) {
        let block = block(&entries);
        let head =
            StatusHead { message: &message, details: &details, metadata: block.as_metadata() };
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        prop_assert_eq!(StatusHead::decode(&bytes).unwrap(), head);
    }
}

#[test]
fn metadata_is_bounded() {
    let mut many = MetadataBuf::new();
    for _ in 0..MAX_METADATA_ENTRIES {
        many.push(b"", b"").unwrap();
    }
    assert_eq!(many.push(b"", b""), Err(HeadError::TooManyEntries));
    let bytes = vec![0; 6 * 100_000];
    assert_eq!(Metadata::decode(&bytes), Err(HeadError::MetadataTooLarge));
    let entries = vec![0; 6 * (usize::from(MAX_METADATA_ENTRIES) + 1)];
    assert_eq!(Metadata::decode(&entries), Err(HeadError::TooManyEntries));

    let mut large = MetadataBuf::new();
    let room = MAX_METADATA_BYTES - 6;
    assert_eq!(
        large.push(b"n", &vec![0; room]),
        Err(HeadError::MetadataTooLarge)
    );
    assert!(large.as_metadata().is_empty());
    large.push(b"n", &vec![0; room - 1]).unwrap();
    assert!(Metadata::decode(large.as_metadata().as_bytes()).is_ok());
    assert_eq!(large.push(b"", b""), Err(HeadError::MetadataTooLarge));
    large.clear();
    assert!(large.push(b"n", b"v").is_ok());
}

#[test]
fn a_request_without_ids_in_its_trace_belongs_to_none() {
    let trace = TraceContext::new([1; 16], [2; 8], 1);
    let head = RequestHead {
        trace,
        timeout: Some(Duration::MAX),
        ..RequestHead::new(Method::Known(3))
    };
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let at = bytes.len() - TraceContext::LEN;
    for zeroed in [at..at + 16, at + 16..at + 24] {
        let mut bytes = bytes.clone();
        bytes[zeroed].fill(0);
        let decoded = RequestHead::decode(&bytes).unwrap();
        assert_eq!(
            decoded,
            RequestHead {
                trace: None,
                timeout: decoded.timeout,
                ..head
            }
        );
    }
    assert_eq!(
        RequestHead::decode(&bytes[..bytes.len() - 1]),
        Err(HeadError::Truncated)
    );
}

/// The largest heads of each kind stay below the limit that a frame has.
#[test]
fn the_largest_heads_fit_a_frame() {
    let largest = 8 + MAX_METADATA_BYTES + limits::MAX_STATUS_DETAILS_BYTES + MAX_STATUS_TEXT_BYTES;
    let answer = 4 + 2 * MAX_METADATA_BYTES;
    let request = 1 + 5 + 8 + 5 + limits::MAX_PATH_BYTES + MAX_METADATA_BYTES;
    let limit = limits::MAX_HEAD_BYTES as usize;
    assert!(largest <= limit && answer <= limit && request <= limit);
}

#[test]
fn status_texts_are_cut_between_characters() {
    let text = "é".repeat(MAX_STATUS_TEXT_BYTES);
    let status = StatusHead {
        message: &text,
        ..StatusHead::default()
    };
    assert_eq!(
        status.encoded_len(),
        Err(HeadError::StatusTooLarge(text.len()))
    );
    let fitting = StatusHead::fit_message(&text);
    assert_eq!(fitting.len(), MAX_STATUS_TEXT_BYTES);
    let odd = format!("x{text}");
    assert_eq!(
        StatusHead::fit_message(&odd).len(),
        MAX_STATUS_TEXT_BYTES - 1
    );
    assert_eq!(StatusHead::fit_message("fine"), "fine");
    assert!(
        StatusHead {
            message: fitting,
            ..status
        }
        .encoded_len()
        .is_ok()
    );
}

#[test]
fn numbers_have_one_form_only() {
    assert_eq!(
        RequestHead::decode(&[1, 0x80, 0]),
        Err(HeadError::BadNumber)
    );
    let too_large = [1, 0xff, 0xff, 0xff, 0xff, 0x1f];
    assert_eq!(RequestHead::decode(&too_large), Err(HeadError::BadNumber));
    let endless = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(RequestHead::decode(&endless), Err(HeadError::BadNumber));
}
