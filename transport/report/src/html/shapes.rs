//! Every shape of call that was timed against every path: where the verdict holds, and how much.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::page::{Group, Page, Row, Unit};
use crate::paths::{is_grpc, known};
use crate::words::{count, time, times};

/// A table of shapes; nothing where there is but one, which the page has shown already.
pub(super) fn section(page: &Page) -> Markup {
    let shapes = page.groups.iter().filter(|group| group.unit != Unit::Hop);
    let groups: Vec<&Group> = shapes
        .filter(|group| group.timed().next().is_some())
        .collect();
    if groups.len() < 2 {
        return html! {};
    }
    let paths = paths(&groups);
    html! {
        section #shapes {
            h2 { "Every shape of call" }
            p.dim { "One in flight: the median. Many in flight: how many a second. Below each figure, how many \
                     times better than the best gRPC of its line." }
            div.wide {
                table.shapes {
                    thead {
                        tr {
                            th { "" }
                            @for path in &paths { th class=(known(path).class) { (known(path).label) } }
                        }
                    }
                    tbody {
                        @for group in &groups { (line(group, &paths)) }
                    }
                }
            }
        }
    }
}

/// In the order in which they were asked for.
fn paths(groups: &[&Group]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let rows = groups.iter().flat_map(|group| group.timed());
    rows.filter(|row| seen.insert(&row.path))
        .map(|row| row.path.clone())
        .collect()
}

fn line(group: &Group, paths: &[String]) -> Markup {
    let grpc = group
        .timed()
        .filter(|row| is_grpc(&row.path))
        .map(|row| each_ns(group, row));
    let best_grpc_ns = grpc.min_by(f64::total_cmp);
    html! {
        tr {
            th { (super::tables::heading(group)) }
            @for path in paths {
                @match group.timed().find(|row| row.path == *path) {
                    Some(row) => (cell(group, row, best_grpc_ns)),
                    None => td { "–" },
                }
            }
        }
    }
}

fn cell(group: &Group, row: &Row, best_grpc_ns: Option<f64>) -> Markup {
    let figure = match throughput(group, row) {
        Some(per_s) => format!("{}/s", count(per_s)),
        None => time(row.p50_ns()),
    };
    let better = best_grpc_ns.map(|grpc_ns| grpc_ns / each_ns(group, row));
    html! {
        td style=(better.map_or(String::new(), tint)) {
            (figure)
            @if let Some(better) = better { small { (times(better)) "×" } }
        }
    }
}

/// What throughput makes of one, or its latency, ns.
fn each_ns(group: &Group, row: &Row) -> f64 {
    throughput(group, row).map_or(row.p50_ns().max(1.0), |per_s| 1e9 / per_s)
}

fn throughput(group: &Group, row: &Row) -> Option<f64> {
    let counts = group.in_flight > 1 && group.rate.is_none();
    row.per_s.filter(|per_s| counts && *per_s > 0.0)
}

/// How strongly a cell is coloured: not at all where gRPC is as good, full at a hundred times; in
/// the colour of a loss where gRPC is better by a tenth.
fn tint(better: f64) -> String {
    let (name, times) = match better {
        0.9.. => ("gain", better.max(1.0)),
        _ => ("loss", 1.0 / better.max(0.01)),
    };
    format!("--{name}:{:.0}%", (times.log10() * 25.0).min(50.0))
}
