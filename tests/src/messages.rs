//! Requests that many tests make.

use bytes::Bytes;
use ringway_proto::bench::Payload;
use tokio_stream::Stream;
use tonic::Request;

/// `size` bytes, other ones for each sequence.
pub fn payload(sequence: u64, size: usize) -> Payload {
    // Repeated rather than made byte by byte, which takes seconds in a debug build.
    let pattern = pattern(sequence);
    let mut data = pattern.repeat(size.div_ceil(pattern.len()));
    data.truncate(size);
    Payload {
        sequence,
        data: Bytes::from(data),
    }
}

fn pattern(sequence: u64) -> [u8; 256] {
    let first = sequence.to_le_bytes()[0];
    std::array::from_fn(|at| at.to_le_bytes()[0] ^ first)
}

/// Whether a message is as [`payload`] made it, without a second one to compare it with.
pub fn is_intact(payload: &Payload) -> bool {
    let pattern = pattern(payload.sequence);
    let mut parts = payload.data.chunks(pattern.len());
    parts.all(|part| *part == pattern[..part.len()])
}

/// So many of them, numbered from 0.
pub fn payloads(count: u64, size: usize) -> impl Stream<Item = Payload> + Send + 'static {
    tokio_stream::iter((0..count).map(move |sequence| payload(sequence, size)))
}

/// Tells the usual handler what to do with `message`.
pub fn asking<T>(wish: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-do", wish.parse().unwrap());
    request
}
