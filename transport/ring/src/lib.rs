//! Memory regions with one writer each: ring, arena, doorbell.
//!
//! Each of two peers creates a region that it alone can write, and maps the other's read-only. Seals
//! and page tables keep them apart, so nothing here depends on a peer's good will: each word of its
//! is loaded once, checked, and the first impossible one ends the [`Endpoint`] with a [`Corrupt`]
//! that names it. There is no runtime and no socket here; descriptors and doorbells are the caller's.
//!
//! Beside the regions stand two structs about threads, [`SidePosture`] and [`DriverRole`]: loom checks them together
//! with the doorbell.
//!
//! Start reading at [`Endpoint`]. This crate holds all of the project's `unsafe` that concerns memory.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "no region is ever made on other systems")
)]
#![cfg_attr(
    loom,
    allow(dead_code, reason = "loom's models replace the mapped regions")
)]

mod arena;
mod budget;
mod consumer;
mod copy;
mod doorbell;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod failpoint;
#[cfg_attr(not(target_os = "linux"), path = "unwatched.rs")]
mod file_watch;
#[cfg(all(target_os = "linux", not(loom)))]
mod fork;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod fuzzed;
mod layout;
mod mapping;
mod memory;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod mock;
mod peer_arena;
mod poison;
mod pool;
mod posture;
#[cfg(all(target_os = "linux", not(loom)))]
mod probe;
mod producer;
mod record;
#[cfg(not(loom))]
mod region;
mod release;
mod role;
mod rope;
#[cfg_attr(not(target_os = "linux"), path = "unsealed.rs")]
mod sealed;
mod sync;

#[cfg(test)]
mod tests;

pub use arena::{Arena, ArenaConfig, BlockWriter, Filling, NewSegment};
pub use budget::{BudgetLimits, MemoryBudget};
pub use consumer::{Consumer, Inbox, Peek};
pub use doorbell::{PeerSleep, SleepPosture, SleepWord};
pub use endpoint::{Endpoint, EndpointConfig};
pub use error::{ArenaError, Corrupt, RegionError, ReserveError};
pub use layout::{RegionConfig, RegionLimits};
pub use peer_arena::{Block, BlockCopy, PeerArena, SegmentLimits};
pub use pool::{BufferPool, PooledBuffer};
pub use posture::{Announce, SidePosture};
#[cfg(all(target_os = "linux", not(loom)))]
pub use probe::{MemoryStep, probe_memory};
pub use producer::{Batch, Position, Producer, Reservation, RoomPeek};
pub use record::{BLOCK_REF_BYTES, BlockRef, Record, Records, SegmentId, records};
#[cfg(not(loom))]
pub use region::{OwnRegion, PeerRegion};
pub use role::{DriverRole, RoleSnapshot};
pub use rope::Rope;
#[cfg(not(loom))]
pub use sealed::check_file_size_limit;
