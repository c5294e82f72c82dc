//! What the demo prints and writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use ringway_report::Trace;
use serde::Serialize;

use crate::Error;
use crate::Options;
use crate::load::Tally;
use crate::page::page;
use crate::paths::DemoPath;

/// The whole report, as `--json` writes it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    #[serde(skip)]
    pub(crate) in_flight: usize,
    #[serde(skip)]
    pub(crate) direct: bool,
    /// A typical order on each path.
    #[serde(skip)]
    pub(crate) traces: Vec<Trace>,
    /// What became of the spans that `--otlp` sent.
    #[serde(skip)]
    sent: Option<String>,
}

/// What the figures depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpus: usize,
    cpu: String,
    kernel: String,
}

/// One path's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: String,
    orders: u64,
    pub(crate) orders_per_s: f64,
    order_p50_ns: u64,
    order_p99_ns: u64,
    hop_p50_ns: u64,
    hop_p99_ns: u64,
    pub(crate) cpu_ns_per_order: f64,
    hops_per_order: f64,
    hops_by_path: BTreeMap<&'static str, u64>,
    /// Latencies of orders, whole, for the page of `--report`.
    #[serde(skip)]
    pub(crate) order_ns: Histogram<u64>,
    /// Those of the calls between services.
    #[serde(skip)]
    pub(crate) hop_ns: Histogram<u64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn float(count: u64) -> f64 {
    count as f64
}

impl Row {
    pub(crate) fn new(path: DemoPath, tally: Tally, took: Duration, cpu_ns: u64) -> Self {
        let orders = float(tally.orders.max(1));
        Self {
            path: path.to_string(),
            orders: tally.orders,
            orders_per_s: orders / took.as_secs_f64(),
            order_p50_ns: tally.order_ns.value_at_quantile(0.5),
            order_p99_ns: tally.order_ns.value_at_quantile(0.99),
            hop_p50_ns: tally.hop_ns.value_at_quantile(0.5),
            hop_p99_ns: tally.hop_ns.value_at_quantile(0.99),
            cpu_ns_per_order: float(cpu_ns) / orders,
            hops_per_order: float(tally.hop_ns.len()) / orders,
            hops_by_path: tally.hops_by_path,
            order_ns: tally.order_ns,
            hop_ns: tally.hop_ns,
        }
    }

    /// The first path that hops took and should not have.
    pub(crate) fn strayed(&self) -> Option<Error> {
        let (taken, count) = self
            .hops_by_path
            .iter()
            .find(|(taken, _)| **taken != self.path)?;
        let (taken, expected) = ((*taken).to_owned(), self.path.clone());
        Some(Error::WrongPath {
            count: *count,
            taken,
            expected,
        })
    }
}

impl Report {
    pub(crate) fn new(
        rows: Vec<Row>,
        traces: Vec<Trace>,
        sent: Option<String>,
        options: &Options,
    ) -> Self {
        Self {
            machine: Machine::here(),
            rows,
            in_flight: options.in_flight,
            direct: options.direct,
            traces,
            sent,
        }
    }

    /// A row that shows an order going astray.
    pub(crate) fn strayed(&self) -> Option<Error> {
        self.rows.iter().find_map(Row::strayed)
    }

    /// A table for people, times in µs.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "path",
            "orders/s",
            "order p50",
            "order p99",
            "hop p50",
            "hop p99",
            "CPU/order",
            "hops/order",
            "hops by path",
        ]);
        for row in &self.rows {
            let by_path = row
                .hops_by_path
                .iter()
                .map(|(path, count)| format!("{path} {count}"));
            table.add_row([
                row.path.clone(),
                format!("{:.0}", row.orders_per_s),
                micros(float(row.order_p50_ns)),
                micros(float(row.order_p99_ns)),
                micros(float(row.hop_p50_ns)),
                micros(float(row.hop_p99_ns)),
                micros(row.cpu_ns_per_order),
                format!("{:.1}", row.hops_per_order),
                by_path.collect::<Vec<_>>().join(", "),
            ]);
        }
        for index in 1..=7 {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let Machine { cpus, cpu, kernel } = &self.machine;
        let mut text = format!("{table}\n{cpus} CPUs ({cpu}), Linux {kernel}");
        text.extend(self.sent.iter().map(|sent| format!("\n{sent}")));
        text
    }

    /// Writes the report as a page for a browser, which says that `command` made it.
    ///
    /// # Errors
    /// [`Error::Report`] if the file can't be written.
    pub fn draw(&self, path: &Path, command: Vec<String>) -> Result<(), Error> {
        let written = page(self, command).write(path);
        written.map_err(|source| Error::Report {
            path: path.to_owned(),
            source,
        })
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// [`Error::Report`] if the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Report {
            path: path.to_owned(),
            source,
        };
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        json.push(b'\n');
        fs::write(path, json).map_err(failed)
    }
}

fn micros(ns: f64) -> String {
    format!("{:.1} µs", ns / 1e3)
}

impl Machine {
    /// Names and values.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let build = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        [
            ("processors", format!("{} × {}", self.cpus, self.cpu)),
            ("kernel", format!("Linux {}", self.kernel)),
            (
                "Ringway",
                format!("{}, {build} build", env!("CARGO_PKG_VERSION")),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hops_by_path: BTreeMap<&'static str, u64>) -> Row {
        Row {
            path: "grpc-tcp".to_owned(),
            orders: 2,
            orders_per_s: 1000.0,
            order_p50_ns: 1,
            order_p99_ns: 2,
            hop_p50_ns: 3,
            hop_p99_ns: 4,
            cpu_ns_per_order: 5.0,
            hops_per_order: 7.0,
            hops_by_path,
            order_ns: Histogram::new(3).unwrap_or_else(|error| unreachable!("{error}")),
            hop_ns: Histogram::new(3).unwrap_or_else(|error| unreachable!("{error}")),
        }
    }

    #[test]
    fn a_hop_that_strays_is_an_error() {
        assert!(row(BTreeMap::from([("grpc-tcp", 14)])).strayed().is_none());
        let strayed = row(BTreeMap::from([("grpc-tcp", 13), ("shm", 1)])).strayed();
        assert_eq!(
            strayed.map(|error| error.to_string()).as_deref(),
            Some("1 hops took shm where all should have taken grpc-tcp")
        );
    }

    #[test]
    fn the_json_has_the_agreed_keys() {
        let report = Report {
            machine: Machine::here(),
            rows: vec![row(BTreeMap::from([("grpc-tcp", 14)]))],
            in_flight: 1,
            direct: false,
            traces: Vec::new(),
            sent: None,
        };
        let json = serde_json::to_value(&report).unwrap_or_default();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value
                .as_object()
                .map(|map| map.keys().cloned().collect())
                .unwrap_or_default()
        };
        assert_eq!(keys(&json), ["machine", "rows"]);
        let mut expected = [
            "path",
            "orders",
            "orders_per_s",
            "order_p50_ns",
            "order_p99_ns",
            "hop_p50_ns",
            "hop_p99_ns",
            "cpu_ns_per_order",
            "hops_per_order",
            "hops_by_path",
        ];
        expected.sort_unstable();
        let mut keys = keys(&json["rows"][0]);
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }
}
