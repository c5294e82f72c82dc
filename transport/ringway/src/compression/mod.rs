//! Messages that come compressed on a local path. None of our own does unless its sender chose so
//! for that very message: compression costs more than memory does. But stubs of tonic's that
//! compress must be understood on every path.

mod by_message;

pub use by_message::{CameCompressed, Compress, MessageCompression};

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::method::MessageLimits;

/// Names the encoding of a call's compressed messages.
const ENCODING: &str = "grpc-encoding";
/// Names the encodings that a call's sender understands.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// What is understood, beside a refusal.
const ACCEPTED: &str = "gzip,deflate,zstd,identity";

/// How a message was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
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
        match name.as_bytes() {
            b"identity" => Ok(None),
            b"gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            b"zstd" => Ok(Some(Self::Zstd)),
            other => Err(unknown(other)),
        }
    }

    /// The one that tonic calls so; one that is not known here is taken for gzip, which all of gRPC has.
    fn of(encoding: CompressionEncoding) -> Self {
        match encoding {
            CompressionEncoding::Deflate => Self::Deflate,
            CompressionEncoding::Zstd => Self::Zstd,
            _ => Self::Gzip,
        }
    }

    /// What metadata calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn compress(self, message: &[u8]) -> io::Result<Vec<u8>> {
        let level = flate2::Compression::default();
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(message)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(message)?;
                encoder.finish()
            }
            Self::Zstd => zstd::encode_all(message, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }
}

fn unknown(name: &[u8]) -> Status {
    let name = String::from_utf8_lossy(name);
    let mut status = Status::unimplemented(format!(
        "Content is compressed with `{name}` which isn't supported"
    ));
    let accepted = MetadataValue::from_static(ACCEPTED);
    status.metadata_mut().insert(ACCEPT_ENCODING, accepted);
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
    let read = match encoding {
        Encoding::Gzip => read_within(GzDecoder::new(bytes), limit),
        Encoding::Deflate => read_within(ZlibDecoder::new(bytes), limit),
        Encoding::Zstd => {
            zstd::stream::read::Decoder::new(bytes).and_then(|reader| read_within(reader, limit))
        }
    };
    let message =
        read.map_err(|error| Status::internal(format!("Error decompressing: {error}")))?;
    message.ok_or_else(|| {
        Status::resource_exhausted(format!(
            "Error decompressing: size limit, of {limit} bytes, exceeded while decompressing message"
        ))
    })
}

/// Reads to the end; `None` if that is farther than `limit`, of which no more is kept.
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

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    #[test]
    fn every_encoding_is_read_up_to_the_limit() {
        let limits = MessageLimits {
            decoding: Some(1000),
            encoding: None,
        };
        let read = |encoding, bytes: &[u8]| decompress(Some(encoding), bytes, &limits);
        for (len, fits) in [(0, true), (1000, true), (1001, false), (1 << 20, false)] {
            let message = vec![7; len];
            for encoding in ALL {
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
        for encoding in ALL.into_iter().map(Some).chain([None]) {
            let status = decompress(encoding, b"anything", &limits).unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{encoding:?}");
        }
        let mut metadata = MetadataMap::new();
        metadata.insert(ENCODING, "snappy".parse().unwrap());
        let status = Encoding::named(&metadata).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
