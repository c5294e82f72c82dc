//! What is shown of all servers, and in which order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use clap::ValueEnum;

use super::rows::{Interval, MethodRow, PathRow, Row};
use super::watch::News;

/// What the connections are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Calls,
    P99,
    Ring,
    Doorbells,
    Path,
    Peer,
}

impl Sort {
    pub(crate) const ALL: [Self; 6] = [
        Self::Calls,
        Self::P99,
        Self::Ring,
        Self::Doorbells,
        Self::Path,
        Self::Peer,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls/s",
            Self::P99 => "p99",
            Self::Ring => "ring",
            Self::Doorbells => "doorbells/s",
            Self::Path => "path",
            Self::Peer => "peer",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self);
        Self::ALL[at.map_or(0, |at| (at + 1) % Self::ALL.len())]
    }

    /// Numbers from the largest down, names from the first on.
    fn compare(self, one: &Row, other: &Row) -> Ordering {
        match self {
            Self::Calls => other.calls_per_s.total_cmp(&one.calls_per_s),
            Self::P99 => other.p99_ns.cmp(&one.p99_ns),
            Self::Ring => {
                let fill = |row: &Row| row.ring_fill.unwrap_or(-1.0);
                fill(other).total_cmp(&fill(one))
            }
            Self::Doorbells => other.doorbells_per_s.total_cmp(&one.doorbells_per_s),
            Self::Path => one.path.cmp(&other.path),
            Self::Peer => one.peer.cmp(&other.peer),
        }
    }
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Quit,
    NextSort,
    Reverse,
}

/// Everything on the screen.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) sort: Sort,
    pub(crate) reversed: bool,
    servers: BTreeMap<String, Result<Interval, String>>,
}

impl Screen {
    pub(crate) fn new(sort: Sort) -> Self {
        Self {
            sort,
            reversed: false,
            servers: BTreeMap::new(),
        }
    }

    /// Takes in what a server has told.
    pub(crate) fn hear(&mut self, news: News) {
        self.servers.insert(news.server, news.outcome);
    }

    /// Does what a key says; false if that is to end.
    pub(crate) fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return false,
            Command::NextSort => self.sort = self.sort.next(),
            Command::Reverse => self.reversed = !self.reversed,
        }
        true
    }

    /// The connections of all servers, with their server, sorted.
    pub(crate) fn rows(&self) -> Vec<(&str, &Row)> {
        let intervals = self.intervals();
        let mut rows: Vec<_> = intervals
            .flat_map(|told| {
                told.connections
                    .iter()
                    .map(|row| (told.server.as_str(), row))
            })
            .collect();
        rows.sort_by(|(_, one), (_, other)| {
            let order = self.sort.compare(one, other);
            if self.reversed {
                order.reverse()
            } else {
                order
            }
        });
        rows
    }

    /// All servers' paths, with their server.
    pub(crate) fn paths(&self) -> Vec<(&str, &PathRow)> {
        self.intervals()
            .flat_map(|told| told.paths.iter().map(|path| (told.server.as_str(), path)))
            .collect()
    }

    /// The methods of all servers, with their server, by path.
    pub(crate) fn methods(&self) -> Vec<(&str, &MethodRow)> {
        let intervals = self.intervals();
        intervals
            .flat_map(|told| told.methods.iter().map(|row| (told.server.as_str(), row)))
            .collect()
    }

    /// Servers that do not answer, and why.
    pub(crate) fn lost(&self) -> Vec<(&str, &str)> {
        let lost = self.servers.iter();
        lost.filter_map(|(server, told)| Some((server.as_str(), told.as_ref().err()?.as_str())))
            .collect()
    }

    fn intervals(&self) -> impl Iterator<Item = &Interval> {
        self.servers.values().filter_map(|told| told.as_ref().ok())
    }
}
