//! How many local connections a channel holds to a server that has one instance: pure functions over readings.
//!
//! A connection is driven by one thread at a time at each end, so threads that call over it may wait for one another.
//! With a further one they don't: its calls are delivered beside, and another driver of the server answers them.
//!
//! 1. A second is *crowded* in which there were 20,000 calls or more, one thread for four calls found another one
//!    driving, and a CPU has idled all the while, in sum over those at hand.
//! 2. Behind two crowded seconds a further connection is made. It stays if calls then come by a tenth faster; else it
//!    goes again, and the next one is made after 4 seconds, then 8, up to 256.
//! 3. There are as many as half of the CPUs at hand, at most eight.
//! 4. Once there were five seconds with less than half of the calls for which it was made, the last one goes.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ringway_local::{Connection, LinkKind, SlotPool};

use crate::channel::Shared;
use crate::instances::Pooled;

/// The environment variable that fixes the number.
const VARIABLE: &str = "RINGWAY_CONNECTIONS";
/// The most that a channel holds to an instance.
pub(crate) const MAX_CONNECTIONS: usize = 8;

const CROWDED_CALLS: u64 = 20_000;
/// Of a thousand calls.
const CROWDED_CONTENDED: u64 = 250;
/// Of one CPU, in a thousand.
const CROWDED_IDLE: u64 = 1000;
const CROWDED_FOR: u32 = 2;
const SLACK_FOR: u32 = 5;
const LONGEST_PAUSE: u32 = 256;

/// How many local connections a channel holds to one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionCount {
    /// One, and further ones where callers contend; this many at most.
    Adaptive(NonZeroUsize),
    /// So many.
    Fixed(NonZeroUsize),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no number of connections: adaptive, or a number from 1 to {MAX_CONNECTIONS}")]
pub(crate) struct UnknownConnectionCount(String);

impl FromStr for ConnectionCount {
    type Err = UnknownConnectionCount;

    fn from_str(text: &str) -> Result<Self, UnknownConnectionCount> {
        if text == "adaptive" {
            return Ok(Self::for_cpus(ringway_local::online_cpus()));
        }
        text.parse()
            .ok()
            .filter(|count: &NonZeroUsize| count.get() <= MAX_CONNECTIONS)
            .map(Self::Fixed)
            .ok_or_else(|| UnknownConnectionCount(text.to_owned()))
    }
}

impl ConnectionCount {
    /// Adaptive: each further one wants a CPU at both ends.
    fn for_cpus(cpus: usize) -> Self {
        let most = (cpus / 2).clamp(1, MAX_CONNECTIONS);
        Self::Adaptive(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN))
    }

    /// The number that `RINGWAY_CONNECTIONS` names: `adaptive`, or a number. Adaptive where it is not set; one that
    /// can't be understood is said once, as a warning.
    pub(crate) fn from_environment() -> Self {
        static COUNT: OnceLock<ConnectionCount> = OnceLock::new();
        *COUNT.get_or_init(|| {
            let adaptive = || Self::for_cpus(ringway_local::online_cpus());
            let Some(value) = std::env::var_os(VARIABLE) else {
                return adaptive();
            };
            value.to_string_lossy().parse().unwrap_or_else(|error| {
                tracing::warn!(%error, "{VARIABLE} is ignored");
                adaptive()
            })
        })
    }

    /// The same, and no more than `most`.
    pub(crate) fn at_most(self, most: usize) -> Self {
        let least = |count: NonZeroUsize| {
            NonZeroUsize::new(most).map_or(NonZeroUsize::MIN, |most| count.min(most))
        };
        match self {
            Self::Adaptive(count) => Self::Adaptive(least(count)),
            Self::Fixed(count) => Self::Fixed(least(count)),
        }
    }
}

/// What was read since the look before, in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Connections that there are.
    pub(crate) connections: usize,
    pub(crate) calls: u64,
    /// How often a thread found another one driving.
    pub(crate) contended: u64,
    /// How much of one CPU has idled, in a thousand, in sum over those at hand.
    pub(crate) idle: u64,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stay,
    /// Makes a further connection.
    Add,
    /// Lets go of the last one.
    Remove,
}

/// What is kept of former looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PoolRecord {
    crowded: u32,
    slack: u32,
    pause: u32,
    last_pause: u32,
    /// Calls in a second before each further connection was made.
    before: Vec<u64>,
    /// The last one was just made.
    trial: bool,
}

impl PoolRecord {
    /// Judges a reading, and keeps what is to be known of it.
    pub(crate) fn judge(&mut self, count: ConnectionCount, reading: Reading) -> Verdict {
        let most = match count {
            ConnectionCount::Fixed(count) if reading.connections < count.get() => {
                return Verdict::Add;
            }
            ConnectionCount::Fixed(_) => return Verdict::Stay,
            ConnectionCount::Adaptive(most) => most.get(),
        };
        // Connections that ended took what is known of them with them.
        self.before.truncate(reading.connections.saturating_sub(1));
        self.pause = self.pause.saturating_sub(1);
        if std::mem::take(&mut self.trial)
            && let Some(before) = self.before.last()
        {
            if reading.calls < before + before / 10 {
                self.pause_longer();
                return self.remove();
            }
            self.last_pause = 0;
        }
        if self
            .before
            .last()
            .is_some_and(|before| reading.calls < before / 2)
        {
            self.slack += 1;
            if self.slack >= SLACK_FOR {
                return self.remove();
            }
        } else {
            self.slack = 0;
        }
        let is_crowded = reading.calls >= CROWDED_CALLS
            && reading.contended * 1000 >= reading.calls * CROWDED_CONTENDED
            && reading.idle >= CROWDED_IDLE;
        self.crowded = if is_crowded { self.crowded + 1 } else { 0 };
        if self.crowded < CROWDED_FOR || self.pause > 0 || reading.connections >= most {
            return Verdict::Stay;
        }
        self.crowded = 0;
        self.trial = true;
        self.before.push(reading.calls);
        Verdict::Add
    }

    /// The further connection could not be made.
    pub(crate) fn note_refused(&mut self) {
        self.trial = false;
        self.before.pop();
        self.pause_longer();
    }

    fn pause_longer(&mut self) {
        self.last_pause = (2 * self.last_pause).clamp(4, LONGEST_PAUSE);
        self.pause = self.last_pause;
    }

    fn remove(&mut self) -> Verdict {
        self.slack = 0;
        self.crowded = 0;
        self.before.pop();
        Verdict::Remove
    }
}

/// Looks at a channel's connections once a second.
#[derive(Debug, Default)]
pub(crate) struct PoolWatch {
    record: PoolRecord,
    before: Option<Look>,
}

/// Counts at a moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    calls: u64,
    contended: u64,
    /// What the CPUs at hand have idled, where it was read.
    idle: Option<Duration>,
}

impl Look {
    fn at(now: Instant, connections: &[Arc<Connection>]) -> Self {
        let sum = |of: fn(&Connection) -> u64| connections.iter().map(|each| of(each)).sum();
        Self {
            at: now,
            calls: sum(Connection::calls),
            contended: sum(Connection::contended),
            idle: None,
        }
    }

    /// What a second since the look `before` came to.
    fn since(&mut self, before: Self, connections: usize) -> Reading {
        let elapsed = self.at.saturating_duration_since(before.at);
        let ms = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let a_second = |count: u64| count.saturating_mul(1000) / ms;
        let calls = a_second(self.calls.saturating_sub(before.calls));
        if calls >= CROWDED_CALLS {
            // It reads a file, and is of interest then alone.
            self.idle = ringway_local::idle_time().ok();
        }
        let idled = self.idle.zip(before.idle);
        let idled = idled.map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        Reading {
            connections,
            calls,
            contended: a_second(self.contended.saturating_sub(before.contended)),
            idle: a_second(u64::try_from(idled.as_millis()).unwrap_or(0)),
        }
    }
}

impl PoolWatch {
    /// Makes or lets go of further connections of a channel, as the rules say.
    pub(crate) async fn look(&mut self, channel: &Shared) {
        let Some(mut pool) = channel.instances.pool() else {
            // Several instances are several connections.
            channel.instances.keep_one_each();
            *self = Self::default();
            return;
        };
        if !pool.may_grow() {
            return;
        }
        let now = Instant::now();
        let mut look = Look::at(now, &pool.connections);
        let before = self.before.unwrap_or(look);
        let count = ConnectionCount::from_environment().at_most(channel.endpoint.max_connections);
        let reading = look.since(before, pool.connections.len());
        self.before = Some(look);
        loop {
            let reading = Reading {
                connections: pool.connections.len(),
                ..reading
            };
            match self.record.judge(count, reading) {
                Verdict::Stay => break,
                Verdict::Add => match channel.connect_by(&pool.name).await {
                    Ok(further) => {
                        pool.add(&further);
                        channel.instances.add_further(pool.name.clone(), further);
                        tracing::debug!(server = %channel.endpoint.name, connections = pool.connections.len(), "callers contend");
                    }
                    Err(error) => {
                        tracing::debug!(server = %channel.endpoint.name, %error, "no further connection");
                        self.record.note_refused();
                        break;
                    }
                },
                Verdict::Remove => {
                    let Some(last) = pool.connections.pop() else {
                        break;
                    };
                    // Its calls go on.
                    channel.instances.remove(&last);
                    break;
                }
            }
            if let ConnectionCount::Adaptive(_) = count {
                break;
            }
        }
    }
}

impl Pooled {
    /// Adds a connection. All of them together keep to the calls that the server lets one have.
    fn add(&mut self, further: &Arc<Connection>) {
        if let Some(first) = self.connections.first() {
            SlotPool::of(first).add(further);
        }
        self.connections.push(Arc::clone(further));
    }

    /// Whether its server, and the way to it, allow for further connections.
    fn may_grow(&self) -> bool {
        self.connections.first().is_some_and(|first| {
            let has_way = matches!(first.kind(), LinkKind::Shm | LinkKind::Socket);
            has_way && first.lets_client_hold_several()
        })
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: ConnectionCount = ConnectionCount::Adaptive(NonZeroUsize::new(4).unwrap());

    fn crowded(connections: usize, calls: u64) -> Reading {
        Reading {
            connections,
            calls,
            contended: calls / 2,
            idle: 4000,
        }
    }

    fn verdicts(record: &mut PoolRecord, readings: &[Reading]) -> Vec<Verdict> {
        let judged = readings.iter().map(|reading| record.judge(FOUR, *reading));
        judged.collect()
    }

    #[test]
    fn a_connection_is_added_behind_two_crowded_seconds_and_stays_if_it_pays() {
        use Verdict::{Add, Stay};
        let mut record = PoolRecord::default();
        let judged = verdicts(
            &mut record,
            &[
                crowded(1, 100_000),
                crowded(1, 100_000),
                crowded(2, 150_000),
                crowded(2, 150_000),
                crowded(3, 200_000),
                crowded(3, 200_000),
                crowded(4, 300_000),
                crowded(4, 300_000),
                crowded(4, 300_000),
            ],
        );
        assert_eq!(judged, [Stay, Add, Stay, Add, Stay, Add, Stay, Stay, Stay]);
    }

    #[test]
    fn one_that_does_not_pay_goes_and_is_tried_ever_more_seldom() {
        let mut record = PoolRecord::default();
        let (mut connections, mut added) = (1, Vec::new());
        for second in 0..300 {
            match record.judge(FOUR, crowded(connections, 100_000)) {
                Verdict::Add => {
                    added.push(second);
                    connections += 1;
                }
                Verdict::Remove => connections -= 1,
                Verdict::Stay => {}
            }
            assert!(connections <= 2);
        }
        let pauses: Vec<_> = added.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.len() < 8, "{pauses:?}");
        assert!(pauses.is_sorted() && pauses[0] >= 4, "{pauses:?}");
    }

    #[test]
    fn no_connection_is_added_without_calls_contention_or_an_idle_cpu() {
        let reading = crowded(1, 100_000);
        let in_vain = [
            Reading {
                calls: 19_999,
                ..reading
            },
            Reading {
                contended: 24_999,
                ..reading
            },
            Reading {
                idle: 999,
                ..reading
            },
        ];
        for reading in in_vain {
            let judged = verdicts(&mut PoolRecord::default(), &[reading; 9]);
            assert_eq!(judged, [Verdict::Stay; 9], "{reading:?}");
        }
    }

    #[test]
    fn the_last_one_goes_once_it_is_needed_no_more() {
        let mut record = PoolRecord::default();
        verdicts(
            &mut record,
            &[
                crowded(1, 100_000),
                crowded(1, 100_000),
                crowded(2, 150_000),
            ],
        );
        let quiet = Reading {
            calls: 49_999,
            contended: 0,
            ..crowded(2, 0)
        };
        let judged = verdicts(&mut record, &[quiet; 5]);
        assert_eq!(judged[..4], [Verdict::Stay; 4]);
        assert_eq!(judged[4], Verdict::Remove);
        let one = Reading {
            connections: 1,
            ..quiet
        };
        assert_eq!(verdicts(&mut record, &[one; 9]), [Verdict::Stay; 9]);
    }

    #[test]
    fn a_fixed_number_is_made_up_at_once() {
        let three = "3".parse().unwrap();
        let mut record = PoolRecord::default();
        let idle = |connections| Reading {
            connections,
            calls: 0,
            contended: 0,
            idle: 0,
        };
        assert_eq!(record.judge(three, idle(1)), Verdict::Add);
        assert_eq!(record.judge(three, idle(2)), Verdict::Add);
        assert_eq!(record.judge(three, idle(3)), Verdict::Stay);
    }

    #[test]
    fn counts_are_read_and_bounded() {
        for text in ["", "0", "9", "two", "1.5"] {
            let error = text.parse::<ConnectionCount>().unwrap_err();
            assert!(error.to_string().contains("adaptive"), "{error}");
        }
        let most = |cpus| match ConnectionCount::for_cpus(cpus) {
            ConnectionCount::Adaptive(most) | ConnectionCount::Fixed(most) => most.get(),
        };
        assert_eq!([1, 2, 4, 16, 64].map(most), [1, 1, 2, 8, 8]);
        assert_eq!(FOUR.at_most(1), FOUR.at_most(0));
        let (four, two) = ("4".parse::<ConnectionCount>(), "2".parse());
        assert_eq!(four.map(|four| four.at_most(2)), two);
    }
}
