//! What a page is made of. Nothing here knows HTML.

use hdrhistogram::Histogram;

use crate::trace::Trace;
use crate::words;

/// A comparison, to be shown to a person.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The program, as a person calls it: `ringway compare`.
    pub program: String,
    /// The words of the command that made the page, the program's own first.
    pub command: Vec<String>,
    /// What it was measured on, each a name and a value.
    pub machine: Vec<(String, String)>,
    /// What makes the figures worthless, if anything does.
    pub warning: Option<String>,
    /// What was timed. The page's verdict is about the smallest of them.
    pub groups: Vec<Group>,
    /// Bare mechanisms of the machine, 64 bytes there and back; none where they were not timed.
    pub floors: Vec<Row>,
    /// Connections that did nothing.
    pub idle: Vec<Idle>,
    /// One typical call or order on each path, as traces.
    pub traces: Vec<Trace>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// Rows that were timed in turn and may be compared.
#[derive(Debug, Clone)]
pub struct Group {
    /// What one sample of the latency is.
    pub unit: Unit,
    /// Which calls these are: `unary`, `server-stream`.
    pub kind: String,
    /// What each carried, in bytes; none where that varies.
    pub size_bytes: Option<usize>,
    /// How many were under way at a time.
    pub in_flight: usize,
    /// Calls a second, where they came on a schedule and not as fast as possible.
    pub rate: Option<f64>,
    /// What the handlers did beside answering, as words: `handlers that compute for 100 µs`.
    pub handler: Option<String>,
    /// A path each.
    pub rows: Vec<Row>,
}

/// One path's figures in a group, or those of a bare mechanism.
#[derive(Debug, Clone)]
pub struct Row {
    /// As the command line has it: `shm`, `grpc-unix`, `shm+metadata`, `spin`.
    pub path: String,
    /// Latencies, ns.
    pub latency_ns: Histogram<u64>,
    /// How many a second; none where that was not counted.
    pub per_s: Option<f64>,
    /// CPU time of all processes for each, ns; none where that was not counted.
    pub cpu_ns: Option<f64>,
}

/// What connections cost that do nothing.
#[derive(Debug, Clone)]
pub struct Idle {
    /// Over which path.
    pub path: String,
    /// How many were open.
    pub connections: u32,
    /// CPU time of both ends in a second, ns.
    pub cpu_ns_per_s: f64,
    /// Memory of both ends for each, in bytes.
    pub bytes_per_connection: f64,
}

/// What is counted and timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A call with one answer.
    Call,
    /// Calls of one task at once, up to the last answer.
    Join,
    /// A message of a stream.
    Message,
    /// An order of the example shop, with all calls that it takes.
    Order,
    /// One of an order's calls.
    Hop,
}

impl Unit {
    /// One of it: `call`.
    pub(crate) fn one(self) -> &'static str {
        match self {
            Unit::Call => "call",
            Unit::Join => "join",
            Unit::Message => "message",
            Unit::Order => "order",
            Unit::Hop => "hop",
        }
    }

    /// One of it, as a sentence has it: `a call`.
    pub(crate) fn a(self) -> &'static str {
        match self {
            Unit::Call => "a call",
            Unit::Join => "a join",
            Unit::Message => "a message",
            Unit::Order => "an order",
            Unit::Hop => "a hop",
        }
    }

    /// Many of it: `calls`.
    pub(crate) fn many(self) -> &'static str {
        match self {
            Unit::Call => "calls",
            Unit::Join => "joins",
            Unit::Message => "messages",
            Unit::Order => "orders",
            Unit::Hop => "hops",
        }
    }
}

impl Group {
    /// What it is about: `unary, 64 B, 1 in flight`.
    pub(crate) fn title(&self) -> String {
        let mut parts = vec![self.kind.clone()];
        parts.extend(self.size_bytes.map(words::size));
        parts.push(format!("{} in flight", self.in_flight));
        parts.extend(
            self.rate
                .map(|rate| format!("{} a second", words::count(rate))),
        );
        parts.extend(self.handler.clone());
        parts.join(", ")
    }

    /// The rows that something was timed in.
    pub(crate) fn timed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_timed())
    }
}

impl Row {
    pub(crate) fn is_timed(&self) -> bool {
        !self.latency_ns.is_empty()
    }

    /// The latency that this share of all stayed within, ns.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> f64 {
        float(self.latency_ns.value_at_quantile(quantile))
    }

    pub(crate) fn p50_ns(&self) -> f64 {
        self.quantile_ns(0.5)
    }

    pub(crate) fn p99_ns(&self) -> f64 {
        self.quantile_ns(0.99)
    }
}

/// Counts and nanoseconds for people: 53 bits are plenty.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
