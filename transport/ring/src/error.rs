//! Every way in which memory can be refused, each named after the culprit.

use rustix::io::Errno;

use crate::{BudgetLimits, record::SegmentId};

/// A word or record of the peer's that no honest peer writes.
///
/// The first one poisons the endpoint: producer, consumer and both arenas return it from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// The producer index claims more bytes than the ring holds.
    #[error("producer index {index} is more than {ring_bytes} bytes past the cursor {cursor}")]
    ProducerIndexBeyondRing {
        /// The peer's index, in bytes since the start.
        index: u64,
        /// What this side has consumed.
        cursor: u64,
        /// The ring's size.
        ring_bytes: u64,
    },
    /// The producer index is smaller than what was already consumed.
    #[error("producer index moved back to {index}, behind the cursor {cursor}")]
    ProducerIndexMovedBack {
        /// The peer's index.
        index: u64,
        /// What this side has consumed.
        cursor: u64,
    },
    /// The producer index does not stand at a record's boundary.
    #[error("producer index {index} is not a multiple of 8")]
    ProducerIndexUnaligned {
        /// The peer's index.
        index: u64,
    },
    /// The peer claims to have consumed what was never published.
    #[error("consumer cursor {cursor} is ahead of the published index {published}")]
    ConsumerCursorAhead {
        /// The peer's cursor.
        cursor: u64,
        /// What this side has published.
        published: u64,
    },
    /// The peer takes back what it had consumed.
    #[error("consumer cursor moved back to {cursor} from {seen}")]
    ConsumerCursorMovedBack {
        /// The peer's cursor.
        cursor: u64,
        /// The cursor seen before.
        seen: u64,
    },
    /// The peer's cursor does not stand at a record's boundary.
    #[error("consumer cursor {cursor} is not a multiple of 8")]
    ConsumerCursorUnaligned {
        /// The peer's cursor.
        cursor: u64,
    },
    /// A record claims more bytes than were published, or than remain before the ring's end.
    #[error("record at {position} claims {len} bytes where {available} are possible")]
    RecordLength {
        /// Where the record starts, in bytes since the start.
        position: u64,
        /// Its claim, header not counted.
        len: u32,
        /// What it could have at most.
        available: usize,
    },
    /// A record carries flags that have no meaning, or contradict each other.
    #[error("record at {position} has the flags {flags:#x}")]
    RecordFlags {
        /// Where the record starts.
        position: u64,
        /// The flags.
        flags: u32,
    },
    /// Padding that does not end exactly at the ring's end.
    #[error("padding of {len} bytes at {position} does not reach the end of the ring")]
    PadMisplaced {
        /// Where the padding starts.
        position: u64,
        /// Its claim, header not counted.
        len: u32,
    },
    /// A block reference whose reserved word is not zero.
    #[error("block reference at {position} has the reserved word {reserved:#x}")]
    BlockReserved {
        /// Where the record starts.
        position: u64,
        /// The word.
        reserved: u32,
    },
    /// A block of which less is filled than before, or more than it has.
    #[error("{filled} bytes of a block are said to be filled, after {copied}, of {len}")]
    BlockFilling {
        /// What the peer says now.
        filled: u32,
        /// What was copied so far.
        copied: usize,
        /// The block's length.
        len: u32,
    },
    /// A block in a segment that this side does not hold.
    #[error("block refers to {segment}, which is not mapped")]
    BlockSegmentUnknown {
        /// The segment.
        segment: SegmentId,
    },
    /// A block that leaves its segment.
    #[error("block at {offset} of {len} bytes leaves {segment} of {segment_bytes} bytes")]
    BlockOutOfRange {
        /// The segment.
        segment: SegmentId,
        /// Offset of the block's first byte.
        offset: u32,
        /// The block's length.
        len: u32,
        /// The segment's length.
        segment_bytes: usize,
    },
    /// The release index claims more releases than blocks can be out.
    #[error("release index {index} is more than {slots} past {read}")]
    ReleaseIndexJumped {
        /// The peer's index.
        index: u64,
        /// How many releases were read before.
        read: u64,
        /// The list's capacity.
        slots: u64,
    },
    /// The release index went back.
    #[error("release index moved back to {index} from {read}")]
    ReleaseIndexMovedBack {
        /// The peer's index.
        index: u64,
        /// How many releases were read before.
        read: u64,
    },
    /// A release of a block that the table does not have.
    #[error("release of block {index}, of a table of {slots}")]
    ReleaseUnknownBlock {
        /// The block's index.
        index: u32,
        /// The table's size.
        slots: usize,
    },
    /// A release of a former life of a block: released twice, or invented.
    #[error("release of block {index} with generation {generation}, which is not the current one")]
    ReleaseStale {
        /// The block's index.
        index: u32,
        /// The generation released.
        generation: u32,
    },
    /// A release of a block that the peer was never lent.
    #[error("release of block {index}, which is not lent")]
    ReleaseNotLent {
        /// The block's index.
        index: u32,
    },
}

/// Why a region or segment was not created, or the peer's was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A size in the configuration that the layout cannot have.
    #[error("{name} of {value} is not a power of two between {min} and {max}")]
    Config {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Smallest possible.
        min: usize,
        /// Largest possible.
        max: usize,
    },
    /// The kernel gave no memory file.
    #[error("memfd_create failed: {0}{advice}", advice = advice(*.0))]
    Create(Errno),
    /// The kernel gave no pages (ENOSPC, ENOMEM: a full tmpfs, a container's limit).
    #[error("allocating {bytes} bytes failed: {errno}")]
    Allocate {
        /// How much was asked for.
        bytes: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The process may not make files of this size: to try would end it by SIGXFSZ.
    #[error(
        "this process may make files of at most {limit} bytes (RLIMIT_FSIZE, systemd's LimitFSIZE=), and shared memory takes {bytes}: raise the limit"
    )]
    FileSizeLimit {
        /// How much is needed.
        bytes: usize,
        /// The limit.
        limit: u64,
    },
    /// The peers of this user have used up what they may have of this side's memory.
    #[error(
        "{bytes} bytes of shared memory more for the processes of that user would exceed the budget of {} bytes and {} \
         files: {used} bytes in {files} files are in use, of which {kept} were given up here and are still held by a \
         peer; raise max_memory_per_uid, or RLIMIT_NOFILE (ulimit -n) where the files are used up",
        limits.max_bytes,
        limits.max_files
    )]
    OverBudget {
        /// How much was asked for.
        bytes: usize,
        /// What is in use.
        used: usize,
        /// The files that these are.
        files: usize,
        /// What of it peers keep though this side is done with it.
        kept: usize,
        /// The budget.
        limits: BudgetLimits,
    },
    /// The peers of all users have used up what they may have of this side's memory together.
    #[error(
        "{bytes} bytes of shared memory more would exceed the {limit} bytes that the processes of all users may take of \
         this one's memory together, which is half of it: let fewer users in, lower max_memory_per_uid, or raise the \
         memory limit of this process"
    )]
    OverWholeBudget {
        /// The bytes that a connection asked for.
        bytes: usize,
        /// The bytes that the peers of all users may take up together.
        limit: usize,
    },
    /// The seals could not be set.
    #[error("sealing failed: {0}")]
    Seal(String),
    /// The memory could not be mapped.
    #[error("mapping {bytes} bytes failed: {errno}")]
    Map {
        /// How much was asked for.
        bytes: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The descriptor is not a memfd at all: a file of another kind, a pipe, a socket, a device.
    #[error("not a memfd: reading its seals failed: {0}")]
    NotMemfd(Errno),
    /// The peer could still shrink, grow, write or unseal it.
    #[cfg(target_os = "linux")]
    #[error("seals missing: {0:?}")]
    SealsMissing(rustix::fs::SealFlags),
    /// Sealed against its own owner, so nobody could ever write it.
    #[error("sealed against all writing")]
    WriteSealed,
    /// Not on tmpfs: hugetlbfs, where a touch may raise SIGBUS, or something else.
    #[error("file system type {0:#x} is not tmpfs")]
    NotTmpfs(u64),
    /// Not a regular file.
    #[error("not a regular file (mode {0:#o})")]
    NotRegular(u32),
    /// The kernel did not answer about the descriptor.
    #[error("inspecting the descriptor failed: {0}")]
    Inspect(Errno),
    /// Larger than this side is willing to map.
    #[error("{bytes} bytes exceed the limit of {limit}")]
    TooLarge {
        /// The file's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Too small to hold even the control page.
    #[error("{bytes} bytes are less than the control page")]
    TooSmall {
        /// The file's size.
        bytes: u64,
    },
    /// The file is not as large as its owner claims.
    #[error("{bytes} bytes where {claimed} are claimed")]
    SizeMismatch {
        /// The file's size.
        bytes: u64,
        /// The claim.
        claimed: u64,
    },
    /// Not every page is allocated, so that a touch could fail.
    #[error("{allocated} of {bytes} bytes are allocated")]
    NotAllocated {
        /// What is allocated.
        allocated: u64,
        /// The file's size.
        bytes: u64,
    },
    /// The header does not start with the magic number.
    #[error("magic number {0:#x} is not a region's")]
    Magic(u64),
    /// The layout is of another version.
    #[error("layout version {found}, expected {expected}")]
    Version {
        /// The peer's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A size in the header that no region has.
    #[error("header: {name} of {value} is impossible")]
    Header {
        /// Which word.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// The peer offered this side's own region as its own.
    #[error("the peer's region is this side's own")]
    SameRegion,
    /// A segment id that is already in use.
    #[error("{0} is already mapped")]
    SegmentInUse(SegmentId),
    /// More segments than this side is willing to hold.
    #[error("more than {limit} segments")]
    TooManySegments {
        /// The limit.
        limit: usize,
    },
    /// More bytes in all segments than this side is willing to map.
    #[error("segments of {bytes} bytes together exceed the limit of {limit}")]
    TooManyBytes {
        /// What it would come to.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Why a record could not be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The peer has not consumed enough yet.
    #[error("the ring is full")]
    Full,
    /// No amount of waiting makes it fit.
    #[error("{len} bytes exceed the largest record of {max}")]
    TooLarge {
        /// What was asked for.
        len: usize,
        /// The most that a record can hold inline.
        max: usize,
    },
    /// The peer broke the rules; this endpoint is over.
    #[error("the endpoint is poisoned: {0}")]
    Poisoned(#[from] Corrupt),
}

/// Why a block could not be allocated.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// Everything is lent out: wait for releases.
    #[error("the arena is exhausted")]
    Exhausted,
    /// No amount of waiting makes it fit: send it in pieces.
    #[error("{len} bytes exceed the largest block of {max}")]
    TooLarge {
        /// What was asked for.
        len: usize,
        /// The most that a block can hold.
        max: usize,
    },
    /// No segment is there with so much room, and the peer can't take another one.
    #[error("no segment is there with room for {len} bytes")]
    NoSegment {
        /// What was asked for.
        len: usize,
    },
    /// The kernel gave no memory for another segment.
    #[error("no memory for another segment: {0}")]
    Memory(#[source] RegionError),
    /// The peer broke the rules; this endpoint is over.
    #[error("the endpoint is poisoned: {0}")]
    Poisoned(#[from] Corrupt),
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE => "; raise this process's RLIMIT_NOFILE (ulimit -n), or have it open less",
        _ => "",
    }
}
