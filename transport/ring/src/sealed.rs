//! Creating a memfd that its owner alone can write, and checking that a received one is such.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{
        FallocateFlags, FileType, MemfdFlags, SealFlags, fallocate, fcntl_get_seals, fstat,
        fstatfs, ftruncate, memfd_create,
    },
    io::Errno,
    process::{Resource, getrlimit},
};

use crate::{MemoryBudget, RegionError, mapping::Mapping};

/// What a region must carry: its size is fixed, nobody maps it for writing any more, and none of
/// this can be undone or added to.
pub(crate) const REQUIRED_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// From statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Which file a descriptor stands for: device and inode.
pub(crate) type FileId = (u64, u64);

/// Creates, allocates, maps and only then seals: FUTURE_WRITE spares the mapping that exists, which
/// is then the only one through which the file can ever be written. Gives back what the peer is to be sent.
pub(crate) fn create(
    name: &str,
    bytes: usize,
    populate: bool,
    budget: Option<&Arc<MemoryBudget>>,
) -> Result<(Mapping, OwnedFd), RegionError> {
    check_file_size_limit(bytes)?;
    let charge = budget.map(|budget| budget.charge(bytes)).transpose()?;
    let file = create_memfd(name)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)
        .map_err(|errno| RegionError::Allocate { bytes, errno })?;
    let mapping = Mapping::writable(&file, bytes, populate)?;
    let file = seal(file)?;
    let Some(mut charge) = charge else {
        return Ok((mapping, file));
    };
    charge.watch(&file);
    Ok((mapping.charged(charge), file))
}

#[cfg(feature = "memfd")]
fn seal(file: OwnedFd) -> Result<OwnedFd, RegionError> {
    use memfd::{FileSeal, Memfd};

    let memfd = Memfd::try_from_file(std::fs::File::from(file))
        .map_err(|_| RegionError::NotMemfd(Errno::INVAL))?;
    let seals = [
        FileSeal::SealShrink,
        FileSeal::SealGrow,
        FileSeal::SealFutureWrite,
        FileSeal::SealSeal,
    ];
    memfd
        .add_seals(&seals)
        .map_err(|error| RegionError::Seal(error.to_string()))?;
    Ok(memfd.into_file().into())
}

#[cfg(not(feature = "memfd"))]
fn seal(file: OwnedFd) -> Result<OwnedFd, RegionError> {
    rustix::fs::fcntl_add_seals(&file, REQUIRED_SEALS)
        .map_err(|errno| RegionError::Seal(errno.to_string()))?;
    Ok(file)
}

/// Checks that this process may make memory of `bytes` in one piece.
///
/// # Errors
/// [`RegionError::FileSizeLimit`]: the kernel sends SIGXFSZ to a process that tries all the same, for a
/// memory file as for any other.
pub fn check_file_size_limit(bytes: usize) -> Result<(), RegionError> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes as u64 => Err(RegionError::FileSizeLimit { bytes, limit }),
        _ => Ok(()),
    }
}

/// `NOEXEC_SEAL` came with Linux 6.3 (and is demanded by `vm.memfd_noexec=2`); older kernels answer
/// EINVAL to a flag they do not know.
pub(crate) fn create_memfd(name: &str) -> Result<OwnedFd, RegionError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        other => other,
    }
    .map_err(RegionError::Create)
}

/// Checks that a received file is a sealed memfd of at most `limit` bytes with every page there.
///
/// The seals come first: once SHRINK and GROW are known to be set, the size read after them holds.
pub(crate) fn inspect(file: impl AsFd, limit: usize) -> Result<(usize, FileId), RegionError> {
    let file = file.as_fd();
    let seals = fcntl_get_seals(file).map_err(RegionError::NotMemfd)?;
    if seals.contains(SealFlags::WRITE) {
        return Err(RegionError::WriteSealed);
    }
    if !seals.contains(REQUIRED_SEALS) {
        return Err(RegionError::SealsMissing(REQUIRED_SEALS.difference(seals)));
    }
    let system = fstatfs(file).map_err(RegionError::Inspect)?;
    let magic = u64::try_from(system.f_type).unwrap_or(u64::MAX);
    if magic != TMPFS_MAGIC {
        return Err(RegionError::NotTmpfs(magic));
    }
    let (bytes, _) = inspect_size(file, limit)?;
    // Blocks behind the end would be counted for those that are missing before it. To cut the file to its own length
    // gives them back, and no seal forbids that.
    ftruncate(file, bytes as u64).map_err(RegionError::Inspect)?;
    inspect_size(file, limit)
}

fn inspect_size(file: impl AsFd, limit: usize) -> Result<(usize, FileId), RegionError> {
    let stat = fstat(file).map_err(RegionError::Inspect)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RegionError::NotRegular(stat.st_mode));
    }
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if bytes > limit as u64 {
        return Err(RegionError::TooLarge {
            bytes,
            limit: limit as u64,
        });
    }
    if bytes == 0 {
        return Err(RegionError::TooSmall { bytes });
    }
    let allocated = u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    if allocated < bytes {
        return Err(RegionError::NotAllocated { allocated, bytes });
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "not above `limit`, which is a usize"
    )]
    let bytes = bytes as usize;
    Ok((bytes, (stat.st_dev, stat.st_ino)))
}

/// The file behind a descriptor of our own.
pub(crate) fn file_id(file: impl AsFd) -> Result<FileId, RegionError> {
    let stat = fstat(file).map_err(RegionError::Inspect)?;
    Ok((stat.st_dev, stat.st_ino))
}
