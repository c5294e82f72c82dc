//! The bare mechanisms of the machine, with the paths among them.

use maud::{Markup, html};

use super::{axis, grid, percent};
use crate::page::{Page, Row};
use crate::paths::{floor, known};
use crate::scale::LogScale;
use crate::words::time;

/// A mechanism or a path, by its median.
struct Entry {
    label: String,
    what: &'static str,
    class: &'static str,
    p50_ns: f64,
}

/// What it takes on this machine to tell another process something.
pub(super) fn section(page: &Page) -> Markup {
    let floors = page.floors.iter().filter(|row| row.is_timed());
    let mut entries: Vec<Entry> = floors.map(of_floor).collect();
    if entries.is_empty() {
        return html! {
            section #floors {
                h2 { "The machine's floors" }
                p.dim { "Not timed in this run. " code { "ringway compare --floors --report FILE" }
                        " shows what each bare mechanism of the machine costs, beside the paths." }
            }
        };
    }
    let paths = page
        .foremost()
        .into_iter()
        .filter(|group| group.in_flight == 1);
    entries.extend(paths.flat_map(|group| group.timed()).map(of_path));
    entries.sort_by(|a, b| a.p50_ns.total_cmp(&b.p50_ns));
    let scale = LogScale::around(entries.iter().map(|entry| entry.p50_ns));
    html! {
        section #floors {
            h2 { "The machine's floors" }
            p.dim { "64 bytes to another process and back over each bare mechanism, without any call, and the \
                     paths among them. Medians, logarithmic." }
            div.lollipops {
                @for entry in &entries { (lollipop(entry, scale)) }
                div.lollipop { span.label {} (axis(scale)) span.figures {} }
            }
        }
    }
}

fn of_floor(row: &Row) -> Entry {
    Entry {
        label: row.path.clone(),
        what: floor(&row.path),
        class: "p-floor",
        p50_ns: row.p50_ns(),
    }
}

fn of_path(row: &Row) -> Entry {
    let path = known(&row.path);
    Entry {
        label: path.label,
        what: "",
        class: path.class,
        p50_ns: row.p50_ns(),
    }
}

fn lollipop(entry: &Entry, scale: LogScale) -> Markup {
    let at = percent(scale.percent(entry.p50_ns));
    html! {
        div.lollipop.(entry.class) {
            span.label { (entry.label) @if !entry.what.is_empty() { small { (entry.what) } } }
            div.plot {
                (grid(scale))
                i.stick style=(format!("width:{at}")) {}
                i.dot style=(format!("left:{at}")) {}
            }
            span.figures { b { (time(entry.p50_ns)) } }
        }
    }
}
