//! Credit: how many bytes of messages may be under way.
//!
//! A message may start while credit is above zero, and is charged whole, so credit goes negative
//! by one message at most and any single message always goes. A receiver holds at most a window
//! and one message. Sums are `i64`: a window and a message each fit 32 bits, so none overflows.

use crate::limits::MESSAGE_OVERHEAD_BYTES;

/// What a message of this length costs.
#[inline]
pub(crate) fn charge(message_len: u32) -> i64 {
    i64::from(message_len) + i64::from(MESSAGE_OVERHEAD_BYTES)
}

/// The sender's view of one window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SendWindow {
    available: i64,
    limit: u32,
}

impl SendWindow {
    #[inline]
    pub(crate) fn new(limit: u32) -> Self {
        SendWindow {
            available: i64::from(limit),
            limit,
        }
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.available > 0
    }

    #[inline]
    pub(crate) fn spend(&mut self, bytes: i64) {
        self.available -= bytes;
    }

    /// Takes back what was spent on a message that was not sent.
    pub(crate) fn unspend(&mut self, bytes: i64) {
        self.available += bytes;
    }

    /// Adds a grant; true if the window opened by it. None: the peer grants nothing, or what it
    /// does not have.
    pub(crate) fn grant(&mut self, bytes: u32) -> Option<bool> {
        let was_open = self.is_open();
        let available = self.available + i64::from(bytes);
        if bytes == 0 || available > i64::from(self.limit) {
            return None;
        }
        self.available = available;
        Some(!was_open && self.is_open())
    }
}

/// The receiver's view of one window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecvWindow {
    /// What the peer may still send, as far as it was told.
    available: i64,
    /// What was taken out, and not granted again yet.
    returned: i64,
    /// Less than this is not worth a frame.
    least: u32,
}

impl RecvWindow {
    /// A window that grants 1/`parts` of itself at a time, at least. A reader that holds messages
    /// for ever finds its window smaller by that part, and loses nothing else.
    #[inline]
    pub(crate) fn new(limit: u32, parts: u32) -> Self {
        RecvWindow {
            available: i64::from(limit),
            returned: 0,
            least: limit / parts,
        }
    }

    /// False: the peer had no credit left.
    #[inline]
    #[must_use]
    pub(crate) fn charge(&mut self, bytes: i64) -> bool {
        let allowed = self.available > 0;
        self.available -= bytes;
        allowed
    }

    #[inline]
    pub(crate) fn give_back(&mut self, bytes: i64) {
        self.returned += bytes;
    }

    /// Whether a grant is worth a frame: as much is free as half of what the peer has left.
    /// Compared with what is *left*, not with the whole window: bytes that a slow reader holds
    /// for ever must not keep the rest of the window from being granted. But not below `least`,
    /// or a window that is always full would be granted message by message.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.returned > i64::from(self.least) && self.returned * 2 >= self.available
    }

    /// Grants what is free.
    pub(crate) fn take_grant(&mut self) -> u32 {
        let grant = u32::try_from(self.returned).unwrap_or(u32::MAX);
        self.returned -= i64::from(grant);
        self.available += i64::from(grant);
        grant
    }
}
