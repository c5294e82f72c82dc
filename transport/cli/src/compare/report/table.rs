//! Rows as tables for the terminal.

use comfy_table::{CellAlignment, Table, presets};
use ringway_report::words::{count, size, time};

use crate::compare::measure::{CallRow, IdleRow, Row, RowLabel, to_f64};
use crate::compare::pairs::Price;

const FIRST_NUMBER: usize = 2;

/// The rows of calls; none if there are none.
pub(super) fn calls(rows: &[Row]) -> Option<Table> {
    let mut table = table(&[
        "path",
        "kind",
        "size",
        "in flight",
        "calls",
        "p50",
        "p99",
        "p99.9",
        "calls/s",
        "CPU a call",
    ]);
    for row in rows {
        if let Row::Calls(row) = row {
            table.add_row(call_cells(row));
        }
    }
    finish(table)
}

/// What tracing cost; none if it was not asked for.
pub(super) fn traced(rows: &[Row]) -> Option<Table> {
    let mut table = table(&[
        "path",
        "kind",
        "size",
        "in flight",
        "recorded",
        "mean without",
        "mean with",
        "more a call",
        "calls/s",
        "spans sent",
        "lost",
    ]);
    for row in rows {
        if let Row::Calls(CallRow {
            label,
            tracing: Some(price),
            ..
        }) = row
        {
            table.add_row(traced_cells(label, price));
        }
    }
    finish(table)
}

/// The rows of idle connections; none if there are none.
pub(super) fn idle(rows: &[Row]) -> Option<Table> {
    let mut table = table(&[
        "path",
        "kind",
        "connections",
        "CPU a second",
        "memory a connection",
    ]);
    for row in rows {
        if let Row::Idle(row) = row {
            table.add_row(idle_cells(row));
        }
    }
    finish(table)
}

fn call_cells(row: &CallRow) -> [String; 10] {
    [
        row.label.path.clone(),
        row.label.kind.to_string(),
        size(row.label.size_bytes),
        row.label.in_flight.to_string(),
        count(to_f64(row.calls)),
        time(to_f64(row.p50_ns)),
        time(to_f64(row.p99_ns)),
        time(to_f64(row.p999_ns)),
        count(row.calls_per_s),
        time(row.cpu_ns_per_call),
    ]
}

fn traced_cells(label: &RowLabel, price: &Price) -> [String; 11] {
    [
        label.path.clone(),
        label.kind.to_string(),
        size(label.size_bytes),
        label.in_flight.to_string(),
        format!("{} %", price.trace * 100.0),
        time(price.mean_ns_without),
        time(price.mean_ns_with),
        format!("{:.0} ± {:.0} ns", price.extra_ns, price.extra_ns_error),
        format!("{:.1} %", price.calls_per_s_ratio * 100.0),
        count(to_f64(price.spans_sent)),
        count(to_f64(price.spans_lost)),
    ]
}

fn idle_cells(row: &IdleRow) -> [String; 5] {
    [
        row.path.clone(),
        row.kind.to_owned(),
        row.connections.to_string(),
        time(row.cpu_ns_per_s),
        format!("{:.1} KiB", row.bytes_per_connection / 1024.0),
    ]
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn finish(mut table: Table) -> Option<Table> {
    table.row(0)?;
    for column in table.column_iter_mut().skip(FIRST_NUMBER) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Some(table)
}
