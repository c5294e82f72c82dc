//! A comparison as the page of `--report`.

use ringway_report::{Group, Idle, Page, Row as PageRow, Trace, Unit};

use super::Report;
use crate::compare::error::{Error, with_causes};
use crate::compare::machine::Machine;
use crate::compare::measure::{CallRow, IdleRow, Row};
use crate::compare::options::Kind;

/// What stands before a mechanism's name in a row that is no path.
const FLOOR: &str = "floor:";

const GRPC_TRACED: &str = "The calls over gRPC that are shown step by step went through Ringway's network path, \
                           which is tonic; those that are timed are plain tonic's, which tells of no steps.";

/// The page of `report`, made by `command`. Without `traces` it says why, and is a page still: the
/// figures took longer.
pub(super) fn page(
    report: &Report,
    command: Vec<String>,
    traces: Result<Vec<Trace>, Error>,
) -> Page {
    let (traces, note) = match traces {
        Ok(traces) => {
            let note = traces.iter().any(|trace| trace.path.starts_with("grpc"));
            (traces, note.then(|| GRPC_TRACED.to_owned()))
        }
        Err(error) => {
            let note = format!("No call could be traced: {}.", with_causes(&error));
            (Vec::new(), Some(note))
        }
    };
    let mut page = Page {
        program: "ringway compare".to_owned(),
        command,
        machine: machine(&report.machine),
        warning: warning(report),
        traces,
        notes: note.into_iter().collect(),
        ..Page::default()
    };
    for row in &report.rows {
        match row {
            Row::Calls(row) => add(&mut page, row),
            Row::Idle(row) => page.idle.push(idle(row)),
        }
    }
    page
}

/// Rows that were timed in turn come one after the other.
fn add(page: &mut Page, row: &CallRow) {
    if let Some(floor) = row.label.path.strip_prefix(FLOOR) {
        page.floors.push(drawn(floor, row));
        return;
    }
    let path = drawn(&row.label.path, row);
    match page.groups.last_mut() {
        Some(group) if is_of(group, row) => group.rows.push(path),
        _ => page.groups.push(group(row, path)),
    }
}

fn is_of(group: &Group, row: &CallRow) -> bool {
    let label = &row.label;
    let shape = (label.kind.to_string(), Some(label.size_bytes), label.rate);
    (group.kind.clone(), group.size_bytes, group.rate) == shape
        && group.handler == work(row)
        && group.in_flight == usize::from(label.in_flight)
}

fn group(row: &CallRow, path: PageRow) -> Group {
    let label = &row.label;
    Group {
        unit: match label.kind {
            Kind::Unary => Unit::Call,
            Kind::Join => Unit::Join,
            Kind::ServerStream | Kind::ClientStream | Kind::Bidi => Unit::Message,
        },
        kind: label.kind.to_string(),
        size_bytes: Some(label.size_bytes),
        in_flight: label.in_flight.into(),
        rate: label.rate,
        handler: work(row),
        rows: vec![path],
    }
}

fn work(row: &CallRow) -> Option<String> {
    let handler = row.label.handler;
    (!handler.is_none()).then(|| handler.to_string())
}

fn drawn(path: &str, row: &CallRow) -> PageRow {
    PageRow {
        path: path.to_owned(),
        latency_ns: row.latencies.histogram().clone(),
        per_s: Some(row.calls_per_s),
        cpu_ns: Some(row.cpu_ns_per_call),
    }
}

fn idle(row: &IdleRow) -> Idle {
    Idle {
        path: row.path.clone(),
        connections: row.connections,
        cpu_ns_per_s: row.cpu_ns_per_s,
        bytes_per_connection: row.bytes_per_connection,
    }
}

fn machine(machine: &Machine) -> Vec<(String, String)> {
    let gib = machine.memory_bytes >> 30;
    [
        (
            "processors",
            format!("{} × {}", machine.cpus, machine.model),
        ),
        (
            "kernel",
            format!("Linux {} ({})", machine.kernel, machine.arch),
        ),
        ("memory", format!("{gib} GiB")),
        (
            "Ringway",
            format!("{}, {} build", env!("CARGO_PKG_VERSION"), machine.build),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn warning(report: &Report) -> Option<String> {
    let debug = report.machine.build == "debug";
    debug.then(|| "A debug build: use cargo run --release, these figures mean nothing.".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compare::measure::{RowLabel, Tally};
    use crate::compare::report::bars::tests::report;
    use crate::compare::work::HandlerWork;

    fn row(path: &str, kind: Kind, in_flight: u16) -> Row {
        let mut tally = Tally::new();
        tally.latencies.record(Duration::from_micros(5));
        tally.elapsed = Duration::from_millis(1);
        Row::Calls(tally.into_row(RowLabel {
            path: path.to_owned(),
            kind,
            size_bytes: 64,
            in_flight,
            rate: None,
            handler: HandlerWork::default(),
        }))
    }

    #[test]
    fn rows_that_may_be_compared_stand_together_and_floors_apart() {
        let rows = vec![
            row("shm", Kind::Unary, 1),
            row("grpc-tcp", Kind::Unary, 1),
            row("floor:spin", Kind::Unary, 1),
            row("shm", Kind::Unary, 64),
            row("shm", Kind::Bidi, 64),
        ];
        let page = page(
            &report(rows),
            vec!["ringway".to_owned()],
            Err(Error::Interrupted),
        );
        assert_eq!(page.notes, ["No call could be traced: interrupted."]);
        let rows: Vec<usize> = page.groups.iter().map(|group| group.rows.len()).collect();
        assert_eq!(rows, [2, 1, 1]);
        let units: Vec<Unit> = page.groups.iter().map(|group| group.unit).collect();
        assert_eq!(units, [Unit::Call, Unit::Call, Unit::Message]);
        assert_eq!(page.floors[0].path, "spin");
        assert_eq!(page.groups[0].rows[1].latency_ns.len(), 1);
    }
}
