//! All figures as tables, for who wants to know exactly.

use maud::{Markup, html};

use crate::page::{Group, Page, Row, Unit, float};
use crate::paths::known;
use crate::words::{count, time};

/// A table for each group, folded.
pub(super) fn section(page: &Page) -> Markup {
    html! {
        section #figures {
            h2 { "All figures" }
            @for (number, group) in page.groups.iter().enumerate() {
                details open[number == 0] {
                    summary { (heading(group)) }
                    (table(&group.rows, group.unit))
                }
            }
            @if !page.floors.is_empty() {
                details {
                    summary { "bare mechanisms, 64 B there and back" }
                    (table(&page.floors, Unit::Call))
                }
            }
            @if !page.idle.is_empty() {
                details {
                    summary { "connections that do nothing" }
                    (idle(page))
                }
            }
        }
    }
}

/// A group's name.
pub(super) fn heading(group: &Group) -> String {
    match group.unit {
        Unit::Hop => format!("{}, of these orders", group.title()),
        _ => group.title(),
    }
}

fn table(rows: &[Row], unit: Unit) -> Markup {
    html! {
        div.wide {
            table {
                thead {
                    tr {
                        th { "path" } th { (unit.many()) }
                        th { "p50" } th { "p90" } th { "p99" } th { "p99.9" } th { "longest" }
                        th { (unit.many()) "/s" } th { "CPU " (unit.a()) }
                    }
                }
                tbody { @for row in rows { (line(row)) } }
            }
        }
    }
}

fn line(row: &Row) -> Markup {
    let path = known(&row.path);
    html! {
        tr {
            th class=(path.class) { (path.label) @if path.label != row.path { " " code { (row.path) } } }
            td { (count(float(row.latency_ns.len()))) }
            @for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                td { @if row.is_timed() { (time(row.quantile_ns(quantile))) } @else { "–" } }
            }
            td { (row.per_s.map_or("–".to_owned(), count)) }
            td { (row.cpu_ns.map_or("–".to_owned(), time)) }
        }
    }
}

fn idle(page: &Page) -> Markup {
    html! {
        div.wide {
            table {
                thead {
                    tr { th { "path" } th { "connections" } th { "CPU a second" } th { "memory a connection" } }
                }
                tbody {
                    @for row in &page.idle {
                        tr {
                            th class=(known(&row.path).class) { (known(&row.path).label) }
                            td { (row.connections) }
                            td { (time(row.cpu_ns_per_s)) }
                            td { (format!("{:.1} KiB", row.bytes_per_connection / 1024.0)) }
                        }
                    }
                }
            }
        }
    }
}
