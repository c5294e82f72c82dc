//! How much memory the peers of one user may take up: what is made for them and they have not given back, and what
//! this side holds of what they sent.
//!
//! The kernel frees a memory file when the last process closes it, and charges it to the one that made it. A peer may
//! keep a file that was retired, or those of a connection that has ended. So a file counts until the kernel has
//! freed it, and a budget that is used up makes no more. The peer need not say that it has let go of it: see
//! [`file_watch`](crate::file_watch).

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{RegionError, file_watch};

/// Bounds a [`MemoryBudget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BudgetLimits {
    /// Bytes of all files.
    pub max_bytes: usize,
    /// Files: each takes a watch of inotify(7).
    pub max_files: usize,
}

/// The memory of the peers of one user: regions and segments of all their connections, and what they have sent and
/// this side holds.
///
/// ```
/// # use std::sync::Arc;
/// use ringway_ring::{BudgetLimits, MemoryBudget, OwnRegion, RegionConfig};
///
/// # fn main() -> Result<(), ringway_ring::RegionError> {
/// let limits = BudgetLimits { max_bytes: 64 * 1024, max_files: 8 };
/// let budget = Arc::new(MemoryBudget::new(limits));
/// let region = OwnRegion::create_within(&RegionConfig::default(), &budget)?;
/// assert!(OwnRegion::create_within(&RegionConfig::default(), &budget).is_err());
/// drop(region);
/// assert!(OwnRegion::create_within(&RegionConfig::default(), &budget).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryBudget {
    limits: BudgetLimits,
    /// The budget of which this one is a part.
    whole: Option<Arc<MemoryBudget>>,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    bytes: usize,
    /// The files that the kernel has not freed, by number.
    files: HashMap<u64, File>,
    /// The number of the next file.
    number: u64,
}

#[derive(Debug)]
struct File {
    bytes: usize,
    /// This side is done with it.
    is_closed: bool,
}

impl MemoryBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            whole: None,
            spent: Mutex::default(),
        }
    }

    /// A budget whose bytes are taken of `whole` as well, which several users share.
    #[must_use]
    pub fn part_of(whole: Arc<Self>, limits: BudgetLimits) -> Self {
        Self {
            whole: Some(whole),
            ..Self::new(limits)
        }
    }

    /// Bytes of all files that are in use at either side, and of what this side holds, as of the last
    /// [`settle`](Self::settle).
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.spent().bytes
    }

    /// Bytes of the files that peers keep though this side is done with them, as of the last [`settle`](Self::settle).
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.spent().kept_bytes()
    }

    /// Has all budgets of this process take note of what peers have given back since the last time.
    pub fn settle() {
        file_watch::settle();
    }

    /// Spends so much on what this side holds of its own memory; false if there is not so much left.
    #[must_use]
    pub fn spend(&self, bytes: usize) -> bool {
        self.spend_what_is_left(bytes) || {
            file_watch::settle();
            self.spend_what_is_left(bytes)
        }
    }

    fn spend_what_is_left(&self, bytes: usize) -> bool {
        // The part's lock is held while the whole's is taken, never the other way round.
        let mut spent = self.spent();
        let fits =
            spent.bytes.saturating_add(bytes) <= self.limits.max_bytes && self.whole_spends(bytes);
        if fits {
            spent.bytes += bytes;
        }
        fits
    }

    fn whole_spends(&self, bytes: usize) -> bool {
        let whole = self.whole.as_ref();
        whole.is_none_or(|whole| whole.spend_what_is_left(bytes))
    }

    /// Gives back so much of what was spent by [`spend`](Self::spend).
    pub fn give_back(&self, bytes: usize) {
        self.spent().bytes -= bytes;
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }

    /// Spends so much on a file that is to be made.
    ///
    /// # Errors
    /// `OverBudget`, `OverWholeBudget`.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, RegionError> {
        self.charge_what_is_left(bytes).or_else(|_| {
            file_watch::settle();
            self.charge_what_is_left(bytes)
        })
    }

    fn charge_what_is_left(self: &Arc<Self>, bytes: usize) -> Result<Charge, RegionError> {
        let mut spent = self.spent();
        if !spent.leaves_room(bytes, &self.limits) {
            return Err(RegionError::OverBudget {
                bytes,
                used: spent.bytes,
                files: spent.files.len(),
                kept: spent.kept_bytes(),
                limits: self.limits,
            });
        }
        if !self.whole_spends(bytes) {
            let limits = self.whole.as_ref().map(|whole| whole.limits);
            let limit = limits.map_or(0, |limits| limits.max_bytes);
            return Err(RegionError::OverWholeBudget { bytes, limit });
        }
        let file = spent.number;
        spent.number += 1;
        spent.bytes += bytes;
        let is_closed = false;
        spent.files.insert(file, File { bytes, is_closed });
        Ok(Charge {
            budget: Arc::clone(self),
            file,
            is_watched: false,
        })
    }

    /// Takes note that no process has that file any more.
    pub(crate) fn note_gone(&self, file: u64) {
        let gone = self.spent().files.remove(&file);
        if let Some(File { bytes, .. }) = gone {
            self.give_back(bytes);
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        // Nothing below leaves it half changed.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    fn leaves_room(&self, bytes: usize, limits: &BudgetLimits) -> bool {
        self.files.len() < limits.max_files && self.bytes.saturating_add(bytes) <= limits.max_bytes
    }

    fn kept_bytes(&self) -> usize {
        let files = self.files.values();
        files
            .filter(|file| file.is_closed)
            .map(|file| file.bytes)
            .sum()
    }
}

/// Holds what one file has taken of a budget as long as this side has it; then the budget does, until it is gone.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<MemoryBudget>,
    file: u64,
    /// The kernel tells when the file is gone.
    is_watched: bool,
}

impl Charge {
    /// Has the file stay charged until the kernel tells that it is gone, where it can.
    pub(crate) fn watch(&mut self, file: impl AsFd) {
        self.is_watched = file_watch::watch(file, &self.budget, self.file);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.is_watched {
            return self.budget.note_gone(self.file);
        }
        if let Some(file) = self.budget.spent().files.get_mut(&self.file) {
            file.is_closed = true;
        }
    }
}

#[cfg(all(test, target_os = "linux", not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        os::fd::OwnedFd,
        time::{Duration, Instant},
    };

    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::{
        ArenaConfig, ArenaError, Endpoint, EndpointConfig, OwnRegion, PeerRegion, RegionConfig,
        RegionLimits, mapping::Mapping, sealed,
    };

    const BYTES: usize = 65_536;

    fn budget(max_bytes: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget::new(BudgetLimits {
            max_bytes,
            max_files: 64,
        }))
    }

    /// Settles, and returns the bytes of `budget` that are used and those that peers keep.
    fn settled(budget: &MemoryBudget) -> (usize, usize) {
        MemoryBudget::settle();
        (budget.used_bytes(), budget.kept_bytes())
    }

    fn file(budget: &Arc<MemoryBudget>) -> Result<(Mapping, OwnedFd), RegionError> {
        sealed::create("budget", BYTES, false, Some(budget))
    }

    #[test]
    fn what_a_peer_keeps_stays_charged() {
        let budget = budget(2 * BYTES);
        let (mapping, sent) = file(&budget).unwrap();
        drop(mapping);
        assert_eq!(settled(&budget), (BYTES, BYTES));
        let mapped = Mapping::read_only(&sent, BYTES, false).unwrap();
        drop(sent);
        assert_eq!(
            settled(&budget),
            (BYTES, BYTES),
            "a mapping is enough to keep it"
        );
        let other = file(&budget).unwrap();
        let refused = file(&budget).unwrap_err().to_string();
        assert!(refused.contains("max_memory_per_uid"), "{refused}");
        assert!(
            refused.contains(&format!("{BYTES} were given up")),
            "{refused}"
        );
        drop(mapped);
        let _again = file(&budget).expect("what was given back is spent again");
        drop(other);
        assert_eq!(settled(&budget), (BYTES, 0));
    }

    #[test]
    fn a_descriptor_on_its_way_is_kept() {
        let budget = budget(BYTES);
        let (mapping, sent) = file(&budget).unwrap();
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = rustix::net::SendAncillaryBuffer::new(&mut space);
        let sent_as = [sent.as_fd()];
        assert!(message.push(rustix::net::SendAncillaryMessage::ScmRights(&sent_as)));
        rustix::net::sendmsg(
            &left,
            &[std::io::IoSlice::new(b"x")],
            &mut message,
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        drop((mapping, sent));
        assert_eq!(settled(&budget), (BYTES, BYTES));
        drop((left, right));
        assert_eq!(settled(&budget), (0, 0));
    }

    /// One that permits nothing is enough to open the file again.
    #[test]
    fn a_descriptor_that_is_opened_again_is_kept() {
        for flags in [OFlags::RDWR, OFlags::PATH] {
            let budget = budget(BYTES);
            let (mapping, sent) = file(&budget).unwrap();
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sent));
            let reopened = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
            drop((mapping, sent));
            assert_eq!(settled(&budget), (BYTES, BYTES), "{flags:?}");
            drop(reopened);
            assert_eq!(settled(&budget), (0, 0), "{flags:?}");
        }
    }

    #[test]
    fn several_users_share_a_whole() {
        let whole = budget(2 * BYTES);
        let part = || {
            let limits = BudgetLimits {
                max_bytes: 2 * BYTES,
                max_files: 64,
            };
            Arc::new(MemoryBudget::part_of(Arc::clone(&whole), limits))
        };
        let (one, other) = (part(), part());
        let held = file(&one).unwrap();
        assert!(other.spend(BYTES));
        assert!(!one.spend(1) && !other.spend(1));
        let refused = file(&one).unwrap_err().to_string();
        assert!(refused.contains("all users"), "{refused}");
        assert_eq!((one.used_bytes(), other.used_bytes()), (BYTES, BYTES));
        other.give_back(BYTES);
        let more = file(&one).unwrap();
        drop((held, more));
        assert!(other.spend(2 * BYTES), "what is gone is everybody's again");
    }

    #[test]
    fn files_are_bounded_as_bytes_are() {
        let limits = BudgetLimits {
            max_bytes: usize::MAX,
            max_files: 2,
        };
        let budget = Arc::new(MemoryBudget::new(limits));
        let held = (file(&budget).unwrap(), file(&budget).unwrap());
        let refused = file(&budget).unwrap_err().to_string();
        assert!(refused.contains("RLIMIT_NOFILE"), "{refused}");
        drop(held);
        file(&budget).unwrap();
    }

    #[test]
    fn an_arena_waits_for_its_own_blocks_and_fails_without_any() {
        let region = RegionConfig {
            ring_bytes: 4096,
            release_slots: 16,
        };
        let arena = ArenaConfig {
            segment_bytes: BYTES,
            max_block_bytes: 2 * BYTES,
            max_total_bytes: 8 * BYTES,
        };
        let config = EndpointConfig {
            region,
            arena,
            ..EndpointConfig::default()
        };
        let theirs = OwnRegion::create(&config.region).unwrap();
        let probe = budget(usize::MAX);
        let region_bytes = {
            let _region = OwnRegion::create_within(&config.region, &probe).unwrap();
            probe.used_bytes()
        };
        let budget = budget(region_bytes + BYTES);
        let own = OwnRegion::create_within(&config.region, &budget).unwrap();
        let theirs = theirs.descriptor().try_clone_to_owned().unwrap();
        let peer = PeerRegion::map(theirs, &RegionLimits::default()).unwrap();
        let mut here = Endpoint::join(own, peer, &config).unwrap();
        let block = here.arena.allocate(BYTES).unwrap();
        assert!(matches!(
            here.arena.allocate(BYTES),
            Err(ArenaError::Exhausted)
        ));
        assert!(matches!(
            here.arena.allocate(2 * BYTES),
            Err(ArenaError::Memory(RegionError::OverBudget { .. }))
        ));
        drop(block);
        let block = here.arena.allocate(BYTES).unwrap();
        let sent = here.arena.new_segments();
        drop(block);
        let idle = Duration::from_secs(1);
        let now = Instant::now();
        here.arena.trim(now, idle).unwrap();
        assert_eq!(here.arena.trim(now + idle, idle).unwrap().len(), 1);
        assert_eq!(settled(&budget).1, BYTES, "retired, and kept");
        assert!(here.arena.allocate(BYTES).is_err());
        drop(sent);
        here.arena.allocate(BYTES).unwrap();
        drop(here);
        assert_eq!(settled(&budget).0, 0);
    }
}
