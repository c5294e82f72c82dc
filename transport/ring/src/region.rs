//! This side's region before it is joined to a peer's, and the peer's after it was checked.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use crate::{
    MemoryBudget, RegionConfig, RegionError, RegionLimits,
    layout::{self, Layout},
    mapping::Mapping,
    memory::RegionMemory,
    sealed::{self, FileId},
};

/// The region that this side alone writes: created, allocated, mapped, then sealed.
///
/// Send [`descriptor`](Self::descriptor) to the peer, then [`Endpoint::join`](crate::Endpoint::join).
#[derive(Debug)]
pub struct OwnRegion {
    /// The peer's open file. First, so that it is closed when the memory goes.
    descriptor: OwnedFd,
    pub(crate) memory: Arc<RegionMemory>,
    pub(crate) file: FileId,
    pub(crate) budget: Option<Arc<MemoryBudget>>,
}

impl OwnRegion {
    /// Makes a region with an empty ring.
    ///
    /// # Errors
    /// If the sizes are impossible or the kernel refuses the memory; never a signal later.
    pub fn create(config: &RegionConfig) -> Result<Self, RegionError> {
        Self::create_at(config, 0, None)
    }

    /// The same of a budget, from which the segments of this side's arena are taken as well.
    ///
    /// # Errors
    /// As for [`create`](Self::create), and if the budget is used up.
    pub fn create_within(
        config: &RegionConfig,
        budget: &Arc<MemoryBudget>,
    ) -> Result<Self, RegionError> {
        Self::create_at(config, 0, Some(budget))
    }

    /// The same with cursors that start elsewhere than at zero, to test where they wrap.
    pub(crate) fn create_at(
        config: &RegionConfig,
        start: u64,
        budget: Option<&Arc<MemoryBudget>>,
    ) -> Result<Self, RegionError> {
        let layout = Layout::new(config)?;
        let (mapping, descriptor) =
            sealed::create("ringway-region", layout.region_bytes(), true, budget)?;
        write_header(&mapping, &layout)?;
        let file = sealed::file_id(&descriptor)?;
        let memory = RegionMemory::new(mapping, layout);
        memory
            .producer_index()
            .store(start, std::sync::atomic::Ordering::Release);
        memory
            .consumer_cursor()
            .store(start, std::sync::atomic::Ordering::Release);
        Ok(Self {
            memory: Arc::new(memory),
            file,
            budget: budget.cloned(),
            descriptor,
        })
    }

    /// What the peer must receive. Closed when the region is joined: it is needed only once.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The peer's region: checked, and mapped read-only.
#[derive(Debug)]
pub struct PeerRegion {
    pub(crate) memory: Arc<RegionMemory>,
    pub(crate) file: FileId,
}

impl PeerRegion {
    /// Checks and maps what the peer sent. Every look at its header words is one load.
    ///
    /// # Errors
    /// Anything but a sealed, fully allocated memfd within the limits and with a sane header.
    pub fn map(descriptor: OwnedFd, limits: &RegionLimits) -> Result<Self, RegionError> {
        let (bytes, file) = sealed::inspect(&descriptor, limits.max_bytes)?;
        if bytes < layout::RELEASE_LIST_AT {
            return Err(RegionError::TooSmall {
                bytes: bytes as u64,
            });
        }
        let mapping = Mapping::read_only(&descriptor, bytes, true)?;
        let layout = read_header(&mapping)?;
        Ok(Self {
            memory: Arc::new(RegionMemory::new(mapping, layout)),
            file,
        })
    }
}

pub(crate) fn write_header(mapping: &Mapping, layout: &Layout) -> Result<(), RegionError> {
    use std::sync::atomic::Ordering::Relaxed;
    // Relaxed: the descriptor reaches the peer through a system call, long after.
    let word = |name, value: usize| {
        u32::try_from(value).map_err(|_| RegionError::Header {
            name,
            value: value as u64,
        })
    };
    let (ring, slots) = (
        word("ring_bytes", layout.ring_bytes)?,
        word("release_slots", layout.release_slots)?,
    );
    mapping
        .atomic_u32(layout::VERSION_AT)
        .store(layout::VERSION, Relaxed);
    mapping
        .atomic_u32(layout::RING_BYTES_AT)
        .store(ring, Relaxed);
    mapping
        .atomic_u32(layout::RELEASE_SLOTS_AT)
        .store(slots, Relaxed);
    mapping
        .atomic_u32(layout::CONTROL_BYTES_AT)
        .store(word("control_bytes", layout.control_bytes)?, Relaxed);
    mapping
        .atomic_u64(layout::REGION_BYTES_AT)
        .store(layout.region_bytes() as u64, Relaxed);
    mapping
        .atomic_u64(layout::MAGIC_AT)
        .store(layout::MAGIC, Relaxed);
    Ok(())
}

/// Reads each header word once and keeps only what can be derived from the sizes.
fn read_header(mapping: &Mapping) -> Result<Layout, RegionError> {
    use std::sync::atomic::Ordering::Relaxed;
    let word = |at| mapping.atomic_u32(at).load(Relaxed);
    let magic = mapping.atomic_u64(layout::MAGIC_AT).load(Relaxed);
    if magic != layout::MAGIC {
        return Err(RegionError::Magic(magic));
    }
    let found = word(layout::VERSION_AT);
    if found != layout::VERSION {
        return Err(RegionError::Version {
            found,
            expected: layout::VERSION,
        });
    }
    let (ring, slots, control) = (
        word(layout::RING_BYTES_AT),
        word(layout::RELEASE_SLOTS_AT),
        word(layout::CONTROL_BYTES_AT),
    );
    let claimed = mapping.atomic_u64(layout::REGION_BYTES_AT).load(Relaxed);
    let config = RegionConfig {
        ring_bytes: ring as usize,
        release_slots: slots as usize,
    };
    let layout = Layout::new(&config).map_err(|error| match error {
        RegionError::Config { name, value, .. } => RegionError::Header {
            name,
            value: value as u64,
        },
        other => other,
    })?;
    if layout.control_bytes != control as usize {
        return Err(RegionError::Header {
            name: "control_bytes",
            value: u64::from(control),
        });
    }
    let bytes = mapping.len() as u64;
    if claimed != bytes {
        return Err(RegionError::SizeMismatch { bytes, claimed });
    }
    if layout.region_bytes() as u64 != bytes {
        return Err(RegionError::SizeMismatch {
            bytes,
            claimed: layout.region_bytes() as u64,
        });
    }
    Ok(layout)
}
