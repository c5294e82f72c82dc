//! What the doctor found, for people and for programs.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::finding::Finding;
use super::paths::Tried;
use super::server::Server;

/// The best path that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Shm,
    Socket,
    Grpc,
    None,
}

impl Verdict {
    /// The exit status that says so; `--help` lists them.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Shm => 0,
            Self::Socket => 3,
            Self::Grpc => 4,
            Self::None => 5,
        }
    }

    /// Of the paths that work here.
    fn of_paths(paths: &[Tried]) -> Self {
        let works = |scheme| {
            paths
                .iter()
                .any(|tried| tried.path == scheme && tried.works)
        };
        if works("shm") {
            Self::Shm
        } else if works("socket") || works("socket+epoll") {
            Self::Socket
        } else if works("grpc") {
            Self::Grpc
        } else {
            Self::None
        }
    }

    /// Of the path that one server was called by. Memory that never leaves a host is as good as shared.
    fn of_server(server: &Server) -> Self {
        match server.path.as_deref() {
            Some("shm" | "inproc") => Self::Shm,
            Some("socket" | "pipe") => Self::Socket,
            Some(_) => Self::Grpc,
            None => Self::None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Shm => "shared memory works",
            Self::Socket => "no shared memory, but a socket works",
            Self::Grpc => "only the network works",
            Self::None => "no path works",
        }
    }
}

/// Everything found. Serialized, it is the contract of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The best path that works: for the server that was asked for, else between any two processes
    /// like this one.
    pub(crate) verdict: Verdict,
    pub(crate) exit_status: u8,
    pub(crate) findings: Vec<Finding>,
    pub(crate) paths: Vec<Tried>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<Server>,
}

impl Report {
    pub(crate) fn new(findings: Vec<Finding>, paths: Vec<Tried>, server: Option<Server>) -> Self {
        let verdict = match &server {
            Some(server) => Verdict::of_server(server),
            None => Verdict::of_paths(&paths),
        };
        Self {
            verdict,
            exit_status: verdict.status(),
            findings,
            paths,
            server,
        }
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    pub(crate) fn write_tables(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n", self.findings_table())?;
        self.write_advice(out)?;
        writeln!(out, "{}", self.paths_table())?;
        if let Some(server) = &self.server {
            writeln!(out, "\n{}", server_table(server))?;
        }
        let whose = match &self.server {
            Some(server) => format!("{}: ", server.address),
            None => String::new(),
        };
        writeln!(out, "\n{whose}{}", self.verdict.words())
    }

    fn findings_table(&self) -> Table {
        let mut table = table(&["area", "what", "", "found"]);
        for finding in &self.findings {
            let state = finding.state.word();
            table.add_row([finding.area, &finding.what, state, &finding.found]);
        }
        table
    }

    fn write_advice(&self, out: &mut impl Write) -> io::Result<()> {
        for finding in &self.findings {
            if let Some(advice) = &finding.advice {
                writeln!(out, "* {}: {advice}", finding.what)?;
            }
        }
        writeln!(out)
    }

    fn paths_table(&self) -> Table {
        let mut table = table(&["path", "", "why not"]);
        for tried in &self.paths {
            let works = if tried.works { "works" } else { "NO" };
            table.add_row([tried.path, works, tried.reason.as_deref().unwrap_or("")]);
        }
        table
    }
}

fn server_table(server: &Server) -> Table {
    let mut table = table(&["server", "", "found"]);
    for socket in &server.sockets {
        let found = match (&socket.reason, socket.peer_pid) {
            (Some(reason), _) => reason.clone(),
            (None, Some(pid)) => format!("pid {pid} answers"),
            (None, None) => "a process of another pid namespace answers".to_owned(),
        };
        let over = socket.engine.as_deref().or(socket.path).unwrap_or("NO");
        table.add_row([&socket.file, over, &found]);
    }
    if let Some(reason) = &server.no_sockets {
        table.add_row(["sockets on this host", "none", reason]);
    }
    let path = server.path.as_deref().unwrap_or("NO");
    table.add_row(["a call", path, &server.answer]);
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(path: &'static str, works: bool) -> Tried {
        let reason = (!works).then(|| "refused".to_owned());
        Tried {
            path,
            works,
            reason,
        }
    }

    #[test]
    fn the_best_path_that_works_decides() {
        let all = ["shm", "socket", "socket+epoll", "grpc"];
        let verdict = |working: &[&str]| {
            let paths: Vec<_> = all.map(|path| tried(path, working.contains(&path))).into();
            Report::new(Vec::new(), paths, None).exit_status
        };
        assert_eq!(verdict(&all), 0);
        assert_eq!(verdict(&["socket+epoll", "grpc"]), 3);
        assert_eq!(verdict(&["grpc"]), 4);
        assert_eq!(verdict(&[]), 5);
    }

    #[test]
    fn a_server_is_judged_by_its_own_path() {
        let server = |path: Option<&str>| Server {
            address: "catalog:1".to_owned(),
            sockets: Vec::new(),
            no_sockets: Some("none".to_owned()),
            path: path.map(str::to_owned),
            answer: "health: SERVING".to_owned(),
        };
        let report = |path| Report::new(Vec::new(), vec![tried("shm", true)], Some(server(path)));
        assert_eq!(report(Some("grpc")).exit_status, 4);
        assert_eq!(report(None).exit_status, 5);
        let mut out = Vec::new();
        report(Some("grpc")).write_tables(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("catalog:1: only the network works"), "{text}");
        assert!(text.contains("health: SERVING"), "{text}");
    }
}
