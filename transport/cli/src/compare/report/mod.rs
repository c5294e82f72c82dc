//! What a comparison came to: as JSON, as a table, as a page, and against the bars.

mod bars;
mod page;
mod table;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path as FsPath;

use ringway_report::Trace;
use serde::Serialize;

use super::error::Error;
use super::machine::Machine;
use super::measure::Row;
use super::options::{Kind, Options, Path, Spread};
use crate::compare::work::HandlerWork;

/// The result of a comparison. Serialized, it is the contract of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) config: Config,
    pub(crate) rows: Vec<Row>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Config {
    pub(crate) paths: Vec<Path>,
    pub(crate) sizes: Vec<usize>,
    pub(crate) in_flight: Vec<u16>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rate: Option<f64>,
    #[serde(flatten)]
    pub(crate) handler: HandlerWork,
    pub(crate) connections: u16,
    pub(crate) server_workers: Option<u16>,
    pub(crate) busy: u16,
    pub(crate) idle: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) rounds: u16,
    pub(crate) floors: bool,
    pub(crate) metadata: bool,
    pub(crate) trace: Option<f64>,
    pub(crate) spread: Spread,
}

impl Config {
    pub(crate) fn new(options: &Options, rounds: u16) -> Self {
        Config {
            paths: options.paths.clone(),
            sizes: options.sizes(),
            in_flight: options.in_flight(),
            kinds: options.kinds(),
            rate: options.rate,
            handler: options.handler,
            connections: options.connections,
            server_workers: options.server_workers,
            busy: options.busy,
            idle: options.idle,
            seconds: options.seconds,
            rounds,
            floors: options.floors,
            metadata: options.metadata,
            trace: options.trace,
            spread: options.spread,
        }
    }
}

impl Report {
    /// Prints the tables, and writes the JSON and the page where `options` want them.
    pub(crate) fn publish(
        &self,
        options: &Options,
        traces: Result<Vec<Trace>, Error>,
    ) -> Result<(), Error> {
        if let Some(file) = &options.report {
            let written = page::page(self, command(), traces).write(file);
            written.map_err(|source| Error::Write {
                file: file.clone(),
                source,
            })?;
        }
        let text = self.text();
        match options.json.as_deref() {
            None => print(&mut io::stdout(), "standard output", &text),
            Some(file) if file == FsPath::new("-") => {
                print(&mut io::stderr(), "standard error", &text)?;
                print(&mut io::stdout(), "standard output", &self.json())
            }
            Some(file) => {
                print(&mut io::stdout(), "standard output", &text)?;
                std::fs::write(file, self.json()).map_err(|source| Error::Write {
                    file: file.to_owned(),
                    source,
                })
            }
        }
    }

    fn json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("plain structs serialize");
        json.push('\n');
        json
    }

    fn text(&self) -> String {
        let Machine {
            cpus,
            model,
            kernel,
            build,
            ..
        } = &self.machine;
        let mut text = format!("{cpus} × {model}, Linux {kernel}\n");
        if *build == "debug" {
            text.push_str(
                "A debug build: use `cargo run --release`, these figures mean nothing.\n",
            );
        }
        if !self.config.handler.is_none() {
            text.push_str(&format!("Calls of {}.\n", self.config.handler));
        }
        if self.config.connections > 1 {
            let connections = self.config.connections;
            text.push_str(&format!("Calls spread over {connections} connections.\n"));
        }
        for table in [
            table::calls(&self.rows),
            table::traced(&self.rows),
            table::idle(&self.rows),
        ] {
            text.extend(table.map(|table| format!("{table}\n")));
        }
        for bar in bars::bars(self) {
            text.push_str(&format!("{bar}\n"));
        }
        text
    }
}

/// Finds out before the measurement, not after it.
pub(crate) fn check_writable(options: &Options) -> Result<(), Error> {
    let json = options.json.as_ref();
    let json = json.filter(|file| *file != FsPath::new("-"));
    for file in json.into_iter().chain(&options.report) {
        let opened = File::options().append(true).create(true).open(file);
        opened.map_err(|source| Error::Write {
            file: file.clone(),
            source,
        })?;
    }
    Ok(())
}

/// What a person typed, without the directory of the program.
fn command() -> Vec<String> {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    ["ringway".to_owned()].into_iter().chain(words).collect()
}

fn print(to: &mut impl Write, name: &str, text: &str) -> Result<(), Error> {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    written.map_err(|source| Error::Write {
        file: name.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_three_parts_of_the_contract() {
        let report = bars::tests::report(Vec::new());
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        let object = json.as_object().unwrap();
        assert_eq!(object.len(), 3);
        assert!(object["machine"].is_object() && object["config"].is_object());
        assert!(object["rows"].is_array());
        assert_eq!(json["config"]["paths"][0], "shm");
    }
}
