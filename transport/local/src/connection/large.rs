//! Memory for large messages, and giving it back when nobody needs it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ringway_ring::BufferPool;

use super::Connection;
use crate::error::Closed;
use crate::link::shm::Blocks;

/// How long memory lies idle before it is given back, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often notes are tried again for which the socket had no room.
const NOTES_EVERY: Duration = Duration::from_millis(5);

/// What carries the large messages of a connection: blocks to send from, buffers to receive into.
#[derive(Debug)]
pub(crate) struct Large {
    blocks: Blocks,
    pool: BufferPool,
    /// Somebody will look whether it can be given back.
    watched: AtomicBool,
    /// A task sends the notes that wait.
    sending_notes: AtomicBool,
}

impl Large {
    pub(crate) fn new(blocks: Blocks, pool: BufferPool) -> Self {
        Self {
            blocks,
            pool,
            watched: AtomicBool::new(false),
            sending_notes: AtomicBool::new(false),
        }
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Gives back what lay idle; true if nothing is left.
    fn trim(&self) -> Result<bool, Closed> {
        let now = Instant::now();
        self.pool.trim(now, IDLE);
        Ok(self.blocks.trim(now, IDLE)? && self.pool.is_empty())
    }
}

impl Connection {
    /// A large message was sent or received: its memory is given back some time after the last.
    pub(crate) fn note_large(&self) {
        // Whoever asks for a block takes note of all that have gone back, and wants one.
        self.note_spare_memory();
        if let Some(large) = &self.large
            && !large.watched.load(Ordering::Relaxed)
            && !large.watched.swap(true, Ordering::SeqCst)
        {
            self.driver().spawn(trim(Watching {
                connection: Weak::clone(&self.me),
                over: false,
            }));
        }
    }

    /// Has notes about segments that had to wait sent, now and then until all are.
    pub(crate) fn see_to_notes(&self) {
        if let Some(large) = &self.large
            && large.blocks.has_notes()
            && !large.sending_notes.swap(true, Ordering::SeqCst)
        {
            self.driver().spawn(send_notes(SendingNotes {
                connection: Weak::clone(&self.me),
                over: false,
            }));
        }
    }

    /// True if no note is left to be sent.
    fn send_notes(&self) -> bool {
        let Some(large) = &self.large else {
            return true;
        };
        // First, so that a note that has to wait now either is seen below or finds nobody sending.
        large.sending_notes.store(false, Ordering::SeqCst);
        match large.blocks.send_notes() {
            // Another task that was started meanwhile goes on in this one's place.
            Ok(false) => return large.sending_notes.swap(true, Ordering::SeqCst),
            Ok(true) => self.mark_ready(),
            Err(why) => self.fail(why),
        }
        true
    }

    /// Has a pass wake the tasks that wait for memory, if blocks have gone back of which no pass has taken note.
    pub(crate) fn note_spare_memory(&self) {
        if let Some(blocks) = self.blocks()
            && blocks.is_awaited()
            && blocks.may_have_room()
        {
            self.mark_ready();
        }
    }

    /// True if nobody needs to look again.
    fn trim_large(self: &Arc<Self>) -> bool {
        let Some(large) = &self.large else {
            return true;
        };
        // First, so that a message that comes now either is seen below or finds nobody watching.
        large.watched.store(false, Ordering::SeqCst);
        if let Some(mut pass) = self.pass.try_lock() {
            pass.trim();
        }
        let trimmed = large.trim();
        self.note_spare_memory();
        match trimmed {
            // A look that another message has started meanwhile goes on in this one's place.
            Ok(false) => large.watched.swap(true, Ordering::SeqCst),
            Ok(true) => true,
            Err(why) => {
                self.fail(why);
                true
            }
        }
    }
}

/// A task that sends notes; where its runtime ends, the next sender that waits starts another.
struct SendingNotes {
    connection: Weak<Connection>,
    over: bool,
}

impl Drop for SendingNotes {
    fn drop(&mut self) {
        if !self.over
            && let Some(connection) = self.connection.upgrade()
            && let Some(large) = &connection.large
        {
            large.sending_notes.store(false, Ordering::SeqCst);
        }
    }
}

async fn send_notes(mut sending: SendingNotes) {
    loop {
        tokio::time::sleep(NOTES_EVERY).await;
        let Some(connection) = sending.connection.upgrade() else {
            return;
        };
        if !connection.is_open() || connection.send_notes() {
            sending.over = true;
            return;
        }
    }
}

/// A task that looks; where its runtime ends, the next large message starts another.
struct Watching {
    connection: Weak<Connection>,
    over: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !self.over
            && let Some(connection) = self.connection.upgrade()
            && let Some(large) = &connection.large
        {
            large.watched.store(false, Ordering::SeqCst);
        }
    }
}

async fn trim(mut watching: Watching) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(connection) = watching.connection.upgrade() else {
            return;
        };
        if !connection.is_open() || connection.trim_large() {
            watching.over = true;
            return;
        }
    }
}
