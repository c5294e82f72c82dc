//! A block between allocation and commit, written outside of any lock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use crate::{BlockRef, mapping::Mapping};

/// What a slot of the table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    Free,
    /// A [`BlockWriter`] exists.
    Writing,
    /// A record with the block was committed, and the peer has not released it.
    Lent,
}

/// What the arena shares with its writers, which end without its lock: lent, or given back.
#[derive(Debug)]
pub(crate) struct BlockTable {
    states: Box<[AtomicU8]>,
    returned: Mutex<Vec<u32>>,
    any_returned: AtomicBool,
}

impl BlockTable {
    pub(crate) fn new(slots: usize) -> Self {
        let states = (0..slots)
            .map(|_| AtomicU8::new(State::Free as u8))
            .collect();
        Self {
            states,
            returned: Mutex::default(),
            any_returned: AtomicBool::new(false),
        }
    }

    /// Acquire: whoever lent or freed the block did so before what we do next with it.
    pub(crate) fn state(&self, index: u32) -> State {
        match self.states[index as usize].load(Ordering::Acquire) {
            state if state == State::Lent as u8 => State::Lent,
            state if state == State::Writing as u8 => State::Writing,
            _ => State::Free,
        }
    }

    pub(crate) fn set(&self, index: u32, state: State) {
        self.states[index as usize].store(state as u8, Ordering::Release);
    }

    /// Slots whose writers were dropped without a commit.
    pub(crate) fn take_returned(&self) -> Vec<u32> {
        // The flag saves the lock in the common case. A return that it misses is found next time.
        if !self.any_returned.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        self.any_returned.store(false, Ordering::Relaxed);
        std::mem::take(&mut *returned)
    }

    /// Whether a writer was dropped without a commit. One that is just being dropped may be missed.
    pub(crate) fn any_returned(&self) -> bool {
        self.any_returned.load(Ordering::Relaxed)
    }

    fn give_back(&self, index: u32) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push(index);
        self.any_returned.store(true, Ordering::Relaxed);
    }
}

/// A block of the arena to encode into, without any lock and on any thread.
///
/// Dropped before its record is committed, it goes back to the arena.
#[derive(Debug)]
pub struct BlockWriter {
    reference: BlockRef,
    mapping: Arc<Mapping>,
    table: Arc<BlockTable>,
    lent: bool,
}

impl BlockWriter {
    /// # Safety
    /// Nobody else holds a writer of any byte of the block, and `mapping` is this side's own segment,
    /// at least as long as the block claims.
    pub(crate) unsafe fn new(
        reference: BlockRef,
        mapping: Arc<Mapping>,
        table: Arc<BlockTable>,
    ) -> Self {
        table.set(reference.index, State::Writing);
        Self {
            reference,
            mapping,
            table,
            lent: false,
        }
    }

    /// The block's bytes: whatever they held before.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let range = self
            .mapping
            .range(self.reference.offset as usize, self.len());
        // SAFETY: in bounds; this side's own segment, so mapped for writing and written by no other
        // process; initialised, because fresh pages read as zeroes; exclusive, because the arena gives
        // no byte to two writers (`new`) and `&mut self` excludes a second slice of this one.
        unsafe { &mut *range }
    }

    /// The block's length in bytes.
    pub fn len(&self) -> usize {
        self.reference.len as usize
    }

    /// Whether the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.reference.len == 0
    }

    /// Keeps only the first `len` bytes, for encoders that reserve more than they need.
    pub fn truncate(&mut self, len: usize) {
        if let Ok(len) = u32::try_from(len) {
            self.reference.len = self.reference.len.min(len);
        }
    }

    /// What the record will say.
    pub fn reference(&self) -> BlockRef {
        self.reference
    }

    /// Lends the block to the peer: from here on only its release brings it back.
    pub(crate) fn lend(mut self) -> BlockRef {
        // Before the record is published, so that no honest release can come too early.
        self.table.set(self.reference.index, State::Lent);
        self.lent = true;
        self.reference
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if !self.lent {
            self.table.give_back(self.reference.index);
        }
    }
}
