//! How much metadata a call may carry: as much as on the paths within a host, so that what goes on one
//! path goes on each, and what does not ends with the same code.

use http::HeaderMap;
use tonic::Status;

/// Bytes of one block of metadata: names, values, and six for each entry.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;
/// Entries of one block.
pub const MAX_METADATA_ENTRIES: usize = 1024;

/// What an entry takes beside its name and value, as the paths within a host count it.
const ENTRY_BYTES: usize = 6;
/// What is added to somebody's metadata on its way: content type, status and the like.
const ADDED: (usize, usize) = (16, 1024);

/// What either end says that it accepts: as HTTP/2 counts it, each entry takes 32 bytes more. Beside the
/// metadata there is room for a long path and a long status.
pub(crate) const HTTP2_MAX_HEADER_LIST_BYTES: u32 = (64 + 32 + 80) * 1024;

/// Refuses more metadata than that before it is sent: HTTP/2 would end the whole connection for it.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Status> {
    if headers.len() > MAX_METADATA_ENTRIES + ADDED.0 {
        return Err(refused("has too many entries"));
    }
    let lens = headers.iter();
    let lens = lens.map(|(name, value)| ENTRY_BYTES + name.as_str().len() + value.len());
    match lens.sum::<usize>() > MAX_METADATA_BYTES + ADDED.1 {
        true => Err(refused("is larger than the limit")),
        false => Ok(()),
    }
}

fn refused(what: &str) -> Status {
    Status::resource_exhausted(format!("metadata: metadata {what}"))
}
