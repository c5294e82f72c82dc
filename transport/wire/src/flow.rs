//! Credit: how many bytes of messages may be under way.
//!
//! A message may start while credit is above zero, and is charged whole, so credit goes negative
//! by one message at most and any single message always goes. Messages above [`LARGE_MESSAGE_BYTES`] share a second
//! window of the connection, or each would hold up the small ones of all calls until it is read. A receiver holds at
//! most both windows, and beyond each a message of its kind. Sums are `i64`: a window and a message each fit 32 bits, so none overflows.
//!
//! Calls share the connection's window, and readers that stop must not keep it from the others. So a
//! stream's messages start only within its share:
//!
//! - The last sixteenth of the window streams leave alone: it is for requests and unary answers.
//! - A call that has little under way ([`BASE_SHARE_BYTES`]) may use all the rest. Of a thousand streams
//!   that nobody reads each comes to hold a frame or so, and the next one still goes on, frame by frame.
//! - More than that a call may have only out of the first quarter, and no more than it leaves free there
//!   (the dynamic threshold of Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
//!   packet switches", 1998): one stream alone has an eighth of the window under way.

use crate::limits::{BASE_SHARE_BYTES, LARGE_MESSAGE_BYTES, MESSAGE_OVERHEAD_BYTES};

/// The part of a connection's window that streams leave alone.
const RESERVE_PARTS: u32 = 16;
/// The part of it out of which calls may have more than their base share.
const COMMON_PARTS: u32 = 4;
/// The part of it that is worth a grant of a call's credit: so much a call may seem to have under way,
/// at its other end, that was read long ago.
pub(crate) const STREAM_GRANT_PARTS: u32 = 64;
/// The same for the connection's own credit.
pub(crate) const GRANT_PARTS: u32 = 32;
/// Where less than this part of it is free of the first quarter, every grant is worth a frame.
const SCARCE_PARTS: u32 = 16;
/// Where more than this part of it is free of the first quarter, frames may be long.
const PLENTY_PARTS: u32 = 32;

/// What of a connection's window is for requests and unary answers alone.
#[inline]
fn reserve(limit: u32) -> i64 {
    i64::from(limit / RESERVE_PARTS)
}

/// What is left of it when the first quarter is used up.
#[inline]
fn common_end(limit: u32) -> i64 {
    i64::from(limit - limit / COMMON_PARTS)
}

/// Returns true if a message that costs so much is charged to the window of large ones, where there is one.
#[inline]
pub(crate) fn is_large(cost: i64) -> bool {
    cost > charge(LARGE_MESSAGE_BYTES)
}

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
    pub(crate) fn limit(&self) -> i64 {
        i64::from(self.limit)
    }

    /// Charged, and not granted again.
    #[inline]
    pub(crate) fn under_way(&self) -> i64 {
        i64::from(self.limit) - self.available
    }

    /// A connection's: whether a stream that has so much under way may have more.
    #[inline]
    pub(crate) fn has_share_for(&self, under_way: i64) -> bool {
        match under_way < i64::from(BASE_SHARE_BYTES) {
            true => self.available > reserve(self.limit),
            false => self.available - common_end(self.limit) > under_way,
        }
    }

    /// A connection's: whether a long frame takes nothing from calls that have less than their share. One
    /// stream alone leaves half of the first quarter free, seven together an eighth.
    #[inline]
    pub(crate) fn has_plenty(&self) -> bool {
        self.available - common_end(self.limit) > i64::from(self.limit / PLENTY_PARTS)
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

/// A connection's windows for the messages that would fill its others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LargeWindows {
    pub(crate) send: SendWindow,
    pub(crate) recv: RecvWindow,
}

impl LargeWindows {
    /// As large as the connection's others. Each message is worth a grant.
    pub(crate) fn new(send: u32, recv: u32) -> Self {
        LargeWindows {
            send: SendWindow::new(send),
            recv: RecvWindow::new(recv, 0),
        }
    }

    /// Chooses the window that a message is charged to: `others`, unless it is large and both ends have this one.
    #[inline]
    pub(crate) fn send_or<'w>(
        large: &'w mut Option<Self>,
        others: &'w mut SendWindow,
        cost: i64,
    ) -> &'w mut SendWindow {
        match large {
            Some(large) if is_large(cost) => &mut large.send,
            _ => others,
        }
    }

    /// Chooses the receiver's window in the same way.
    #[inline]
    pub(crate) fn recv_or<'w>(
        large: &'w mut Option<Self>,
        others: &'w mut RecvWindow,
        cost: i64,
    ) -> &'w mut RecvWindow {
        match large {
            Some(large) if is_large(cost) => &mut large.recv,
            _ => others,
        }
    }

    /// Returns true if something is to be granted.
    #[inline]
    pub(crate) fn is_due(large: Option<&Self>) -> bool {
        large.is_some_and(|large| large.recv.returned > 0)
    }
}

/// Whether so little is free of a connection's first quarter that what was not granted again, because it
/// was not worth a frame, may be all that a stream waits for.
///
/// In plenty the sender sees at least a [`GRANT_PARTS`]th of the window free there, and a call whose reader
/// keeps up seems to have half of that under way at most. So it is not held up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scarcity {
    below: i64,
    is_scarce: bool,
}

impl Scarcity {
    pub(crate) fn new(window: u32) -> Self {
        Scarcity {
            below: i64::from(window / SCARCE_PARTS),
            is_scarce: false,
        }
    }

    #[inline]
    pub(crate) fn is_scarce(&self) -> bool {
        self.is_scarce
    }

    /// Less is free now; true if it has just become too little.
    #[inline]
    #[must_use]
    pub(crate) fn on_charge(&mut self, free: i64) -> bool {
        let became = !self.is_scarce && free < self.below;
        self.is_scarce |= became;
        became
    }

    /// More is free now. It has to be twice as much, or a stream whose messages come and go would make
    /// credit scarce again and again.
    #[inline]
    pub(crate) fn on_give_back(&mut self, free: i64) {
        self.is_scarce &= free < 2 * self.below;
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
    limit: u32,
}

impl RecvWindow {
    /// A window of which no less than `least` is granted at a time. A reader that holds messages for ever
    /// finds its window smaller by that, and loses nothing else.
    #[inline]
    pub(crate) fn new(limit: u32, least: u32) -> Self {
        RecvWindow {
            available: i64::from(limit),
            returned: 0,
            least,
            limit,
        }
    }

    /// What was charged, and not taken out.
    #[inline]
    pub(crate) fn held(&self) -> i64 {
        i64::from(self.limit) - self.available - self.returned
    }

    /// A connection's: what is free of its first quarter.
    #[inline]
    pub(crate) fn free(&self) -> i64 {
        self.available + self.returned - common_end(self.limit)
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

    /// A connection's: whether a grant is worth a frame, because as much was given back as half of what
    /// the peer finds free in the first quarter. Compared with what is *left*, not with the whole window:
    /// bytes that a slow reader holds for ever must not keep the rest of the window from being granted. But
    /// not below `least`, or a window that is always full would be granted message by message; only where
    /// credit is `scarce` that is right, because a stream may have no more than its base share.
    #[inline]
    pub(crate) fn is_due(&self, scarce: bool) -> bool {
        if scarce {
            return self.returned > 0;
        }
        let left = self.available - common_end(self.limit);
        self.returned > i64::from(self.least) && self.returned * 2 >= left
    }

    /// The same of a call's.
    #[inline]
    pub(crate) fn is_due_to_call(&self, scarce: bool) -> bool {
        self.returned > if scarce { 0 } else { i64::from(self.least) }
    }

    /// Grants what is free.
    pub(crate) fn take_grant(&mut self) -> u32 {
        let grant = u32::try_from(self.returned).unwrap_or(u32::MAX);
        self.returned -= i64::from(grant);
        self.available += i64::from(grant);
        grant
    }
}
