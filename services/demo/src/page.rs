//! The demo's result as the page of `--report`.

use ringway_report::{Group, Page, Row as PageRow, Unit};

use crate::report::{Report, Row};

/// The page of `report`, made by `command`.
pub(crate) fn page(report: &Report, command: Vec<String>) -> Page {
    let edge = if report.direct {
        "direct"
    } else {
        "through HTTP"
    };
    let group = |unit, kind: &str, rows| Group {
        unit,
        kind: kind.to_owned(),
        size_bytes: None,
        in_flight: report.in_flight,
        rate: None,
        handler: None,
        rows,
    };
    let rows = |drawn: fn(&Row) -> PageRow| report.rows.iter().map(drawn).collect();
    Page {
        program: "demo: a shop as processes, its orders over each path".to_owned(),
        command,
        machine: report.machine.facts(),
        warning: cfg!(debug_assertions).then(|| {
            "A debug build: use cargo run --release, these figures mean nothing.".to_owned()
        }),
        groups: vec![
            group(Unit::Order, &format!("orders {edge}"), rows(orders)),
            group(Unit::Hop, "calls between services", rows(hops)),
        ],
        traces: report.traces.clone(),
        ..Page::default()
    }
}

fn orders(row: &Row) -> PageRow {
    PageRow {
        path: row.path.clone(),
        latency_ns: row.order_ns.clone(),
        per_s: Some(row.orders_per_s),
        cpu_ns: Some(row.cpu_ns_per_order),
    }
}

fn hops(row: &Row) -> PageRow {
    PageRow {
        path: row.path.clone(),
        latency_ns: row.hop_ns.clone(),
        per_s: None,
        cpu_ns: None,
    }
}
