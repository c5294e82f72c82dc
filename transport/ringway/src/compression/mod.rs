//! Messages that come compressed on a local path. None of our own does unless its sender chose so
//! for that very message: compression costs more than memory does. But stubs of tonic's that
//! compress must be understood on every path.

mod by_message;

pub use by_message::{CameCompressed, Compress, MessageCompression};

use std::io;
#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
use std::io::Read;
#[cfg(any(feature = "gzip", feature = "deflate"))]
use std::io::Write;

use bytes::Bytes;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::method::MessageLimits;

/// Names the encoding of a call's compressed messages.
const ENCODING: &str = "grpc-encoding";
/// Names the encodings that a call's sender understands.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// How a message was compressed, of what the features of this crate allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[cfg(feature = "gzip")]
    Gzip,
    #[cfg(feature = "deflate")]
    Deflate,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Encoding {
    const ALL: &[Self] = &[
        #[cfg(feature = "gzip")]
        Self::Gzip,
        #[cfg(feature = "deflate")]
        Self::Deflate,
        #[cfg(feature = "zstd")]
        Self::Zstd,
    ];

    /// What the metadata of a call, or of its answer, says.
    ///
    /// # Errors
    /// `UNIMPLEMENTED`, as tonic says it, for one that nobody knows here.
    pub(crate) fn named(metadata: &MetadataMap) -> Result<Option<Self>, Status> {
        if metadata.is_empty() {
            return Ok(None);
        }
        let Some(name) = metadata.get(ENCODING) else {
            return Ok(None);
        };
        if name == "identity" {
            return Ok(None);
        }
        let known = Self::ALL.iter().find(|known| name == known.name());
        known.map_or_else(|| Err(unknown(name.as_bytes())), |known| Ok(Some(*known)))
    }

    /// The one that tonic calls so, unless this crate was built without it.
    fn of(encoding: CompressionEncoding) -> Option<Self> {
        match encoding {
            #[cfg(feature = "gzip")]
            CompressionEncoding::Gzip => Some(Self::Gzip),
            #[cfg(feature = "deflate")]
            CompressionEncoding::Deflate => Some(Self::Deflate),
            #[cfg(feature = "zstd")]
            CompressionEncoding::Zstd => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What metadata calls it.
    fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => "gzip",
            #[cfg(feature = "deflate")]
            Self::Deflate => "deflate",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
        }
    }

    #[cfg_attr(
        not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
        allow(unused_variables, reason = "there is no encoding to compress with")
    )]
    fn compress(self, message: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(message)?;
                encoder.finish()
            }
            #[cfg(feature = "deflate")]
            Self::Deflate => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(message)?;
                encoder.finish()
            }
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::encode_all(message, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// The message in `bytes`; `None` if it has more than `limit`.
    #[cfg_attr(
        not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
        allow(unused_variables, reason = "there is no encoding to decompress")
    )]
    fn decompress(self, bytes: &[u8], limit: usize) -> io::Result<Option<Bytes>> {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => read_within(flate2::read::GzDecoder::new(bytes), limit),
            #[cfg(feature = "deflate")]
            Self::Deflate => read_within(flate2::read::ZlibDecoder::new(bytes), limit),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::stream::read::Decoder::new(bytes)
                .and_then(|reader| read_within(reader, limit)),
        }
    }
}

fn unknown(name: &[u8]) -> Status {
    let name = String::from_utf8_lossy(name);
    // One of these is unknown only where its feature is missing.
    let advice = match &*name {
        "gzip" | "deflate" | "zstd" => {
            format!(": build the receiver with ringway's feature `{name}`")
        }
        _ => String::new(),
    };
    let mut status = Status::unimplemented(format!(
        "Content is compressed with `{name}` which isn't supported{advice}"
    ));
    let known = Encoding::ALL.iter().map(|known| known.name());
    let accepted = known.chain(["identity"]).collect::<Vec<_>>().join(",");
    // Names of encodings are no values that metadata would refuse.
    if let Ok(accepted) = MetadataValue::try_from(accepted) {
        status.metadata_mut().insert(ACCEPT_ENCODING, accepted);
    }
    status
}

/// The message in `bytes`, in as many bytes as a message may have; codes as tonic gives them.
///
/// # Errors
/// It is too large either way, or not what it says.
pub(crate) fn decompress(
    encoding: Option<Encoding>,
    bytes: &[u8],
    limits: &MessageLimits,
) -> Result<Bytes, Status> {
    limits.check_decoding(bytes.len())?;
    let Some(encoding) = encoding else {
        return Err(Status::internal(
            "protocol error: received message with compressed-flag but no grpc-encoding was specified",
        ));
    };
    let limit = limits.max_decoding();
    let read = encoding.decompress(bytes, limit);
    let message =
        read.map_err(|error| Status::internal(format!("Error decompressing: {error}")))?;
    message.ok_or_else(|| {
        Status::resource_exhausted(format!(
            "Error decompressing: size limit, of {limit} bytes, exceeded while decompressing message"
        ))
    })
}

/// Reads to the end; `None` if that is farther than `limit`, of which no more is kept.
#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
fn read_within(reader: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let mut message = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut message)?;
    Ok((message.len() <= limit).then(|| message.into()))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[cfg(not(feature = "gzip"))]
    #[test]
    fn a_message_compressed_by_what_is_missing_names_the_feature() {
        let mut metadata = MetadataMap::new();
        metadata.insert(ENCODING, MetadataValue::from_static("gzip"));
        let status = Encoding::named(&metadata).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(
            status.message().contains("ringway's feature `gzip`"),
            "{status:?}"
        );
    }

    #[test]
    fn every_encoding_is_read_up_to_the_limit() {
        let limits = MessageLimits {
            decoding: Some(1000),
            encoding: None,
        };
        let read = |encoding, bytes: &[u8]| decompress(Some(encoding), bytes, &limits);
        for (len, fits) in [(0, true), (1000, true), (1001, false), (1 << 20, false)] {
            let message = vec![7; len];
            for encoding in Encoding::ALL.iter().copied() {
                let bytes = encoding.compress(&message).unwrap();
                match read(encoding, &bytes) {
                    Ok(read) => assert!(fits && read == message, "{encoding:?} {len}"),
                    Err(status) if bytes.len() > 1000 => {
                        assert_eq!(status.code(), Code::OutOfRange);
                    }
                    Err(status) => {
                        assert!(!fits, "{encoding:?} {len}");
                        assert_eq!(status.code(), Code::ResourceExhausted, "{encoding:?} {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_what_it_says_is_an_error() {
        let limits = MessageLimits::default();
        let all = Encoding::ALL.iter().copied();
        for encoding in all.map(Some).chain([None]) {
            let status = decompress(encoding, b"anything", &limits).unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{encoding:?}");
        }
        let mut metadata = MetadataMap::new();
        metadata.insert(ENCODING, "snappy".parse().unwrap());
        let status = Encoding::named(&metadata).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
