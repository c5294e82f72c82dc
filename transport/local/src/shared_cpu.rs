//! Two ends that wake each other on one CPU, while another may idle.
//!
//! Linux wakes a thread where it slept or where its waker runs, and on few CPUs it searches for no idle one. So a
//! caller and the server that it rings may come to share a CPU: each parks for the other, a call takes two switches
//! in place of none, and since never more than one of them can run, no balance is found wanting. This library moves
//! no thread. But a caller that polls on, while its peer waits for the CPU, lets the scheduler see that two want
//! one: at its next tick an idle CPU takes the peer away, for as long as both go on polling.
//!
//! That costs a call some milliseconds, so it is done seldom, and ever more seldom where it does not last: with more
//! threads than CPUs they come together again at once.

use std::time::Duration;

use parking_lot::Mutex;

/// The longest that a caller polls on: a few ticks of the scheduler (4 ms with CONFIG_HZ=250).
pub(crate) const SIT_OUT: Duration = Duration::from_millis(10);
/// Waits on a shared CPU after which the state counts as lasting.
const WAITS: u32 = 64;
/// The same, if so many deliveries came meanwhile: most waits were not on a shared CPU.
const MOST_DELIVERIES: u32 = 4 * WAITS;
/// Deliveries between two times that make the first one worth it.
const WORTH_DELIVERIES: u32 = 20_000;
/// Times that are left out in a row, at most.
const MAX_LEFT_OUT: u32 = 4096;

/// The account of a connection's waits for a peer on the caller's own CPU.
#[derive(Debug, Default)]
pub(crate) struct SharedCpu(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    waits: u32,
    /// The deliveries when the first of them began.
    since: u32,
    /// The deliveries when a caller last polled on.
    sat_out_at: u32,
    /// Times still to be left out, and how many were the last time.
    left_out: u32,
    distance: u32,
}

impl SharedCpu {
    /// Notes a wait for a peer on the caller's own CPU, as of which of the connection's deliveries, counted round and
    /// round. Returns true if the caller polls on.
    pub(crate) fn polls_on(&self, delivered: u32) -> bool {
        self.0.lock().note(delivered)
    }
}

impl Account {
    fn note(&mut self, delivered: u32) -> bool {
        if self.waits == 0 {
            self.since = delivered;
        }
        self.waits += 1;
        if self.waits < WAITS {
            return false;
        }
        self.waits = 0;
        if delivered.wrapping_sub(self.since) > MOST_DELIVERIES {
            return false;
        }
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        let lasted = delivered.wrapping_sub(self.sat_out_at) >= WORTH_DELIVERIES;
        self.distance = match lasted {
            true => 0,
            false => (4 * self.distance + 1).min(MAX_LEFT_OUT),
        };
        self.left_out = self.distance;
        self.sat_out_at = delivered;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until a caller polls on, each with so many deliveries.
    fn waits(account: &mut Account, delivered: &mut u32, each: u32) -> u32 {
        (1..1_000_000)
            .find(|_| {
                *delivered = delivered.wrapping_add(each);
                account.note(*delivered)
            })
            .unwrap()
    }

    #[test]
    fn a_lasting_state_is_sat_out_ever_more_seldom_unless_that_helps() {
        let (mut account, mut delivered) = (Account::default(), u32::MAX - 10);
        assert_eq!(waits(&mut account, &mut delivered, 1), WAITS);
        let next = waits(&mut account, &mut delivered, 1);
        assert!(next > WAITS);
        let later = waits(&mut account, &mut delivered, 1);
        assert!(later > 2 * next);
        // It lasted: the next time is at hand.
        delivered = delivered.wrapping_add(WORTH_DELIVERIES);
        waits(&mut account, &mut delivered, 1);
        delivered = delivered.wrapping_add(WORTH_DELIVERIES);
        assert_eq!(waits(&mut account, &mut delivered, 1), WAITS);
    }

    #[test]
    fn a_few_waits_among_many_are_no_state() {
        let mut account = Account::default();
        assert!((0..100_000).all(|wait| !account.note(wait * 5)));
    }
}
