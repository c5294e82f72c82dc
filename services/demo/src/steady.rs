//! Orders at a steady rate, for as long as somebody wants: the load of a shop that runs elsewhere.
//!
//! An order's time counts from when it was due, so that one that waits for those before it is not
//! taken for a fast one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::Error;
use crate::load::Tally;
use crate::shopper::{HopSeen, Shopper};

/// A load that could not be placed is not made up for, beyond this.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Different failures that a line names.
const FAILURES_MAX: usize = 8;

/// How to order.
#[derive(clap::Args, Debug)]
pub struct Steady {
    /// Where the gateway is.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    gateway: String,
    /// Orders per second.
    #[arg(long, default_value = "20", value_parser = a_rate)]
    rate: f64,
    /// Orders at the same time at most, each on a connection of its own.
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Ends after so many orders; with an error if one failed. Otherwise a signal ends it.
    #[arg(long)]
    orders: Option<u64>,
    /// Seconds between two lines of JSON that say what came of the orders since the last one.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    every: u64,
}

fn a_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number of orders per second, 0.01 to 1,000,000".to_owned()),
    }
}

impl Steady {
    /// Orders until `until` is ready, or until as many orders as asked for are placed; prints lines
    /// of JSON.
    ///
    /// # Errors
    /// [`Error::Failed`] if a number of orders was asked for, and some failed.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<(), Error> {
        let seen = Arc::new(Mutex::new(Period::new()));
        let turns = Arc::new(Mutex::new(Turns::new(&self)));
        let mut customers = JoinSet::new();
        for _ in 0..self.in_flight.max(1) {
            let (turns, seen) = (Arc::clone(&turns), Arc::clone(&seen));
            customers.spawn(order_on(self.gateway.clone(), turns, seen));
        }
        let mut until = std::pin::pin!(until);
        let mut lines = tokio::time::interval(Duration::from_secs(self.every.max(1)));
        lines.tick().await;
        let mut failed = 0;
        let mut print = |period: Period| {
            failed += period.failed();
            println!("{}", period.line());
        };
        loop {
            tokio::select! {
                () = &mut until => break,
                customer = customers.join_next() => match customer {
                    Some(customer) => customer?,
                    None => break,
                },
                _ = lines.tick() => print(seen.lock().await.take()),
            }
        }
        print(seen.lock().await.take());
        match self.orders {
            Some(orders) if failed > 0 => Err(Error::Failed { failed, orders }),
            _ => Ok(()),
        }
    }
}

/// Whose turn it is, and when.
struct Turns {
    next: u64,
    end: u64,
    due: Instant,
    apart: Duration,
}

impl Turns {
    fn new(steady: &Steady) -> Self {
        Self {
            next: 0,
            end: steady.orders.unwrap_or(u64::MAX),
            due: Instant::now(),
            apart: Duration::from_secs_f64(1.0 / steady.rate),
        }
    }

    /// The next order's number, and when it is due.
    fn take(&mut self, now: Instant) -> Option<(u64, Instant)> {
        if self.next == self.end {
            return None;
        }
        let oldest = now.checked_sub(BEHIND_MAX).unwrap_or(now);
        let turn = (self.next, self.due.max(oldest));
        self.next += 1;
        self.due = turn.1 + self.apart;
        Some(turn)
    }
}

/// One customer after the other on one connection, and on another one when that broke.
async fn order_on(gateway: String, turns: Arc<Mutex<Turns>>, seen: Arc<Mutex<Period>>) {
    let mut shopper = None;
    let mut hops = Vec::new();
    loop {
        // Its own statement: the lock must not be held while this customer waits for its turn.
        let turn = turns.lock().await.take(Instant::now());
        let Some((n, due)) = turn else {
            return;
        };
        tokio::time::sleep_until(due.into()).await;
        let placed = place(&gateway, &mut shopper, n, &mut hops).await;
        seen.lock().await.add(due.elapsed(), placed, &hops);
    }
}

async fn place(
    gateway: &str,
    kept: &mut Option<Shopper>,
    n: u64,
    hops: &mut Vec<HopSeen>,
) -> Result<(), Error> {
    let mut shopper = match kept.take() {
        Some(shopper) => shopper,
        None => Shopper::http(gateway).await?,
    };
    let placed = shopper.order(n, hops).await;
    // After any other failure nobody knows what the connection would say next.
    if matches!(placed, Ok(()) | Err(Error::Refused { .. })) {
        *kept = Some(shopper);
    }
    placed
}

/// What was seen since the last line.
struct Period {
    start: Instant,
    tally: Tally,
    failures: BTreeMap<String, u64>,
}

/// A line of JSON: durations in nanoseconds.
#[derive(Serialize)]
struct Line<'a> {
    seconds: f64,
    orders: u64,
    failed: u64,
    order_p50_ns: u64,
    order_p99_ns: u64,
    hop_p50_ns: u64,
    hop_p99_ns: u64,
    hops_by_path: &'a BTreeMap<&'static str, u64>,
    failures: &'a BTreeMap<String, u64>,
}

impl Period {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            tally: Tally::new(),
            failures: BTreeMap::new(),
        }
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    fn add(&mut self, took: Duration, placed: Result<(), Error>, hops: &[HopSeen]) {
        let Err(error) = placed else {
            self.tally.add(took, hops);
            return;
        };
        let full = self.failures.len() >= FAILURES_MAX;
        let mut failure = error.to_string();
        if full && !self.failures.contains_key(&failure) {
            failure = "others".to_owned();
        }
        *self.failures.entry(failure).or_default() += 1;
    }

    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn line(&self) -> String {
        let tally = &self.tally;
        let line = Line {
            seconds: self.start.elapsed().as_secs_f64(),
            orders: tally.orders,
            failed: self.failed(),
            order_p50_ns: tally.order_ns.value_at_quantile(0.5),
            order_p99_ns: tally.order_ns.value_at_quantile(0.99),
            hop_p50_ns: tally.hop_ns.value_at_quantile(0.5),
            hop_p99_ns: tally.hop_ns.value_at_quantile(0.99),
            hops_by_path: &tally.hops_by_path,
            failures: &self.failures,
        };
        serde_json::to_string(&line).unwrap_or_else(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn turns(orders: Option<u64>) -> Turns {
        Turns::new(&Steady {
            gateway: String::new(),
            rate: 10.0,
            in_flight: 1,
            orders,
            every: 1,
        })
    }

    #[test]
    fn orders_come_at_the_rate_asked_for_and_end() {
        let mut turns = turns(Some(3));
        let start = turns.due;
        let due: Vec<_> = std::iter::from_fn(|| turns.take(start)).collect();
        let at = |tenths: u32| start + tenths * Duration::from_millis(100);
        assert_eq!(due, [(0, at(0)), (1, at(1)), (2, at(2))]);
    }

    #[test]
    fn what_was_missed_for_long_is_not_made_up_for() {
        let mut turns = turns(None);
        let late = turns.due + Duration::from_secs(60);
        assert_eq!(turns.take(late).unwrap().1, late - BEHIND_MAX);
    }

    #[test]
    fn failures_are_counted_by_what_they_say_within_bounds() {
        let mut period = Period::new();
        for n in 0..100_u64 {
            let status = n.to_string();
            period.add(Duration::ZERO, Err(Error::NotConfirmed(status)), &[]);
        }
        assert_eq!(period.failed(), 100);
        assert_eq!(period.failures.len(), FAILURES_MAX + 1);
        let line: serde_json::Value = serde_json::from_str(&period.line()).unwrap();
        assert_eq!(line["failures"]["others"], 92);
    }
}
