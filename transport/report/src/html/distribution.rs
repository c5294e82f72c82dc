//! How the latencies are distributed: a curve for each path over one logarithmic axis.

use std::fmt::Write;

use maud::{Markup, html};

use super::tables::heading;
use super::{axis, grid, percent};
use crate::density::{POINTS, density};
use crate::page::{Group, Page, Row, Unit};
use crate::paths::known;
use crate::scale::LogScale;
use crate::words::time;

/// What of a distribution is on the axis: the rest would leave no room for it.
const LEAST: f64 = 0.001;
const MOST: f64 = 0.999;

/// The distributions of the foremost group, and of the others on demand.
pub(super) fn section(page: &Page) -> Markup {
    let Some(foremost) = page.foremost() else {
        return html! {};
    };
    let others = page
        .groups
        .iter()
        .filter(|group| !std::ptr::eq(*group, foremost));
    let others = others.filter(|group| group.timed().next().is_some());
    let (hops, others): (Vec<&Group>, Vec<&Group>) =
        others.partition(|group| group.unit == Unit::Hop);
    html! {
        section #distributions {
            h2 { "How long " (foremost.unit.a()) " takes" }
            p.dim { "How often each latency occurred. "
                    span.key.solid {} "p50 " span.key.dashed {} "p99. Logarithmic: each decade is ten times the one before." }
            (chart(foremost))
            @for group in hops {
                h3 { (heading(group)) }
                (chart(group))
            }
            @if !others.is_empty() {
                details {
                    summary { "The same for " (others.len()) " more: other kinds, sizes, numbers in flight" }
                    @for group in others {
                        h3 { (heading(group)) }
                        (chart(group))
                    }
                }
            }
        }
    }
}

fn chart(group: &Group) -> Markup {
    let ends = |row: &Row| [row.quantile_ns(LEAST), row.quantile_ns(MOST)];
    let scale = LogScale::around(group.timed().flat_map(ends));
    html! {
        div.ridges role="group" aria-label=(format!("Latencies: {}", group.title())) {
            @for row in group.timed() { (ridge(row, scale)) }
            div.ridge { span.label {} (axis(scale)) span.figures {} }
        }
    }
}

fn ridge(row: &Row, scale: LogScale) -> Markup {
    let path = known(&row.path);
    let [p50, p99] = [row.p50_ns(), row.p99_ns()];
    let figures = format!("{}: p50 {}, p99 {}", path.label, time(p50), time(p99));
    html! {
        div.ridge.(path.class) title=(figures) {
            span.label { (path.label) }
            div.plot {
                (grid(scale))
                svg viewBox=(format!("0 0 {} 100", POINTS - 1)) preserveAspectRatio="none" aria-hidden="true" {
                    path d=(curve(row, scale)) {}
                }
                (marker("p50", p50, scale))
                (marker("p99", p99, scale))
            }
            span.figures {
                span { b { (time(p50)) } }
                span.dim { "p99 " (time(p99)) }
            }
        }
    }
}

fn marker(class: &str, ns: f64, scale: LogScale) -> Markup {
    let at = scale.percent(ns);
    html! {
        @if (0.0..=100.0).contains(&at) {
            i.mark.(class) style=(format!("left:{}", percent(at))) {}
        }
    }
}

/// The outline of a distribution. Points on the ground between two others on it are left out.
fn curve(row: &Row, scale: LogScale) -> String {
    let heights = density(&row.latency_ns, scale);
    let is_low = |at: usize| heights.get(at).is_none_or(|height| *height < 0.002);
    let mut outline = String::from("M0 100");
    for (at, height) in heights.iter().enumerate() {
        let inside = at > 0 && is_low(at - 1) && is_low(at) && is_low(at + 1);
        if !inside {
            // Writing to a string does not fail.
            let _ = write!(outline, "L{at} {:.1}", 100.0 - 96.0 * height);
        }
    }
    let _ = write!(outline, "L{} 100Z", POINTS - 1);
    outline
}
