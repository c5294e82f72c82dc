//! The page drawn: its skeleton here, a file for each part.

mod distribution;
mod floors;
mod glance;
mod shapes;
mod tables;
#[cfg(test)]
mod tests;
mod waterfall;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::page::Page;
use crate::words;

/// Whatever a text on the page says, the browser fetches nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = include_str!("style.css");

impl Page {
    /// The page as a file of its own.
    #[must_use]
    pub fn html(&self) -> String {
        self.document(SystemTime::now()).into_string()
    }

    /// Writes the page to `file`.
    ///
    /// # Errors
    /// Those of [`std::fs::write`].
    pub fn write(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, self.html())
    }

    fn document(&self, made: SystemTime) -> Markup {
        let verdict = self.verdict();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    title { (verdict.headline) " – " (self.program) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        p.eyebrow { (self.program) }
                        h1 { (verdict.headline) }
                        @for line in &verdict.because { p { (line) } }
                        @if let Some(warning) = &self.warning { p.warning { (warning) } }
                    }
                    main { (self.parts()) }
                    footer { (self.origin(made)) }
                }
            }
        }
    }

    fn parts(&self) -> Markup {
        html! {
            (glance::section(self))
            (glance::choice(self))
            (distribution::section(self))
            (waterfall::section(self))
            (floors::section(self))
            (shapes::section(self))
            (self.reading())
            (tables::section(self))
        }
    }

    fn reading(&self) -> Markup {
        html! {
            section #reading {
                h2 { "How to read this" }
                ul {
                    li { "Trust the ratios, not the absolute figures: paths were timed in turn on the \
                          same machine, and another machine has other times." }
                    li { strong { "p50" } " is the median: half took less. " strong { "p99" } ": one in a \
                          hundred took longer. That one is what a user notices when a page needs many calls." }
                    li { "A distribution shows how often each latency occurred, on an axis where each \
                          equal step multiplies the time. Each curve is scaled to its own highest point: \
                          compare where they stand, not how tall they are." }
                    li { strong { "CPU" } " is the processor time of all processes that take part, for one \
                          call or order: what is left of it is capacity for something else." }
                    @if !self.traces.is_empty() {
                        li { "A waterfall is one typical " (self.traced_unit()) ", not a mean: each row is a \
                              call, each colour who was at work. Rows that overlap ran at the same time." }
                    }
                    @if !self.floors.is_empty() {
                        li { "The machine's floors are what it takes to tell another process something, \
                              without any call: no path that uses the mechanism can be faster." }
                    }
                }
            }
        }
    }

    fn traced_unit(&self) -> &'static str {
        self.foremost().map_or("call", |group| group.unit.one())
    }

    fn origin(&self, made: SystemTime) -> Markup {
        let words: Vec<String> = self
            .command
            .iter()
            .map(|word| words::quoted(word))
            .collect();
        html! {
            h2 { "How these figures came about" }
            @if !words.is_empty() { pre { (words.join(" ")) } }
            dl {
                @for (name, value) in &self.machine {
                    div { dt { (name) } dd { (value) } }
                }
                div { dt { "made" } dd { (httpdate::fmt_http_date(made)) } }
            }
            @for line in &self.notes { p.dim { (line) } }
        }
    }
}

/// A share of a width, for a style attribute.
fn percent(share: f64) -> String {
    format!("{share:.2}%")
}

/// The marks of an axis, and their names below.
fn axis(scale: crate::scale::LogScale) -> Markup {
    html! {
        div.axis aria-hidden="true" {
            @for tick in scale.ticks() {
                span.minor[!tick.decade] style=(format!("left:{}", percent(tick.percent))) { (tick.label) }
            }
        }
    }
}

/// Lines through a chart at the marks of its axis.
fn grid(scale: crate::scale::LogScale) -> Markup {
    html! {
        @for tick in scale.ticks() {
            i.grid style=(format!("left:{}", percent(tick.percent))) {}
        }
    }
}
