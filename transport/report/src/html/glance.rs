//! The three figures that decide, as bars, and what each path is for.

use maud::{Markup, html};

use super::percent;
use crate::page::{Group, Page, Row};
use crate::paths::{Known, is_burdened, known};
use crate::words::{count, time};

/// Latency, throughput and CPU side by side.
pub(super) fn section(page: &Page) -> Markup {
    let (Some(foremost), Some(busiest)) = (page.foremost(), page.busiest().or(page.foremost()))
    else {
        return html! {};
    };
    let unit = foremost.unit;
    let more = match std::ptr::eq(foremost, busiest) {
        true => "longer is better".to_owned(),
        false => format!("{} in flight, longer is better", busiest.in_flight),
    };
    html! {
        section #glance {
            h2 { "At a glance" }
            p.dim { (foremost.title()) }
            div.tiles {
                (tile("Latency", "median, shorter is better", foremost, |row| Some(row.p50_ns()), time))
                @if busiest.rate.is_none() {
                    (tile(
                        &format!("{} a second", capital(busiest.unit.many())),
                        &more, busiest, |row| row.per_s, count,
                    ))
                }
                (tile(&format!("CPU {}", unit.a()), "of all processes, shorter is better", foremost, |row| row.cpu_ns, time))
            }
        }
    }
}

/// What each path that was timed is for.
pub(super) fn choice(page: &Page) -> Markup {
    let Some(group) = page.foremost() else {
        return html! {};
    };
    html! {
        section #choice {
            h2 { "Which path to use" }
            ul.choice {
                @for (row, path) in plain(group) {
                    li class=(path.class) {
                        strong.name { (path.label) }
                        code { (row.path) }
                        p { (path.when) }
                    }
                }
            }
            p.dim { "A Ringway client asks for a service by its address and takes the best of these that works; \
                     nobody has to choose. An address can force one: " code { "shm://catalog:50051" } "." }
        }
    }
}

fn plain(group: &Group) -> impl Iterator<Item = (&Row, Known)> {
    let rows = group.timed().filter(|row| !is_burdened(&row.path));
    rows.map(|row| (row, known(&row.path)))
        .filter(|(_, path)| !path.when.is_empty())
}

fn tile(
    title: &str,
    how: &str,
    group: &Group,
    figure: fn(&Row) -> Option<f64>,
    words: fn(f64) -> String,
) -> Markup {
    let rows = || {
        group
            .timed()
            .filter_map(|row| Some((known(&row.path), figure(row)?)))
    };
    let most = rows().map(|(_, figure)| figure).fold(0.0, f64::max);
    if most <= 0.0 {
        return html! {};
    }
    html! {
        div.tile {
            h3 { (title) }
            p.dim { (how) }
            @for (path, figure) in rows() {
                div.bar.(path.class) {
                    span.label { (path.label) }
                    span.figure { (words(figure)) }
                    span.track { i style=(format!("width:{}", percent(100.0 * figure / most))) {} }
                }
            }
        }
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase());
    first.into_iter().flatten().chain(letters).collect()
}
