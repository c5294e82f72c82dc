//! The stock behind one door, wherever it is kept.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskError};
use crate::memory::MemoryBook;
use crate::rules::{self, Book, Line, Refusal};

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The rules of stock forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk does not keep up, or the service ends.
    #[error("the inventory is too busy: try again in a moment")]
    Busy,
    /// The disk failed.
    #[error("the stock can't be read or written: {0}")]
    Disk(String),
}

impl Failure {
    pub(crate) fn disk(error: impl Into<redb::Error>) -> Self {
        Self::Disk(error.into().to_string())
    }
}

/// A change of stock, to be done at once or together with others.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Seconds of Unix time.
    pub(crate) now_s: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Reserve { order: u64, lines: Vec<Line> },
    Commit { order: u64 },
    Release { order: u64 },
    Restock { lines: Vec<Line> },
    Sweep,
}

impl Operation {
    pub(crate) fn apply<B: Book>(self, book: &mut B) -> Result<(), B::Error> {
        match self.action {
            Action::Reserve { order, lines } => rules::reserve(book, self.now_s, order, lines),
            Action::Commit { order } => rules::commit(book, order),
            Action::Release { order } => rules::release(book, self.now_s, order),
            Action::Restock { lines } => rules::restock(book, &lines),
            Action::Sweep => rules::sweep(book, self.now_s),
        }
    }
}

/// Stock and reservations.
#[derive(Debug)]
pub(crate) enum Ledger {
    Memory(Mutex<MemoryBook>),
    Disk(Disk),
}

impl Ledger {
    pub(crate) fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// True if it is new.
    pub(crate) fn on_disk(directory: &Path) -> Result<(Self, bool), DiskError> {
        let (disk, new) = Disk::open(directory)?;
        Ok((Self::Disk(disk), new))
    }

    pub(crate) async fn apply(&self, action: Action) -> Result<(), Failure> {
        self.apply_at(now_s(), action).await
    }

    pub(crate) async fn apply_at(&self, now_s: u64, action: Action) -> Result<(), Failure> {
        let operation = Operation { now_s, action };
        match self {
            Self::Memory(book) => Ok(operation.apply(&mut *book.lock())?),
            Self::Disk(disk) => disk.apply(operation).await,
        }
    }

    /// `None` for what was never stocked.
    pub(crate) fn levels(&self, products: &[u32]) -> Result<Vec<Option<u32>>, Failure> {
        match self {
            Self::Memory(book) => {
                let book = book.lock();
                Ok(products
                    .iter()
                    .map(|&product| book.available(product))
                    .collect::<Result<_, _>>()?)
            }
            Self::Disk(disk) => disk.levels(products),
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
