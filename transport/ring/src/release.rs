//! The release list: which blocks of the peer's arena this side has done with.
//!
//! It cannot overflow between honest peers: an entry that was not read yet stands for a block that
//! the owner still counts as lent, and the owner lends no more blocks than the list has slots.

use std::sync::Arc;

use crate::{
    Corrupt,
    failpoint::{self, Step},
    memory::{Own, Peer},
    sync::Mutex,
};

/// This side's list, shared by everybody who may be the last to need a block.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseList {
    own: Own,
    /// How many entries were written; the lock keeps entries and index in step.
    written: Arc<Mutex<u64>>,
}

impl ReleaseList {
    pub(crate) fn new(own: Own) -> Self {
        Self {
            own,
            written: Arc::new(Mutex::new(0)),
        }
    }

    pub(crate) fn push(&self, entry: u64) {
        // Nothing in the critical section panics, so a poisoned lock still holds a true count.
        let mut written = self
            .written
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        self.own
            .write_release(slot(*written, self.own.layout().release_slots), entry);
        *written = written.wrapping_add(1);
        failpoint::reached(Step::Releasing);
        // Release: the entry is there, and our reads of the block are over, before the index says so.
        self.own.publish_release_index(*written);
    }
}

/// The peer's list, read by the owner of the blocks.
#[derive(Debug)]
pub(crate) struct ReleaseReader {
    peer: Peer,
    read: u64,
}

impl ReleaseReader {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, read: 0 }
    }

    pub(crate) fn slots(&self) -> usize {
        self.peer.layout().release_slots
    }

    pub(crate) fn has_releases(&self) -> bool {
        self.peer.release_index() != self.read
    }

    /// Hands each new entry, copied once, to `accept`. Bounded by the list's size.
    pub(crate) fn read(
        &mut self,
        mut accept: impl FnMut(u64) -> Result<(), Corrupt>,
    ) -> Result<usize, Corrupt> {
        // Acquire: the peer's reads of a block come before our next writes to it.
        let index = self.peer.release_index();
        let count = self.checked(index)?;
        for _ in 0..count {
            accept(self.peer.release(slot(self.read, self.slots())))?;
            self.read = self.read.wrapping_add(1);
        }
        Ok(count)
    }

    fn checked(&self, index: u64) -> Result<usize, Corrupt> {
        let (read, slots) = (self.read, self.slots());
        let count = index.wrapping_sub(read);
        if count > u64::MAX / 2 {
            return Err(Corrupt::ReleaseIndexMovedBack { index, read });
        }
        let count = usize::try_from(count).ok().filter(|count| *count <= slots);
        count.ok_or(Corrupt::ReleaseIndexJumped {
            index,
            read,
            slots: slots as u64,
        })
    }
}

/// Entries go round the list; its size is a power of two.
fn slot(count: u64, slots: usize) -> usize {
    crate::layout::ring_offset(count, slots)
}
