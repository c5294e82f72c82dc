//! The arithmetic of headers and windows, with every value of a domain that is small enough to try all of it.

use crate::flow::{RecvWindow, SendWindow};
use crate::limits::{MAX_GOAWAY_TEXT_BYTES, MAX_HEAD_BYTES, MAX_MESSAGE_BYTES, MAX_WINDOW_BYTES};
use crate::{Flags, FrameHeader, Kind};

/// Covers each kind, and each byte that is none; each set of flags; and for each of the three lengths zero, one, each
/// limit, one more than it, and the end of the type: a header is refused, or its lengths are within their limits and
/// it is encoded as it came.
#[test]
fn each_header_is_refused_or_within_the_limits() {
    let lens = [
        0,
        1,
        MAX_GOAWAY_TEXT_BYTES + 1,
        MAX_HEAD_BYTES,
        MAX_HEAD_BYTES + 1,
        MAX_MESSAGE_BYTES,
        MAX_MESSAGE_BYTES + 1,
        u32::MAX,
    ];
    let mut taken = 0;
    for kind in (0..=12).chain([0x7f, 0x80, 0xff]) {
        for flags in 0..=u8::MAX {
            for head_len in lens {
                for payload_len in lens {
                    for message_len in lens {
                        taken +=
                            u32::from(check(kind, flags, [head_len, payload_len, message_len]));
                    }
                }
            }
        }
    }
    assert!(taken > 1000, "{taken}");
}

fn check(kind: u8, flags: u8, lens: [u32; 3]) -> bool {
    let [head_len, payload_len, message_len] = lens;
    let mut bytes = [0; FrameHeader::LEN];
    (bytes[0], bytes[1]) = (kind, flags);
    bytes[4..8].copy_from_slice(&head_len.to_le_bytes());
    bytes[8..16].copy_from_slice(&(1_u64 << 32).to_le_bytes());
    bytes[16..20].copy_from_slice(&payload_len.to_le_bytes());
    bytes[20..24].copy_from_slice(&message_len.to_le_bytes());
    let Ok(header) = FrameHeader::decode(&bytes) else {
        return false;
    };
    let case = (kind, flags, lens);
    assert_eq!(header.encode(), bytes, "{case:?}");
    assert!(header.head_len <= MAX_HEAD_BYTES, "{case:?}");
    let sum = u64::from(head_len) + u64::from(payload_len);
    assert_eq!(header.body_len(), sum, "{case:?}");
    if matches!(header.kind, Kind::Link(_)) {
        return true;
    }
    assert!(header.payload_len <= MAX_MESSAGE_BYTES, "{case:?}");
    let carries = matches!(header.kind, Kind::Request | Kind::Response | Kind::Message);
    assert!(carries || header.payload_len == 0, "{case:?}");
    if carries {
        assert!(header.payload_len <= header.message_len, "{case:?}");
        assert!(header.message_len <= MAX_MESSAGE_BYTES, "{case:?}");
        let in_pieces = header.flags.has(Flags::MORE) || header.flags.has(Flags::CONTINUED);
        assert!(
            in_pieces || header.payload_len == header.message_len,
            "{case:?}"
        );
    }
    true
}

/// Both ends of a window, with what is between them.
#[derive(Clone, Copy)]
struct Ends {
    sender: SendWindow,
    receiver: RecvWindow,
    /// Sent and not given back, in bytes.
    held: i64,
    /// Granted, and not heard of yet.
    grant: u32,
    limit: i64,
    longest: i64,
}

impl Ends {
    fn new(limit: u32, least: u32, longest: i64) -> Self {
        Self {
            sender: SendWindow::new(limit),
            receiver: RecvWindow::new(limit, least),
            held: 0,
            grant: 0,
            limit: limit.into(),
            longest,
        }
    }

    /// One end's next step: of all that it may do, the one of this number; false where there is none.
    fn step(&mut self, number: i64) -> bool {
        let longest = self.longest;
        match number {
            // A message of each length.
            _ if number < longest => {
                if !self.sender.is_open() {
                    return false;
                }
                self.sender.spend(number + 1);
                assert!(
                    self.receiver.charge(number + 1),
                    "an honest peer has credit"
                );
                self.held += number + 1;
            }
            // Some of what was received is read.
            _ if number < 2 * longest => {
                let read = number - longest + 1;
                if read > self.held {
                    return false;
                }
                self.held -= read;
                self.receiver.give_back(read);
            }
            _ if number == 2 * longest => {
                if self.grant > 0 || !self.receiver.is_due_to_call(false) {
                    return false;
                }
                self.grant = self.receiver.take_grant();
            }
            _ => {
                if self.grant == 0 {
                    return false;
                }
                let granted = self.sender.grant(self.grant);
                assert!(granted.is_some(), "an honest grant is believed");
                self.grant = 0;
            }
        }
        let under_way = self.sender.under_way();
        assert!(under_way >= 0 && under_way < self.limit + longest);
        assert!(
            self.held < self.limit + longest,
            "more than a window and a message"
        );
        true
    }

    fn steps(&self) -> i64 {
        2 * self.longest + 2
    }

    fn walk(self, depth: u32, walked: &mut u64) {
        *walked += 1;
        if depth == 0 {
            return;
        }
        for number in 0..self.steps() {
            let mut next = self;
            if next.step(number) {
                next.walk(depth - 1, walked);
            }
        }
    }
}

/// Covers, for each window up to five bytes and messages up to three, all orders of eight steps of both ends: no more
/// than a window and a message is ever under way, an honest peer is never short of credit that it was told of, and
/// its grants are believed.
#[test]
fn all_orders_of_sending_reading_and_granting_in_small_windows() {
    let mut walked = 0;
    for limit in 1..=5 {
        for least in [0, 1, limit / 2] {
            Ends::new(limit, least, 3).walk(8, &mut walked);
        }
    }
    assert!(walked > 100_000, "{walked}");
}

/// Covers sums at the upper ends: a window and a message as large as they may be, sent, read and granted.
#[test]
fn the_largest_window_and_message_add_up() {
    let message = i64::from(MAX_MESSAGE_BYTES) + 64;
    for limit in [MAX_WINDOW_BYTES - 1, MAX_WINDOW_BYTES] {
        let mut ends = Ends::new(limit, 0, message);
        assert!(ends.step(0));
        assert!(ends.step(message - 1), "one more, however large");
        assert!(!ends.step(0), "and none after it");
        for read in [0, message - 1] {
            assert!(ends.step(message + read));
        }
        assert!(ends.step(2 * message) && ends.step(2 * message + 1));
        assert_eq!(ends.sender.under_way(), 0);
        assert_eq!(ends.sender.grant(1), None, "more than it has");
    }
}
