//! Orders in flight, counted and timed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use crate::Error;
use crate::fleet::Fleet;
use crate::shopper::{HopSeen, Shopper};

/// Longest order that is told from a longer one, ns.
const LONGEST_NS: u64 = 60_000_000_000;
/// Orders between two moves of the progress bar, so that it costs nothing.
const BAR_STEP: u64 = 64;

/// What was seen of some orders.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) orders: u64,
    pub(crate) order_ns: Histogram<u64>,
    pub(crate) hop_ns: Histogram<u64>,
    pub(crate) hops_by_path: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            orders: 0,
            order_ns: histogram(),
            hop_ns: histogram(),
            hops_by_path: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, order: Duration, hops: &[HopSeen]) {
        self.orders += 1;
        let order_ns = u64::try_from(order.as_nanos()).unwrap_or(LONGEST_NS);
        self.order_ns.saturating_record(order_ns);
        for hop in hops {
            self.hop_ns.saturating_record(hop.nanoseconds);
            *self.hops_by_path.entry(hop.path).or_default() += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.orders += other.orders;
        // Both are built alike, so neither can be out of the other's range.
        let _ = self.order_ns.add(&other.order_ns);
        let _ = self.hop_ns.add(&other.hop_ns);
        for (path, count) in &other.hops_by_path {
            *self.hops_by_path.entry(path).or_default() += count;
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .unwrap_or_else(|error| unreachable!("constant bounds: {error}"))
}

/// Customers that are connected and wait for the start.
pub(crate) struct Crowd {
    shoppers: Vec<Shopper>,
    next: Arc<AtomicU64>,
}

impl Crowd {
    /// As many customers as orders are to be in flight.
    pub(crate) async fn gather(fleet: &Fleet, in_flight: usize) -> Result<Self, Error> {
        let mut shoppers = Vec::with_capacity(in_flight);
        match fleet.gateway {
            Some(gateway) => {
                for _ in 0..in_flight {
                    shoppers.push(Shopper::http(&gateway.to_string()).await?);
                }
            }
            None => {
                let peer = fleet.orders()?;
                shoppers.extend((0..in_flight).map(|_| Shopper::direct(&peer)));
            }
        }
        Ok(Self {
            shoppers,
            next: Arc::default(),
        })
    }

    /// Places `orders` orders; the first failure ends it.
    pub(crate) async fn place(&mut self, orders: u64, bar: &ProgressBar) -> Result<Tally, Error> {
        let first = self.next.load(Ordering::Relaxed);
        let mut customers = JoinSet::new();
        for shopper in self.shoppers.drain(..) {
            let next = Arc::clone(&self.next);
            customers.spawn(shop(shopper, next, first + orders, bar.clone()));
        }
        let mut tally = Tally::new();
        while let Some(customer) = customers.join_next().await {
            let (shopper, seen) = customer??;
            tally.merge(&seen);
            self.shoppers.push(shopper);
        }
        // Each customer took one number more than it ordered.
        self.next.store(first + orders, Ordering::Relaxed);
        Ok(tally)
    }
}

async fn shop(
    mut shopper: Shopper,
    next: Arc<AtomicU64>,
    end: u64,
    bar: ProgressBar,
) -> Result<(Shopper, Tally), Error> {
    let mut tally = Tally::new();
    let mut hops = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= end {
            return Ok((shopper, tally));
        }
        let start = Instant::now();
        shopper.order(n, &mut hops).await?;
        tally.add(start.elapsed(), &hops);
        if n.is_multiple_of(BAR_STEP) {
            bar.inc(BAR_STEP);
        }
    }
}
