//! What generated stubs say about a method and about the options of its calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::RwLock;
use ringway_local::Pace;
use ringway_wire::limits::MAX_REMEMBERED_PATH_BYTES;
use tonic::codec::CompressionEncoding;

/// One method of a service, as a static of the generated code.
#[derive(Debug)]
pub struct Method {
    service: &'static str,
    name: &'static str,
    path: &'static str,
    number: AtomicU32,
    /// That of the request streams of this process's calls.
    pace: OnceLock<Arc<Pace>>,
}

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

impl Method {
    /// Describes `service`/`name`, reached at `path` (`/package.Service/Method`).
    pub const fn new(service: &'static str, name: &'static str, path: &'static str) -> Self {
        Self {
            service,
            name,
            path,
            number: AtomicU32::new(0),
            pace: OnceLock::new(),
        }
    }

    /// The service's full name, package included.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The method's name within its service.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The path of the method in HTTP/2 gRPC.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// A small number that stands for this method in this process, given at the first call.
    pub(crate) fn number(&self) -> u32 {
        match self.number.load(Ordering::Relaxed) {
            0 => self.assign_number(),
            number => number,
        }
    }

    /// Where the request streams of its calls run, as far as it is known.
    pub(crate) fn pace(&self) -> Arc<Pace> {
        Arc::clone(self.pace.get_or_init(Arc::default))
    }

    #[cold]
    fn assign_number(&self) -> u32 {
        let fresh = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        match self
            .number
            .compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => fresh,
            Err(assigned) => assigned,
        }
    }
}

/// Paths of HTTP requests that have a number.
static NUMBERED: LazyLock<RwLock<HashMap<Box<str>, u32>>> = LazyLock::new(RwLock::default);
/// So many of them at most: whoever passes on what others call must not remember all of it.
const MAX_NUMBERED: usize = 256;

/// The number that stands for no method: the path travels with each call.
const NO_NUMBER: u32 = u32::MAX;

/// The small number that stands in this process for the method at `path`.
pub(crate) fn number_of(path: &str) -> u32 {
    let is_full = |numbered: &HashMap<Box<str>, u32>| numbered.len() >= MAX_NUMBERED;
    let numbered = NUMBERED.read();
    if let Some(number) = numbered.get(path) {
        return *number;
    }
    // Seen while others read, too: who passes on many paths must not make its calls wait for each other.
    if is_full(&numbered) || path.len() > MAX_REMEMBERED_PATH_BYTES {
        return NO_NUMBER;
    }
    drop(numbered);
    let mut numbered = NUMBERED.write();
    if is_full(&numbered) {
        return NO_NUMBER;
    }
    let fresh = || NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    *numbered.entry(path.into()).or_insert_with(fresh)
}

/// What was learnt of the request streams of calls by path.
static PACES: LazyLock<RwLock<HashMap<Box<str>, Arc<Pace>>>> = LazyLock::new(RwLock::default);

/// Where the request streams of the method at `path` run; nothing is remembered of further ones than
/// [`MAX_NUMBERED`].
pub(crate) fn pace_of(path: &str) -> Arc<Pace> {
    if let Some(pace) = PACES.read().get(path) {
        return Arc::clone(pace);
    }
    let pace = Arc::<Pace>::default();
    let mut paces = PACES.write();
    if paces.len() < MAX_NUMBERED {
        return Arc::clone(paces.entry(path.into()).or_insert(pace));
    }
    pace
}

/// Largest sizes of one message, in bytes; `None` is tonic's default (4 MiB in, no limit out).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageLimits {
    /// Largest message that is decoded.
    pub decoding: Option<usize>,
    /// Largest message that is encoded.
    pub encoding: Option<usize>,
}

/// tonic's limit for a received message where none is set.
pub(crate) const DEFAULT_MAX_DECODING_BYTES: usize = 4 * 1024 * 1024;

impl MessageLimits {
    /// Returns the largest message that is decoded, in bytes.
    pub fn max_decoding(&self) -> usize {
        self.decoding.unwrap_or(DEFAULT_MAX_DECODING_BYTES)
    }

    /// Returns the same bound as the transport counts it: no message is longer than its type allows.
    pub(crate) fn max_decoding_on_wire(&self) -> u32 {
        u32::try_from(self.max_decoding()).unwrap_or(u32::MAX)
    }

    /// Checks a received message's length; the error is the one tonic gives.
    pub(crate) fn check_decoding(&self, len_bytes: usize) -> Result<(), tonic::Status> {
        let limit = self.max_decoding();
        if len_bytes > limit {
            return Err(crate::status::too_long(len_bytes, limit));
        }
        Ok(())
    }

    /// Checks the length of a message to send; the error is the one tonic gives.
    pub(crate) fn check_encoding(&self, len_bytes: usize) -> Result<(), tonic::Status> {
        let limit = self.encoding.unwrap_or(usize::MAX);
        if len_bytes > limit {
            return Err(tonic::Status::out_of_range(format!(
                "Error, encoded message length too large: found {len_bytes} bytes, the limit is: {limit} bytes"
            )));
        }
        Ok(())
    }
}

/// How a generated client makes its calls.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Largest message sizes.
    pub limits: MessageLimits,
    /// Compression of requests on the network path.
    pub send_compression: Option<CompressionEncoding>,
    /// Compressions of responses that are understood on the network path.
    pub accept_compression: Vec<CompressionEncoding>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_numbers_and_only_so_many_have_one() {
        let first = number_of("/test.Numbers/First");
        let second = number_of("/test.Numbers/Second");
        assert!(first != second && first != NO_NUMBER && second != NO_NUMBER);
        let long = format!("/test.Numbers/{}", "x".repeat(MAX_REMEMBERED_PATH_BYTES));
        assert_eq!(number_of(&long), NO_NUMBER);
        for n in 0..MAX_NUMBERED {
            number_of(&format!("/test.Numbers/{n}"));
        }
        assert_eq!(number_of("/test.Numbers/Late"), NO_NUMBER);
        assert_eq!(number_of("/test.Numbers/First"), first);
        assert_eq!(number_of("/test.Numbers/Second"), second);
    }
}
