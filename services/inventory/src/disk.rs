//! Stock in a redb file: what was answered is on disk.
//!
//! One thread owns the database. It takes all operations that wait and writes
//! them in one transaction, so that many orders share the price of one sync.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::{fs, io};

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};
use tokio::sync::oneshot;

use crate::ledger::{Failure, Operation};
use crate::rules::{Book, Line, Reservation, State};

const STOCK: TableDefinition<'_, u32, u32> = TableDefinition::new("stock");
const RESERVATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("reservations");
/// Operations in one transaction.
const BATCH_MAX: usize = 256;
/// Operations that may wait; more are refused.
const QUEUE_MAX: usize = 4096;

/// Why the data directory is no use.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The directory can't be made.
    #[error("can't create {path}: {source}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database can't be opened or read.
    #[error("can't open {path}: {source}; another inventory may have it open")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: redb::Error,
    },
    /// No thread could be started for it.
    #[error("can't start the thread that writes to disk: {0}")]
    Thread(io::Error),
}

type Answer = Result<(), Failure>;

/// Where operations are handed to the thread that owns the database.
#[derive(Debug)]
pub(crate) struct Disk {
    queue: Option<SyncSender<(Operation, oneshot::Sender<Answer>)>>,
    database: std::sync::Arc<Database>,
    writer: Option<JoinHandle<()>>,
}

impl Disk {
    /// Opens or creates the database; true if it is new.
    pub(crate) fn open(directory: &Path) -> Result<(Self, bool), DiskError> {
        fs::create_dir_all(directory).map_err(|source| DiskError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join("inventory.redb");
        let (database, new) = prepare(&path).map_err(|source| DiskError::Open { path, source })?;
        let database = std::sync::Arc::new(database);
        let (queue, operations) = sync_channel(QUEUE_MAX);
        let owner = std::sync::Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("inventory-disk".to_owned())
            .spawn(move || write_all(&owner, &operations))
            .map_err(DiskError::Thread)?;
        Ok((
            Self {
                queue: Some(queue),
                database,
                writer: Some(writer),
            },
            new,
        ))
    }

    pub(crate) async fn apply(&self, operation: Operation) -> Answer {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Failure::Busy)?;
        queue
            .try_send((operation, answer))
            .map_err(|_| Failure::Busy)?;
        answered.await.unwrap_or(Err(Failure::Busy))
    }

    pub(crate) fn levels(&self, products: &[u32]) -> Result<Vec<Option<u32>>, Failure> {
        let read = || -> Result<_, redb::Error> {
            let stock = self.database.begin_read()?.open_table(STOCK)?;
            let level = |&product| Ok(stock.get(product)?.map(|units| units.value()));
            products.iter().map(level).collect()
        };
        read().map_err(Failure::disk)
    }
}

impl Drop for Disk {
    /// What was queued is still written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn prepare(path: &Path) -> Result<(Database, bool), redb::Error> {
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    let new = transaction.open_table(STOCK)?.is_empty()?;
    transaction.open_table(RESERVATIONS)?;
    transaction.commit()?;
    Ok((database, new))
}

fn write_all(database: &Database, operations: &Receiver<(Operation, oneshot::Sender<Answer>)>) {
    while let Ok(first) = operations.recv() {
        let waiting = operations.try_iter().take(BATCH_MAX - 1);
        let (batch, askers): (Vec<_>, Vec<_>) = std::iter::once(first).chain(waiting).unzip();
        let answers = match write(database, batch) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!("the stock can't be written: {error}");
                let failure = Failure::disk(error);
                askers.iter().map(|_| Err(failure.clone())).collect()
            }
        };
        for (asker, answer) in askers.into_iter().zip(answers) {
            // Whoever asked may have gone; what it asked for is done all the same.
            let _ = asker.send(answer);
        }
    }
}

/// One transaction; refusals change nothing in it, an error undoes all of it.
fn write(database: &Database, batch: Vec<Operation>) -> Result<Vec<Answer>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut answers = Vec::with_capacity(batch.len());
    {
        let mut book = DiskBook::open(&transaction)?;
        for operation in batch {
            answers.push(match operation.apply(&mut book) {
                Err(BookError::Disk(error)) => return Err(error),
                Err(BookError::Refused(refusal)) => Err(refusal.into()),
                Ok(()) => Ok(()),
            });
        }
    }
    transaction.commit()?;
    Ok(answers)
}

struct DiskBook<'txn> {
    stock: Table<'txn, u32, u32>,
    reservations: Table<'txn, u64, &'static [u8]>,
}

impl<'txn> DiskBook<'txn> {
    fn open(transaction: &'txn WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            stock: transaction.open_table(STOCK)?,
            reservations: transaction.open_table(RESERVATIONS)?,
        })
    }
}

enum BookError {
    Refused(crate::rules::Refusal),
    Disk(redb::Error),
}

impl From<crate::rules::Refusal> for BookError {
    fn from(refusal: crate::rules::Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<redb::StorageError> for BookError {
    fn from(error: redb::StorageError) -> Self {
        Self::Disk(error.into())
    }
}

impl Book for DiskBook<'_> {
    type Error = BookError;

    fn available(&self, product: u32) -> Result<Option<u32>, BookError> {
        Ok(self.stock.get(product)?.map(|units| units.value()))
    }

    fn set_available(&mut self, product: u32, units: u32) -> Result<(), BookError> {
        self.stock.insert(product, units)?;
        Ok(())
    }

    fn reservation(&self, order: u64) -> Result<Option<Reservation>, BookError> {
        let Some(row) = self.reservations.get(order)? else {
            return Ok(None);
        };
        decode(row.value())
            .map(Some)
            .ok_or_else(|| corrupted(order))
    }

    fn set_reservation(&mut self, order: u64, reservation: Reservation) -> Result<(), BookError> {
        self.reservations
            .insert(order, encode(&reservation).as_slice())?;
        Ok(())
    }

    fn forget(&mut self, order: u64) -> Result<(), BookError> {
        self.reservations.remove(order)?;
        Ok(())
    }

    fn since(&self, since_s: u64) -> Result<Vec<(u64, Reservation)>, BookError> {
        let mut old = Vec::new();
        for row in self.reservations.iter()? {
            let (order, bytes) = row?;
            let known = decode(bytes.value()).ok_or_else(|| corrupted(order.value()))?;
            if known.since_s <= since_s {
                old.push((order.value(), known));
            }
        }
        Ok(old)
    }
}

fn corrupted(order: u64) -> BookError {
    let order = shop_link::format_order(order);
    BookError::Disk(redb::Error::Corrupted(format!(
        "the reservation of order {order}"
    )))
}

/// State, eight bytes of time, then four and four bytes a line; little endian.
fn encode(reservation: &Reservation) -> Vec<u8> {
    let mut row = Vec::with_capacity(9 + 8 * reservation.lines.len());
    row.push(match reservation.state {
        State::Held => 0,
        State::Committed => 1,
        State::Released => 2,
    });
    row.extend_from_slice(&reservation.since_s.to_le_bytes());
    for (product, quantity) in &reservation.lines {
        row.extend_from_slice(&product.to_le_bytes());
        row.extend_from_slice(&quantity.to_le_bytes());
    }
    row
}

fn decode(row: &[u8]) -> Option<Reservation> {
    let (&state, rest) = row.split_first()?;
    let state = match state {
        0 => State::Held,
        1 => State::Committed,
        2 => State::Released,
        _ => return None,
    };
    let (since_s, rest) = rest.split_first_chunk::<8>()?;
    let (lines, []) = rest.as_chunks::<8>() else {
        return None;
    };
    let line = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| -> Line {
        (
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        )
    };
    Some(Reservation {
        state,
        since_s: u64::from_le_bytes(*since_s),
        lines: lines.iter().map(line).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive_and_rubbish_does_not_panic(
            lines in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5),
            since_s: u64,
            rubbish in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let reservation = Reservation { state: State::Committed, since_s, lines };
            prop_assert_eq!(decode(&encode(&reservation)), Some(reservation));
            let _ = decode(&rubbish);
        }
    }
}
