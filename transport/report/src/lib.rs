//! A comparison of paths as one HTML page: self-contained, without scripts, for a phone as for a
//! desk, in the light as in the dark.
//!
//! ```text
//! page, trace              what is to be shown; nothing of HTML
//! verdict                  what the figures come to, in a sentence
//! density, scale           latencies as a curve over a logarithmic axis
//! waterfall                a trace as rows of steps, in the order of the clock
//! collector, otlp          where traces come from: the services send them here
//! counter                  the same where only their number is wanted
//! html                     all of it drawn
//! ```
//!
//! The charts are HTML and style sheets, and SVG only where something is curved: so text keeps its
//! size on a narrow screen and the colours follow the reader's scheme, which a chart library's
//! picture of fixed width and colours can't. [maud] escapes whatever is put in.
//!
//! ```
//! use hdrhistogram::Histogram;
//! use ringway_report::{Group, Page, Row, Unit};
//!
//! let mut latency_ns = Histogram::new(3)?;
//! latency_ns.record(1750)?;
//! let row = Row { path: "shm".into(), latency_ns, per_s: Some(570_000.0), cpu_ns: None };
//! let page = Page {
//!     program: "ringway compare".into(),
//!     groups: vec![Group {
//!         unit: Unit::Call,
//!         kind: "unary".into(),
//!         size_bytes: Some(64),
//!         in_flight: 1,
//!         rate: None,
//!         handler: None,
//!         rows: vec![row],
//!     }],
//!     ..Page::default()
//! };
//! assert!(page.html().contains("1.75 µs"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod collector;
mod counter;
mod density;
mod html;
mod otlp;
mod page;
mod paths;
mod scale;
mod trace;
mod verdict;
mod waterfall;
pub mod words;

pub use collector::{Collected, Collector, Sent, answers};
pub use counter::Counter;
pub use page::{Group, Idle, Page, Row, Unit};
pub use trace::{Event, Span, SpanKind, Trace};
