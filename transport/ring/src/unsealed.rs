//! In place of `sealed` on other systems than Linux, which have no memory files that can be sealed: none is made,
//! and none is taken from a peer.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::io::Errno;

use crate::{MemoryBudget, RegionError, mapping::Mapping};

/// The identity of a file: device and inode.
pub(crate) type FileId = (u64, u64);

pub(crate) fn create(
    _: &str,
    _: usize,
    _: bool,
    _: Option<&Arc<MemoryBudget>>,
) -> Result<(Mapping, OwnedFd), RegionError> {
    Err(RegionError::Create(Errno::NOSYS))
}

/// Checks nothing: no memory is made.
///
/// # Errors
/// None.
pub fn check_file_size_limit(_: usize) -> Result<(), RegionError> {
    Ok(())
}

pub(crate) fn inspect(_: impl AsFd, _: usize) -> Result<(usize, FileId), RegionError> {
    Err(RegionError::NotMemfd(Errno::NOSYS))
}

pub(crate) fn file_id(_: impl AsFd) -> Result<FileId, RegionError> {
    Err(RegionError::NotMemfd(Errno::NOSYS))
}
