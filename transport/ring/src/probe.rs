//! What this kernel, and whatever filters its system calls, really allow of shared memory: each step
//! that a region takes is taken once, so that a refusal can be named.

use std::fmt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

use crate::{
    RegionError,
    mapping::Mapping,
    sealed::{self, REQUIRED_SEALS},
};

/// As small as memory comes; the kernel rounds up to its page.
const PROBE_BYTES: usize = 4096;

/// A step on the way to a region that a peer accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryStep {
    /// memfd_create(2).
    Create,
    /// `MFD_NOEXEC_SEAL` (Linux 6.3); done without where the kernel has none.
    NoexecSeal,
    /// Allocated, mapped, and sealed against shrinking, growing and later writers
    /// (`F_SEAL_FUTURE_WRITE`, Linux 5.1).
    Seal,
    /// The seals hold: nobody resizes it, punches holes into it or maps it for writing.
    SealsHold,
    /// The checks that a peer makes, and its read-only mapping.
    MapAsPeer,
}

impl MemoryStep {
    /// All of them, in the order in which [`probe_memory`] takes them.
    pub const ALL: [Self; 5] = [
        Self::Create,
        Self::NoexecSeal,
        Self::Seal,
        Self::SealsHold,
        Self::MapAsPeer,
    ];

    /// Whether there is no shared memory without it.
    #[must_use]
    pub const fn is_required(self) -> bool {
        !matches!(self, Self::NoexecSeal)
    }

    fn take(self) -> Result<(), RegionError> {
        match self {
            Self::Create => sealed::create_memfd("ringway-probe").map(drop),
            Self::NoexecSeal => create_without_exec(),
            Self::Seal => sealed::create("ringway-probe", PROBE_BYTES, false, None).map(drop),
            Self::SealsHold => try_to_break_seals(),
            Self::MapAsPeer => map_as_peer(),
        }
    }
}

impl fmt::Display for MemoryStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Create => "memfd_create",
            Self::NoexecSeal => "MFD_NOEXEC_SEAL",
            Self::Seal => "F_SEAL_FUTURE_WRITE",
            Self::SealsHold => "seals hold",
            Self::MapAsPeer => "read-only mapping",
        })
    }
}

/// Takes each step, and tells what it came to; those that depend on one that failed fail as well.
/// Takes some tens of microseconds.
///
/// ```
/// let steps = ringway_ring::probe_memory();
/// let refused = steps.iter().find(|(step, came_to)| step.is_required() && came_to.is_err());
/// assert!(refused.is_none(), "no shared memory here: {refused:?}");
/// ```
#[must_use]
pub fn probe_memory() -> Vec<(MemoryStep, Result<(), RegionError>)> {
    let steps = MemoryStep::ALL.into_iter();
    steps.map(|step| (step, step.take())).collect()
}

fn create_without_exec() -> Result<(), RegionError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let created = memfd_create("ringway-probe", flags).map_err(RegionError::Create)?;
    drop(created);
    Ok(())
}

fn try_to_break_seals() -> Result<(), RegionError> {
    let (_mapping, file) = sealed::create("ringway-probe", PROBE_BYTES, false, None)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let broken = [
        ("truncated", ftruncate(&file, 0).is_ok()),
        ("extended", ftruncate(&file, 2 * PROBE_BYTES as u64).is_ok()),
        (
            "punched",
            fallocate(&file, punch, 0, PROBE_BYTES as u64).is_ok(),
        ),
        ("written", rustix::io::pwrite(&file, b"x", 0).is_ok()),
        (
            "mapped for writing",
            Mapping::writable(&file, PROBE_BYTES, false).is_ok(),
        ),
    ];
    match broken.into_iter().find(|(_, done)| *done) {
        Some((how, _)) => Err(RegionError::Seal(format!(
            "a file with the seals {REQUIRED_SEALS:?} could still be {how}"
        ))),
        None => Ok(()),
    }
}

fn map_as_peer() -> Result<(), RegionError> {
    let (_mapping, file) = sealed::create("ringway-probe", PROBE_BYTES, false, None)?;
    let (bytes, _) = sealed::inspect(&file, PROBE_BYTES)?;
    Mapping::read_only(&file, bytes, true).map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_takes_every_step_that_is_required() {
        let steps = probe_memory();
        assert_eq!(steps.len(), MemoryStep::ALL.len());
        for (step, came_to) in steps {
            assert!(
                came_to.is_ok() || !step.is_required(),
                "{step}: {came_to:?}"
            );
        }
    }
}
