//! One mapping of one memfd, and the few ways to touch it.
//!
//! A writable mapping is of a file that this side created: by its seals nobody else can write it.
//! A read-only mapping is of the peer's file, whose bytes may change at any moment: it is only ever
//! read through atomics of one width per word, or copied out once through raw pointers.

use std::{
    mem::MaybeUninit,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::{
    RegionError,
    budget::Charge,
    copy::{Way, copy_out},
};

/// Has the kernel find the pages at once; other systems map nothing here.
#[cfg(target_os = "linux")]
const POPULATE: MapFlags = MapFlags::POPULATE;
#[cfg(not(target_os = "linux"))]
const POPULATE: MapFlags = MapFlags::empty();

/// Keeps a mapping from forked children.
#[cfg(target_os = "linux")]
const NOT_IN_CHILDREN: Advice = Advice::LinuxDontFork;
#[cfg(not(target_os = "linux"))]
const NOT_IN_CHILDREN: Advice = Advice::Normal;

/// Memory shared with the peer; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// What this side's own file counts for. Dropped after the memory is unmapped.
    charge: Option<Charge>,
}

// SAFETY: a mapping is plain memory owned by this value; it does not care which thread unmaps it.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference the memory is reached by atomics, by `copy_to`, which takes no
// reference into it, or by `range`, a raw pointer for whose use the caller answers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps this side's own file for writing. Must come before the seal against it.
    pub(crate) fn writable(
        file: impl AsFd,
        len: usize,
        populate: bool,
    ) -> Result<Self, RegionError> {
        Self::map(file, len, ProtFlags::READ | ProtFlags::WRITE, populate)
    }

    /// Maps the peer's file. Its seals refuse `mprotect` to anything more.
    pub(crate) fn read_only(
        file: impl AsFd,
        len: usize,
        populate: bool,
    ) -> Result<Self, RegionError> {
        Self::map(file, len, ProtFlags::READ, populate)
    }

    fn map(
        file: impl AsFd,
        len: usize,
        prot: ProtFlags,
        populate: bool,
    ) -> Result<Self, RegionError> {
        let flags = if populate {
            MapFlags::SHARED | POPULATE
        } else {
            MapFlags::SHARED
        };
        // SAFETY: a null hint lets the kernel choose a free range, so nothing that exists is touched.
        let base = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, 0) };
        let base = base.map_err(|errno| RegionError::Map { bytes: len, errno })?;
        let base = NonNull::new(base.cast()).ok_or(RegionError::Map {
            bytes: len,
            errno: rustix::io::Errno::NOMEM,
        })?;
        let mapping = Self {
            base,
            len,
            charge: None,
        };
        // A forked child must not write the same ring: two producers would publish over each other.
        // SAFETY: the range is the mapping just made, and DONTFORK changes nothing in this process.
        unsafe { madvise(mapping.base.as_ptr().cast(), len, NOT_IN_CHILDREN) }
            .map_err(|errno| RegionError::Map { bytes: len, errno })?;
        #[cfg(all(target_os = "linux", not(loom)))]
        crate::fork::note_mapped(mapping.base.as_ptr().cast(), len);
        Ok(mapping)
    }

    /// Has the mapping end what was spent on its file.
    pub(crate) fn charged(self, charge: Charge) -> Self {
        let mut mapping = self;
        mapping.charge = Some(charge);
        mapping
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The 32-bit word at `offset`. Only ever accessed with this width.
    pub(crate) fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        let at = self.word(offset, size_of::<AtomicU32>());
        // SAFETY: `word` checked bounds and alignment; the mapping outlives `&self`, and nobody forms
        // a plain reference to a control word. On a read-only mapping only loads are made (`Peer`).
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// The 64-bit word at `offset`. Only ever accessed with this width.
    pub(crate) fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        let at = self.word(offset, size_of::<AtomicU64>());
        // SAFETY: as for `atomic_u32`.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    fn word(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset.is_multiple_of(bytes) && offset < self.len && self.len - offset >= bytes);
        // SAFETY: `offset` is inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Copies `into.len()` bytes at `offset` out, in one pass.
    ///
    /// # Panics
    /// If the range leaves the mapping: callers have checked the peer's claim before.
    pub(crate) fn copy_to(&self, offset: usize, into: &mut [MaybeUninit<u8>], way: Way) {
        assert!(offset <= self.len && into.len() <= self.len - offset);
        // SAFETY: the source range is inside the mapping (asserted), the target is a private,
        // exclusive slice, so the two cannot overlap. The peer may write the source meanwhile: no
        // reference to it exists, and whatever mixture arrives is treated as untrusted bytes.
        unsafe {
            copy_out(
                way,
                self.base.as_ptr().add(offset),
                into.as_mut_ptr().cast(),
                into.len(),
            )
        };
        // The copy is what gets checked and decoded. After this the compiler must assume that the
        // source has changed, so it cannot read it a second time in place of the copy.
        compiler_fence(Ordering::SeqCst);
    }

    /// Appends `len` bytes at `offset` to a vector, without zeroing its room first.
    pub(crate) fn append_to(&self, offset: usize, len: usize, into: &mut Vec<u8>, way: Way) {
        into.reserve(len);
        self.copy_to(offset, &mut into.spare_capacity_mut()[..len], way);
        let filled = into.len() + len;
        // SAFETY: `copy_to` initialised the `len` bytes after the old length, within the capacity.
        unsafe { into.set_len(filled) };
    }

    /// A range of the mapping, checked. Only the owner of the file may make a reference of it, and
    /// only to bytes that it has to itself.
    pub(crate) fn range(&self, offset: usize, len: usize) -> *mut [u8] {
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: `offset` is inside the mapping or one past its end (asserted).
        ptr::slice_from_raw_parts_mut(unsafe { self.base.as_ptr().add(offset) }, len)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", not(loom)))]
        crate::fork::note_unmapped(self.base.as_ptr().cast());
        // SAFETY: exactly the range that `map` made; `&mut self` proves that no borrow of it is left.
        // A failure would mean that the range is not ours, and there is nothing to do about it here.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
