//! One typical call or order on each path, step by step.

use maud::{Markup, html};

use super::percent;
use crate::page::Page;
use crate::paths::known;
use crate::scale::linear_ticks_ns;
use crate::trace::Trace;
use crate::waterfall::{Hop, Mark, Phase, Step, Waterfall};
use crate::words::{round_time, time};

/// The steps that two paths may be compared by: the handler's is the application's own.
const COMPARED: [Mark; 7] = [
    Mark::Encoded,
    Mark::Published,
    Mark::Seen,
    Mark::HandlerStarted,
    Mark::AnswerPublished,
    Mark::AnswerSeen,
    Mark::Decoded,
];

/// Marks of an axis, about: as many as a telephone has room for.
const TICKS: f64 = 6.0;

/// A waterfall for each trace, and the mean of each step.
pub(super) fn section(page: &Page) -> Markup {
    let falls = page
        .traces
        .iter()
        .filter_map(|trace| Some((trace, Waterfall::of(trace)?)));
    let falls: Vec<(&Trace, Waterfall)> = falls.collect();
    if falls.is_empty() {
        return html! {};
    }
    let longest_ns = falls
        .iter()
        .map(|(_, fall)| fall.took_ns)
        .fold(1.0, f64::max);
    let unit = page.foremost().map_or("a call", |group| group.unit.a());
    html! {
        section #waterfalls {
            h2 { "Where the time of " (unit) " goes" }
            p.dim { "One typical " (page.traced_unit()) " on each path, traced beside the timed ones. The bar beside \
                     each name is its length on a common scale." }
            p.legend {
                @for (phase, words) in PHASES { span { i.phase.(class(phase)) {} (words) } }
            }
            @for (trace, fall) in &falls { (one(trace, fall, longest_ns)) }
            (means(&falls))
        }
    }
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Coding, "encode, publish, decode"),
    (Phase::Way, "on the way to the other process, woken"),
    (Phase::Waiting, "seen, not yet worked on"),
    (Phase::Handler, "handler, with the calls it makes"),
];

fn class(phase: Phase) -> &'static str {
    match phase {
        Phase::Coding => "coding",
        Phase::Way => "way",
        Phase::Waiting => "waiting",
        Phase::Handler => "handler",
    }
}

fn one(trace: &Trace, fall: &Waterfall, longest_ns: f64) -> Markup {
    let path = known(&trace.path);
    html! {
        div.fall.(path.class) {
            h3 {
                span.name { (path.label) }
                span.figure { (time(fall.took_ns)) }
                span.track { i style=(format!("width:{}", percent(100.0 * fall.took_ns / longest_ns))) {} }
            }
            div.rows {
                @for hop in &fall.hops { (row(hop, trace, fall.took_ns)) }
                div.row { span.label {} (time_axis(fall.took_ns)) span.figures {} }
            }
        }
    }
}

fn row(hop: &Hop, trace: &Trace, took_ns: f64) -> Markup {
    // Spans say `grpc`, whatever that goes over.
    let elsewhere = hop
        .path
        .as_deref()
        .filter(|path| !trace.path.starts_with(path));
    html! {
        div.row {
            span.label style=(format!("--depth:{}", hop.depth)) {
                (service(&hop.service, &trace.path)) small { (method(&hop.name)) @if let Some(path) = elsewhere { " · " (path) } }
            }
            div.plot {
                @for at_ns in linear_ticks_ns(took_ns, TICKS) {
                    i.grid style=(format!("left:{}", percent(100.0 * at_ns / took_ns.max(1.0)))) {}
                }
                @if hop.steps.is_empty() {
                    i.step style=(place(hop.from_ns, hop.to_ns, took_ns)) title=(hop.name) {}
                }
                @for step in &hop.steps {
                    i.step.(class(step.phase)) style=(place(step.from_ns, step.to_ns, took_ns))
                        title=(format!("{}: {}", step.mark.step(), time(step.to_ns - step.from_ns))) {}
                }
            }
            span.figures { (time(hop.to_ns - hop.from_ns)) }
        }
    }
}

/// `orders` of `orders (shm)`, where that is what the whole waterfall is about.
fn service<'a>(service: &'a str, path: &str) -> &'a str {
    let bare = service
        .strip_suffix(')')
        .and_then(|it| it.strip_suffix(path));
    bare.and_then(|it| it.strip_suffix(" (")).unwrap_or(service)
}

/// `Place` of `shop.v1.Orders/Place`.
fn method(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, method)| method)
}

fn place(from_ns: f64, to_ns: f64, took_ns: f64) -> String {
    let share = |ns: f64| percent(100.0 * ns / took_ns.max(1.0));
    format!("left:{};width:{}", share(from_ns), share(to_ns - from_ns))
}

fn time_axis(took_ns: f64) -> Markup {
    html! {
        div.axis aria-hidden="true" {
            @for at_ns in linear_ticks_ns(took_ns, TICKS) {
                span style=(format!("left:{}", percent(100.0 * at_ns / took_ns.max(1.0)))) {
                    @if at_ns > 0.0 { (round_time(at_ns)) } @else { "0" }
                }
            }
        }
    }
}

/// What each step of a call took in the mean of the trace's calls.
fn means(falls: &[(&Trace, Waterfall)]) -> Markup {
    let told = |mark: Mark| falls.iter().any(|(_, fall)| mean_ns(fall, mark).is_some());
    let marks: Vec<Mark> = COMPARED.into_iter().filter(|mark| told(*mark)).collect();
    if marks.is_empty() {
        return html! {};
    }
    html! {
        h3 { "The steps of a hop, mean over the calls above" }
        div.wide {
            table {
                thead { tr { th { "path" } @for mark in &marks { th { (mark.step()) } } } }
                tbody {
                    @for (trace, fall) in falls {
                        tr {
                            th class=(known(&trace.path).class) { (known(&trace.path).label) }
                            @for mark in &marks {
                                td { (mean_ns(fall, *mark).map_or("–".to_owned(), time)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn mean_ns(fall: &Waterfall, mark: Mark) -> Option<f64> {
    let steps = fall.hops.iter().flat_map(|hop| &hop.steps);
    let lengths = steps.filter(|step| step.mark == mark).map(length_ns);
    let (sum_ns, count) = lengths.fold((0.0, 0.0), |(sum, count), ns| (sum + ns, count + 1.0));
    (count > 0.0).then(|| sum_ns / count)
}

fn length_ns(step: &Step) -> f64 {
    step.to_ns - step.from_ns
}
