//! One side of a connection: its own region and the peer's, taken apart into what may be locked apart.

use std::sync::Arc;

use crate::{
    Arena, ArenaConfig, BufferPool, Consumer, MemoryBudget, PeerArena, Producer, RegionConfig,
    RegionLimits, SegmentLimits,
    memory::{Own, OwnRing, Peer},
    poison::Poison,
    release::{ReleaseList, ReleaseReader},
};
#[cfg(not(loom))]
use crate::{OwnRegion, PeerRegion, RegionError};

/// All sizes and limits of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The region that this side creates.
    pub region: RegionConfig,
    /// What it accepts as the peer's.
    pub region_limits: RegionLimits,
    /// The arena that this side creates.
    pub arena: ArenaConfig,
    /// What it accepts as the peer's.
    pub segment_limits: SegmentLimits,
}

/// Both directions of a connection. The parts are independent: each goes behind its own lock.
///
/// ```
/// use std::os::fd::AsFd;
/// use ringway_ring::{Endpoint, EndpointConfig, Inbox, OwnRegion, PeerRegion};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = EndpointConfig::default();
/// let ours = OwnRegion::create(&config.region)?;
/// let theirs = OwnRegion::create(&config.region)?;
///
/// // In earnest the descriptors cross a Unix socket.
/// let (ours_sent, theirs_sent) =
///     (ours.descriptor().try_clone_to_owned()?, theirs.descriptor().try_clone_to_owned()?);
/// let mut here = Endpoint::join(ours, PeerRegion::map(theirs_sent, &config.region_limits)?, &config)?;
/// let mut there = Endpoint::join(theirs, PeerRegion::map(ours_sent, &config.region_limits)?, &config)?;
///
/// let mut batch = here.producer.batch();
/// for word in ["two", "records"] {
///     let mut reservation = batch.reserve(word.len())?;
///     reservation.copy_from_slice(word.as_bytes());
///     reservation.commit();
/// }
/// if batch.publish() {
///     // The peer sleeps: write to its eventfd.
/// }
///
/// let mut inbox = Inbox::default();
/// there.consumer.take(&mut inbox)?;
/// let mut records = inbox.records();
/// assert_eq!(records.next().transpose()?.map(|record| record.bytes), Some(&b"two"[..]));
/// assert_eq!(records.next().transpose()?.map(|record| record.bytes), Some(&b"records"[..]));
/// assert!(records.next().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Endpoint {
    /// Writes records for the peer.
    pub producer: Producer,
    /// Reads the peer's records.
    pub consumer: Consumer,
    /// Allocates blocks for payloads too large for a record.
    pub arena: Arena,
    /// Reads the peer's blocks.
    pub peer_arena: PeerArena,
    /// Private buffers for what is copied out of blocks.
    pub pool: BufferPool,
}

#[cfg(not(loom))]
impl Endpoint {
    /// Joins this side's region with the peer's.
    ///
    /// # Errors
    /// If the two are one.
    pub fn join(
        own: OwnRegion,
        peer: PeerRegion,
        config: &EndpointConfig,
    ) -> Result<Self, RegionError> {
        Self::join_at(own, peer, config, 0)
    }

    /// The same with cursors that start where [`OwnRegion::create_at`] put them.
    pub(crate) fn join_at(
        own: OwnRegion,
        peer: PeerRegion,
        config: &EndpointConfig,
        start: u64,
    ) -> Result<Self, RegionError> {
        if own.file == peer.file {
            return Err(RegionError::SameRegion);
        }
        // SAFETY: `join` consumes the `OwnRegion`, which was the only one of its memory.
        let ring = unsafe { OwnRing::new(own.memory.clone()) };
        Ok(Self::assemble(
            Own(own.memory),
            ring,
            Peer(peer.memory),
            own.budget,
            config,
            start,
        ))
    }

    /// Two endpoints joined to each other in one process, for tests, examples and benchmarks.
    ///
    /// # Errors
    /// If the configuration is impossible or the kernel refuses the memory.
    pub fn pair(config: &EndpointConfig) -> Result<(Self, Self), RegionError> {
        Self::pair_at(config, 0)
    }

    pub(crate) fn pair_at(
        config: &EndpointConfig,
        start: u64,
    ) -> Result<(Self, Self), RegionError> {
        let (left, right) = (
            OwnRegion::create_at(&config.region, start, None)?,
            OwnRegion::create_at(&config.region, start, None)?,
        );
        let map = |region: &OwnRegion| {
            let descriptor = rustix::io::fcntl_dupfd_cloexec(region.descriptor(), 0)
                .map_err(RegionError::Inspect)?;
            PeerRegion::map(descriptor, &config.region_limits)
        };
        let (left_seen, right_seen) = (map(&left)?, map(&right)?);
        Ok((
            Self::join_at(left, right_seen, config, start)?,
            Self::join_at(right, left_seen, config, start)?,
        ))
    }
}

impl Endpoint {
    fn assemble(
        own: Own,
        ring: OwnRing,
        peer: Peer,
        budget: Option<Arc<MemoryBudget>>,
        config: &EndpointConfig,
        start: u64,
    ) -> Self {
        let poison = Poison::default();
        Self {
            producer: Producer::new(own.clone(), ring, peer.clone(), poison.clone(), start),
            consumer: Consumer::new(own.clone(), peer.clone(), poison.clone(), start),
            arena: Arena::new(
                config.arena,
                ReleaseReader::new(peer),
                poison.clone(),
                budget,
            ),
            peer_arena: PeerArena::new(config.segment_limits, ReleaseList::new(own), poison),
            pool: BufferPool::default(),
        }
    }

    /// Two endpoints over memory that loom follows.
    #[cfg(loom)]
    pub(crate) fn modelled_pair(ring_bytes: usize, release_slots: usize) -> (Self, Self) {
        use crate::memory::RegionMemory;

        let memory = || Arc::new(RegionMemory::new(ring_bytes, release_slots));
        let (left, right) = (memory(), memory());
        let join = |own: &Arc<RegionMemory>, peer: &Arc<RegionMemory>| {
            // SAFETY: called once for each of the two regions made above.
            let ring = unsafe { OwnRing::new(Arc::clone(own)) };
            let config = EndpointConfig::default();
            Self::assemble(
                Own(Arc::clone(own)),
                ring,
                Peer(Arc::clone(peer)),
                None,
                &config,
                0,
            )
        };
        (join(&left, &right), join(&right, &left))
    }
}
